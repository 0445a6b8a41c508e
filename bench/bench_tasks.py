"""No-op tasks: how many a second, and how long one takes there and back."""

from __future__ import annotations

import sys
import time

import runner
from bench.harness import Figure, main, percentile
from bench.memory import tree

TASKS = 10_000
ROUND_TRIPS = 500


@runner.remote
def noop() -> None:
    """Nothing."""


def cpu_seconds() -> float:
    """CPU time used so far by this process and all that it started."""
    import os

    ticks = 0
    for pid in tree(os.getpid()):
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                ticks += sum(map(int, file.read().rpartition(b")")[2].split()[11:13]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(repeats: int) -> list[Figure]:
    """Throughput and latency of no-ops on two machines with one CPU each."""
    rate = Figure("10,000 no-ops", "/s", target=3000, more_is_better=True, note="submit all, get all")
    cpu_ms = Figure("CPU of all processes per no-op", "ms", target=0.6)
    trip_ms = Figure("round trip p50", "ms", target=1.5, note=f"{ROUND_TRIPS} in a row, one at a time")
    trip_p99_ms = Figure("round trip p99", "ms")
    with runner.init(machines=1, num_cpus=2):  # as the peers: one node, two CPUs
        runner.get([noop.remote() for _ in range(1000)])
        for _ in range(repeats):
            before_s, begin_s = cpu_seconds(), time.perf_counter()
            runner.get([noop.remote() for _ in range(TASKS)])
            rate.samples.append(TASKS / (time.perf_counter() - begin_s))
            cpu_ms.samples.append((cpu_seconds() - before_s) / TASKS * 1e3)
        for _ in range(repeats):
            trips = []
            for _ in range(ROUND_TRIPS):
                begin_s = time.perf_counter()
                runner.get(noop.remote())
                trips.append((time.perf_counter() - begin_s) * 1e3)
            trip_ms.samples.append(percentile(trips, 50))
            trip_p99_ms.samples.append(percentile(trips, 99))
    return [rate, cpu_ms, trip_ms, trip_p99_ms]


if __name__ == "__main__":
    sys.exit(main("tasks", measure))
