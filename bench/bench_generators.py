"""Items of remote generators: how many a second, and how soon the first one is there."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import runner
from bench.harness import Figure, main

ITEMS = 10_000
CALLS = 50


@runner.remote
def numbers(count: int) -> Iterator[int]:
    """`count` small items."""
    yield from range(count)


@runner.remote(generator_backpressure_num_objects=100)
def bounded(count: int) -> Iterator[int]:
    """As many, at most 100 of them unread."""
    yield from range(count)


def read(items: Any) -> int:
    """Get each item in turn; returns how many there were."""
    return sum(1 for ref in items if runner.get(ref) is not None)


def measure(repeats: int) -> list[Figure]:
    """Throughput and latency on one machine with two CPUs."""
    rate = Figure("10,000 items", "/s", target=20_000, more_is_better=True, note="each got in turn")
    refs_rate = Figure("10,000 items, refs first", "/s", more_is_better=True, note="all refs, then one get")
    bounded_rate = Figure("10,000 items, at most 100 unread", "/s", more_is_better=True)
    first_ms = Figure("call -> first item", "ms", note="an idle executor")
    with runner.init(machines=1, num_cpus=2, log_to_driver=False):
        read(numbers.remote(1000))
        for _ in range(repeats):
            begin_s = time.perf_counter()
            read(numbers.remote(ITEMS))
            rate.samples.append(ITEMS / (time.perf_counter() - begin_s))
            begin_s = time.perf_counter()
            items: Any = numbers.remote(ITEMS)
            runner.get(list(items))
            refs_rate.samples.append(ITEMS / (time.perf_counter() - begin_s))
            begin_s = time.perf_counter()
            read(bounded.remote(ITEMS))
            bounded_rate.samples.append(ITEMS / (time.perf_counter() - begin_s))
            for _ in range(CALLS):
                begin_s = time.perf_counter()
                one: Any = numbers.remote(1)
                runner.get(next(one))
                first_ms.samples.append((time.perf_counter() - begin_s) * 1e3)
    return [rate, refs_rate, bounded_rate, first_ms]


if __name__ == "__main__":
    sys.exit(main("generators", measure))
