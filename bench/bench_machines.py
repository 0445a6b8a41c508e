"""Boots of many machines: on this computer, on the simulator of Fly's API, more of them, and from none back to one."""

from __future__ import annotations

import sys

from bench.harness import Figure, fresh_process, main, percentile

MANY = 64
MORE = 16

# Boots as many machines as the first argument says; prints when they registered, in seconds since they were requested.
BOOTS = """
import json, os, sys, time
import runner
from bench.memory import tree_pss_mb
count, more, options = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
begin = time.perf_counter()

def registered(wanted):
    # Asked cheaply: a listing of so many machines costs milliseconds, which are the boots' to use.
    while runner.cluster_resources().get("CPU", 0) < wanted:
        time.sleep(0.1)
    return [node for node in runner.nodes() if node.is_alive]

with runner.init(machines=count, num_cpus=1, log_to_driver=False, **options):
    nodes = registered(count)
    took = {"all": max(node.phases["registered"] for node in nodes), "since_init": time.perf_counter() - begin}
    took["boots"] = [node.phases["registered"] for node in nodes]
    took["forked"] = [node.phases["registered"] - node.phases["started"] for node in nodes]
    time.sleep(2)
    took["pss_mb"] = tree_pss_mb(os.getpid())[0]
    if more:
        from runner.client.context import current_session
        from runner.client.streams import client_transport
        from runner.rpc.gen import client_pb2
        request = client_pb2.AddMachinesRequest(count=more)
        client_transport(current_session()).request("AddMachines", request, client_pb2.AddMachinesReply)
        took["more"] = max(node.phases["registered"] for node in registered(count + more)[count:])
print(json.dumps(took))
"""

# A pool that shrinks to nothing; then one task: how long until its result.
BACK = """
import json, time
import runner

@runner.remote
def noop(): return 1

with runner.init(machines=runner.Pool(min=0, max=1, idle_shutdown_s=0.1, num_cpus=1), log_to_driver=False):
    took, boots = [], []
    for _ in range(6):
        begin = time.perf_counter()
        assert runner.get(noop.remote()) == 1
        took.append(time.perf_counter() - begin)
        boots += [node.phases["registered"] for node in runner.nodes() if node.is_alive and "registered" in node.phases]
        while any(node.state != "destroyed" for node in runner.nodes()):
            time.sleep(0.01)
print(json.dumps({"first": took[1:], "boots": boots}))
"""


def measure(repeats: int) -> list[Figure]:
    """Registration of many machines at once, each time in a new cluster."""
    every = Figure(f"{MANY} local machines registered", "s", target=2.5, note="from the request to the last")
    one = Figure(f"one of {MANY} local boots, p95", "s", target=1.5, note="requested to registered")
    forked = Figure(f"the same from its process's start, p95 of {MANY}", "s", note="started to registered")
    pss = Figure("idle PSS of one more machine", "MB", target=25, note=f"of {MANY}, with the client and coordinator")
    more = Figure(f"{MORE} more machines registered", "s", target=1.0, note=f"beside {MANY}")
    alone = Figure("one local boot", "s", note="requested to registered, in a cluster of one")
    for _ in range(repeats):
        took = fresh_process(BOOTS, str(MANY), str(MORE), "{}")
        every.samples.append(took["all"])
        one.samples.append(percentile(took["boots"], 95))
        forked.samples.append(percentile(took["forked"], 95))
        pss.samples.append(took["pss_mb"] / MANY)
        more.samples.append(took["more"])
        alone.samples += fresh_process(BOOTS, "1", "0", "{}")["boots"]
    return [every, one, forked, pss, more, alone, *_back_from_none(repeats)]


def _back_from_none(repeats: int) -> list[Figure]:
    took = [fresh_process(BACK) for _ in range(repeats)]
    boot = Figure("boot of a machine that a task asked for", "s", note="requested to registered")
    boot.samples += [each for one in took for each in one["boots"]]
    first = Figure("from no machine to a task's result", "s", target=boot.median + 0.2, note="target: boot + 0.2 s")
    first.samples += [each for one in took for each in one["first"]]
    return [boot, first]


if __name__ == "__main__":
    sys.exit(main("machines", measure))
