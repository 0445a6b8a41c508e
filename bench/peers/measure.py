"""Start-up, memory, throughput and latency of no-ops in Ray or Dask, measured as bench_startup and bench_tasks do it.

Run with the peer's own interpreter: `python -m bench.peers.measure ray|dask`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from bench.harness import Figure, fresh_process, main, percentile

TASKS = 10_000
ROUND_TRIPS = 500

START = {
    "ray": """
import json, os, time
begin = time.perf_counter()
import ray
@ray.remote
def noop(): return 1
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
assert ray.get(noop.remote()) == 1
first = time.perf_counter()
time.sleep(2)
from bench.memory import tree_pss_mb
pss_mb, _ = tree_pss_mb(os.getpid())
ray.shutdown()
print(json.dumps({"total": first - begin, "pss_mb": pss_mb}))
""",
    "dask": """
import json, os, time
begin = time.perf_counter()
from distributed import Client, LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        assert client.submit(int, 1).result() == 1
        first = time.perf_counter()
        time.sleep(2)
        from bench.memory import tree_pss_mb
        pss_mb, _ = tree_pss_mb(os.getpid())
    print(json.dumps({"total": first - begin, "pss_mb": pss_mb}))
""",
}


def noop(_index: int = 0) -> None:
    """Nothing."""


def _ray() -> tuple[Callable[[int], Any], Callable[[], Any], Callable[[], Any]]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    remote = ray.remote(noop)
    return (
        lambda count: ray.get([remote.remote() for _ in range(count)]),
        lambda: ray.get(remote.remote()),
        ray.shutdown,
    )


def _dask() -> tuple[Callable[[int], Any], Callable[[], Any], Callable[[], Any]]:
    from distributed import Client, LocalCluster

    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    client = Client(cluster)

    def close() -> None:
        client.close()
        cluster.close()

    return (
        lambda count: client.gather([client.submit(noop, index, pure=False) for index in range(count)]),
        lambda: client.submit(noop, pure=False).result(),
        close,
    )


def measure(peer: str, repeats: int) -> list[Figure]:
    """The peer's figures on this machine."""
    total_s = Figure("import + init -> first no-op result", "s", note="fresh process, two workers, no dashboard")
    pss_mb = Figure("idle PSS of everything", "MB", note="two workers")
    rate = Figure("10,000 no-ops", "/s", more_is_better=True)
    trip_ms = Figure("round trip p50", "ms")
    for index in range(repeats + 1):
        took = fresh_process(START[peer])
        if index:  # the first one fills the page cache
            total_s.samples.append(took["total"])
            pss_mb.samples.append(took["pss_mb"])
    many, one, close = {"ray": _ray, "dask": _dask}[peer]()
    many(1000)
    for _ in range(repeats):
        begin_s = time.perf_counter()
        many(TASKS)
        rate.samples.append(TASKS / (time.perf_counter() - begin_s))
        trips = []
        for _ in range(ROUND_TRIPS):
            begin_s = time.perf_counter()
            one()
            trips.append((time.perf_counter() - begin_s) * 1e3)
        trip_ms.samples.append(percentile(trips, 50))
    close()
    return [total_s, pss_mb, rate, trip_ms]


if __name__ == "__main__":
    which = sys.argv.pop(1)
    sys.exit(main(f"peer-{which}", lambda repeats: measure(which, repeats)))
