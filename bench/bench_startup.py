"""From nothing to the first result in a fresh process, and what an idle cluster costs in memory."""

from __future__ import annotations

import sys

from bench.harness import Figure, fresh_process, main

START = """
import json, time
begin = time.perf_counter()
import runner
imported = time.perf_counter()
@runner.remote
def noop(): return 1
with runner.init(machines=1):
    ready = time.perf_counter()
    assert runner.get(noop.remote()) == 1
    first = time.perf_counter()
down = time.perf_counter()
print(json.dumps({"import": imported - begin, "init": ready - imported, "first": first - imported,
                  "total": first - begin, "shutdown": down - first}))
"""

IDLE = """
import json, os, sys, time
import runner
from bench.memory import tree_pss_mb
preload = [name for name in sys.argv[1].split(",") if name]
@runner.remote
def noop(): return 1
with runner.init(machines=1, preload=preload):
    runner.get(noop.remote())
    time.sleep(2)
    pss_mb, processes = tree_pss_mb(os.getpid())
print(json.dumps({"pss_mb": pss_mb, "processes": processes}))
"""


def measure(repeats: int) -> list[Figure]:
    """Start-up time and idle memory."""
    import_s = Figure("import runner", "s", note="fresh process")
    init_s = Figure("runner.init()", "s", note="fresh process, one machine")
    first_s = Figure("init -> first no-op result", "s", target=0.8, note="fresh process, one machine")
    total_s = Figure("import + init -> first no-op result", "s", note="fresh process, one machine")
    shutdown_s = Figure("shutdown", "s")
    fresh_process(START)  # fills the page cache, as any second start of the day finds it
    for _ in range(max(repeats, 7)):
        took = fresh_process(START)
        for figure, key in ((import_s, "import"), (init_s, "init"), (first_s, "first"), (total_s, "total")):
            figure.samples.append(took[key])
        shutdown_s.samples.append(took["shutdown"])
    pss = Figure("idle PSS of everything", "MB", target=110, note="client, coordinator, one machine, one executor")
    torch_pss = Figure("idle PSS of everything with the torch layer", "MB", note="the same with preload=['torch']")
    for _ in range(repeats):
        pss.samples.append(fresh_process(IDLE, "")["pss_mb"])
        torch_pss.samples.append(fresh_process(IDLE, "torch")["pss_mb"])
    return [import_s, init_s, first_s, total_s, shutdown_s, pss, torch_pss]


if __name__ == "__main__":
    sys.exit(main("startup", measure))
