"""Boots of many machines at the simulator of Fly's API: beside as many local ones, and at the documented rate of calls."""

from __future__ import annotations

import json
import sys
from typing import Any

from bench.bench_machines import BOOTS
from bench.harness import Figure, fresh_process, main
from runner.flysim import FlySim, SimSettings
from runner.flysim.settings import Delay

MANY = 64
PER_S, BURST = 1.0, 3  # of creates in one app, as documented
TASKS = 32 * MANY
BOUND_S = (MANY - BURST) / PER_S
# What Fly's own work takes is left out: what is measured is ours, and the limit.
AT_ONCE: dict[str, Any] = {name: Delay(0.0) for name in SimSettings.__dataclass_fields__ if name.endswith("_delay")}

# Boots at the documented rate while short tasks wait; prints when machines registered and how the tasks went on.
PACED = """
import json, sys, threading, time
import runner
count, options = int(sys.argv[1]), json.loads(sys.argv[2])

@runner.remote
def work():
    import time
    time.sleep(0.5)
    return time.time()

begin = time.time()
with runner.init(machines=count, num_cpus=1, log_to_driver=False, **options):
    refs = [work.remote() for _ in range(int(sys.argv[3]))]
    while sum(node.is_alive for node in runner.nodes()) < count:
        time.sleep(0.05)
    nodes = runner.nodes()
    last = max(node.phases["registered"] for node in nodes)
    ends = runner.get(refs)
    print(json.dumps({
        "last": last,
        "first": min(node.phases["registered"] for node in nodes),
        "before_last": sum(end - begin < last for end in ends),
    }))
"""


def measure(repeats: int) -> list[Figure]:
    """Each time a new simulator and a new cluster; the local machines of the ratio in the same run."""
    ratio = Figure(f"{MANY} machines at the simulator / {MANY} local", "x", target=1.5, note="last one registered")
    here = Figure(f"{MANY} local machines registered", "s", note="from the request to the last")
    there = Figure(f"{MANY} machines at the simulator registered", "s", note="no delays, no rate limit")
    for _ in range(repeats):
        here.samples.append(fresh_process(BOOTS, str(MANY), "0", "{}")["all"])
        with FlySim(rate_limit=False, gone_within_s=30.0, **AT_ONCE) as sim:
            there.samples.append(fresh_process(BOOTS, str(MANY), "0", _options(sim, rates=False))["all"])
        ratio.samples.append(there.samples[-1] / here.samples[-1])
    return [ratio, there, here, *_paced()]


def _paced() -> list[Figure]:
    """Once: it takes a minute, and the limit leaves little to chance."""
    bound = Figure(
        f"{MANY} machines at 1 create/s / the bound", "x", target=1.05, note=f"the limit alone makes {BOUND_S:g} s"
    )
    done = Figure(
        "tasks done before the last machine registered",
        "tasks",
        target=MANY,
        more_is_better=True,
        note=f"of {TASKS} of 0.5 s each",
    )
    extra = Figure("machines lost or extra", "", target=0, note="made at the simulator, less those wanted")
    with FlySim(gone_within_s=30.0, actions_per_s=PER_S, actions_burst=BURST, **AT_ONCE) as sim:
        took = fresh_process(PACED, str(MANY), _options(sim), str(TASKS), timeout_s=300.0)
        extra.samples.append(abs(len(sim.state()["machines"]) - MANY))
    bound.samples.append(took["last"] / BOUND_S)
    done.samples.append(took["before_last"])
    return [bound, done, extra]


def _options(sim: FlySim, **options: Any) -> str:
    given = {"app": "bench", "org": "personal", "base_url": sim.url, "token": sim.token, **options}
    return json.dumps({"provider": "fly", "image": "runner-worker:1", "provider_options": given})


if __name__ == "__main__":
    sys.exit(main("fly_sim", measure))
