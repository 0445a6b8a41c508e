"""From `report()` in a task to the event in the client's loop; and 64 runs that report at once."""

from __future__ import annotations

import sys
import time

import runner
from bench.harness import Figure, main, percentile

REPORTS = 200
GAP_S = 0.005
RUNS = 64
REPORTS_EACH = 100


@runner.remote
def reporter(count: int, gap_s: float) -> None:
    """Report the time of the report, which the reader on this host compares with its own clock."""
    for step in range(count):
        runner.report({"sent_s": time.time()}, step=step)
        time.sleep(gap_s)


@runner.remote(num_cpus=0.03)
def flood(count: int) -> int:
    """Report as fast as it goes."""
    for step in range(count):
        runner.report({"value": step}, step=step)
    return count


def latencies_ms() -> list[float]:
    """One run, paced so that nothing queues."""
    run = reporter.options(name="latency").remote(REPORTS, GAP_S)
    events = runner.stream([run])
    found = [(time.time() - event.values["sent_s"]) * 1e3 for event in events if "sent_s" in event.values]
    assert len(found) == REPORTS, f"{len(found)} of {REPORTS} reports arrived"
    return found


def flooded() -> tuple[float, int]:
    """Events a second over all runs, and how many were lost, doubled or out of order."""
    begin_s = time.perf_counter()
    runs = [flood.options(name=f"flood-{index}").remote(REPORTS_EACH) for index in range(RUNS)]
    steps: dict[str, list[int]] = {}
    for event in runner.stream(runs):
        if "value" in event.values:
            steps.setdefault(event.name, []).append(int(event.values["value"]))
    took_s = time.perf_counter() - begin_s
    wanted = list(range(REPORTS_EACH))
    wrong = sum(steps.get(f"flood-{index}", []) != wanted for index in range(RUNS))
    return RUNS * REPORTS_EACH / took_s, wrong


def measure(repeats: int) -> list[Figure]:
    """Latency of one report, and order under load."""
    p50_ms = Figure("report -> event p50", "ms", target=2.0, note=f"{REPORTS} reports, one each {GAP_S * 1e3:g} ms")
    p95_ms = Figure("report -> event p95", "ms")
    rate = Figure("64 runs at once: events", "/s", more_is_better=True, note="start of 64 executors included")
    wrong = Figure("64 runs at once: runs with a lost or moved event", "runs", target=0)
    with runner.init(machines=2, num_cpus=1):
        latencies_ms()
        for _ in range(repeats):
            found = latencies_ms()
            p50_ms.samples.append(percentile(found, 50))
            p95_ms.samples.append(percentile(found, 95))
        for _ in range(repeats):
            events_rate, bad = flooded()
            rate.samples.append(events_rate)
            wrong.samples.append(bad)
    return [p50_ms, p95_ms, rate, wrong]


if __name__ == "__main__":
    sys.exit(main("stream", measure))
