"""How long it takes until a model answers in a new process: loaded from disk, or forked from a template that has it.

python examples/resume_model.py [--repeats N]

Where the cluster's machines can be suspended, also after a suspend and a resume.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bert.ctrl_c  # noqa: F401  before what takes long to import
import runner
from bert.model import PACKAGED, load_model

SENTENCES = ["a film with a heart", "two hours that nobody gives back"]


def load() -> tuple[Any, runner.Model[Any]]:
    """Tokenizer, and the model as it is moved: to a GPU by the first `get()`, where there is one, and back before a suspend."""
    import torch

    torch.manual_seed(0)  # for the head, which is new: every process is to answer the same
    tokenizer, module = load_model(PACKAGED)
    return tokenizer, runner.Model(module.eval)


@runner.template
def bert_model() -> tuple[Any, runner.Model[Any]]:
    """Runs once per machine."""
    return load()


def answer(tokenizer: Any, model: runner.Model[Any]) -> list[list[float]]:
    """The model's view of the sentences."""
    import torch

    module = model.get()
    words = tokenizer(SENTENCES, return_tensors="pt", padding=True).to(module.device)
    with torch.inference_mode():
        return [[round(value, 3) for value in row] for row in module(**words).logits.tolist()]


# `max_calls=1`: a new process for each call.
@runner.remote(max_calls=1)
def from_disk() -> list[list[float]]:
    return answer(*load())


@runner.remote(max_calls=1)
def from_template() -> list[list[float]]:
    return answer(*bert_model())


def in_fresh_python() -> float:
    """Seconds from the start of an interpreter until the model has answered there."""
    begin_s = time.perf_counter()
    code = "import resume_model; resume_model.answer(*resume_model.load())"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)
    return time.perf_counter() - begin_s


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The median of how long it takes, and what it returned last."""
    took_s = []
    result = None
    for _ in range(repeats):
        begin_s = time.perf_counter()
        result = call()
        took_s.append(time.perf_counter() - begin_s)
    return statistics.median(took_s), result


def after_resume(cluster: Any) -> float | None:
    """Seconds from the wish to resume until the model has answered; None where machines cannot be suspended."""
    try:
        cluster.suspend()
    except runner.errors.ProviderError as error:
        print(f"not suspended: {error}")
        return None
    begin_s = time.perf_counter()
    cluster.resume()
    runner.get(from_template.remote())
    return time.perf_counter() - begin_s


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--repeats", type=int, default=5, metavar="N")
    arguments.add_argument("--provider", default="local")
    options = arguments.parse_args()
    print(f"a fresh Python process:          {in_fresh_python():8.3f} s until the model has answered")
    with runner.init(provider=options.provider, machines=1) as cluster:
        first_s, _ = timed(lambda: runner.get(from_disk.remote()), 1)
        disk_s, expected = timed(lambda: runner.get(from_disk.remote()), options.repeats)
        print(f"a worker process, from disk:     {disk_s:8.3f} s (the first one of the machine: {first_s:.3f} s)")
        first_s, _ = timed(lambda: runner.get(from_template.remote()), 1)
        template_s, found = timed(lambda: runner.get(from_template.remote()), options.repeats)
        print(f"a worker process, from template: {template_s:8.3f} s (the first one of the machine: {first_s:.3f} s)")
        if found != expected:
            raise SystemExit(f"the answers differ: {found} and {expected}")
        print(f"the same answers, {disk_s / template_s:.0f} times as soon")
        resumed_s = after_resume(cluster)
        if resumed_s is not None:
            print(f"a resumed machine:               {resumed_s:8.3f} s")


if __name__ == "__main__":
    main()
