"""A new executor that has torch, forked from a warm template."""

from __future__ import annotations

import sys
import time

import runner
from bench.harness import Figure, main


@runner.remote(max_calls=1)
def fresh() -> int:
    """Uses torch, in a process of its own."""
    import os

    import torch

    torch.ones(4, 4).sum().item()
    return os.getpid()


def measure(repeats: int) -> list[Figure]:
    """Submit to result of a task that gets a new process with torch, template warm."""
    took_s = Figure("new executor with torch, template warm", "s", target=0.1, note="submit -> result")
    with runner.init(machines=1, preload=["torch"]):
        pids = {runner.get(fresh.remote())}
        for _ in range(repeats * 4):
            begin_s = time.perf_counter()
            pids.add(runner.get(fresh.remote()))
            took_s.samples.append(time.perf_counter() - begin_s)
    assert len(pids) == repeats * 4 + 1, "an executor was used twice"
    return [took_s]


if __name__ == "__main__":
    sys.exit(main("executor", measure))
