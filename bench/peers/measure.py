"""One round of measures of one system, in a process of its own: prints a JSON object of samples by figure.

Run with the system's own interpreter: `python -m bench.peers.measure ray|runner|dask [scene ...]`.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from typing import Any

from bench.harness import fresh_process
from bench.peers.scenes import ROUND_TRIPS, SCENES, TASKS, Samples, _p50_ms, noop

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
    "runner": """
import json, os, time
begin = time.perf_counter()
import runner
@runner.remote
def noop(): return 1
runner.init(machines=1, num_cpus=2, log_to_driver=False)
assert runner.get(noop.remote()) == 1
first = time.perf_counter()
time.sleep(2)
from bench.memory import tree_pss_mb
pss_mb, _ = tree_pss_mb(os.getpid())
runner.shutdown()
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


def start(system: str) -> Samples:
    """A fresh process to its first result, and what an idle cluster takes."""
    took = fresh_process(START[system])
    return {"import + init -> first no-op result": [took["total"]], "idle PSS of everything": [took["pss_mb"]]}


def open_api(system: str) -> Any:
    """The module whose functions the scenes call, with a cluster of two CPUs. Both as `init()` gives it, without output."""
    if system == "ray":
        import ray

        # "local": a cluster of its own, whatever other one runs on this host.
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        return ray
    import runner

    runner.init(machines=1, num_cpus=2, log_to_driver=False)
    return runner


def measure(system: str, names: list[str]) -> Samples:
    """Samples of all scenes, or of those named. A scene that fails is told on stderr and has none."""
    found: Samples = {}
    if not names or "start" in names:
        found |= start(system)
    api = open_api(system)
    for name, scene in SCENES.items():
        if names and name not in names:
            continue
        try:
            found |= scene(api)
        except Exception:
            print(f"{system}: {name} failed", file=sys.stderr)
            traceback.print_exc(limit=3)
    api.shutdown()
    return found


def measure_dask(names: list[str]) -> Samples:
    """What Dask is compared in: start and no-ops."""
    from distributed import Client, LocalCluster

    found = start("dask") if not names or "start" in names else {}
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    client = Client(cluster)
    client.gather([client.submit(noop, index, pure=False) for index in range(1000)])
    trip_ms = _p50_ms(lambda: client.submit(noop, pure=False).result(), ROUND_TRIPS)
    begin_s = time.perf_counter()
    client.gather([client.submit(noop, index, pure=False) for index in range(TASKS)])
    rate = TASKS / (time.perf_counter() - begin_s)
    client.close()
    cluster.close()
    return found | {"round trip p50": [trip_ms], "10,000 no-ops": [rate]}


if __name__ == "__main__":
    system, *chosen = sys.argv[1:]
    print(json.dumps(measure_dask(chosen) if system == "dask" else measure(system, chosen)))
