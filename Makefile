# One word for each thing a person does here. `make demo` and `make test` do all set-up themselves.
#   PYTHON=python3.12   another interpreter
#   DEMO_ARGS=--full     options of examples/bert_finetune.py for `make demo`
#   SYSTEM_SITE=1       a .venv that sees the interpreter's own packages (a torch with CUDA, say)
SHELL := /bin/bash
PYTHON ?= python3
export PYTHON SYSTEM_SITE
VENV := .venv
RUN := $(VENV)/bin/python
# The stamp names what it was made from: a changed pin sets up again, a touched file does not.
INPUTS := pyproject.toml constraints.txt scripts/setup.sh scripts/fetch_data.py
STAMP := $(VENV)/.ready-$(shell cat $(INPUTS) | sha256sum | cut -c 1-16)

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check bench bench-peers soak format protos freeze clean distclean

help:
	@echo "make demo         fine-tune a few BERT variants side by side and rank them"
	@echo "make test         all tests (10 minutes at most); make test-fast: the first minute of them"
	@echo "make check        every gate: lint, format, types, imports, generated code, links, sizes"
	@echo "make bench        the figures, with spread, into bench/results; make bench-peers: Ray and Dask too"
	@echo "make soak         long chaos and many seeds"
	@echo "make format       let ruff mend what it can"
	@echo "make protos       generate runner/rpc/gen from protos/"
	@echo "make freeze       write constraints.txt from .venv"
	@echo "make clean        remove caches and build output; make distclean: .venv and .cache too"

setup: $(STAMP)

$(STAMP):
	@bash scripts/setup.sh
	@rm -f $(VENV)/.ready-*
	@touch $@

demo: $(STAMP)
	@$(RUN) examples/bert_finetune.py $(DEMO_ARGS)

test: $(STAMP)
	@bash scripts/test.sh fast slow examples wheel

test-fast: $(STAMP)
	@bash scripts/test.sh fast

check: $(STAMP)
	@bash scripts/check.sh

bench: $(STAMP)
	@$(RUN) -m bench.run

bench-peers: $(STAMP)
	@bash bench/peers/run.sh

soak: $(STAMP)
	@bash scripts/test.sh soak

format: $(STAMP)
	@$(RUN) -m ruff check --fix --quiet . ; $(RUN) -m ruff format .

protos: $(STAMP)
	@$(RUN) scripts/gen_protos.py

freeze: $(STAMP)
	@$(RUN) scripts/freeze.py

clean:
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist out .cache/wheel
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	@rm -rf .venv .cache
