"""How long 16 more local machines take until they are registered over mutual TLS."""

from __future__ import annotations

import sys

from bench.harness import Figure, fresh_process, main

GROW = """
import json, time
import runner
begin = time.perf_counter()
with runner.init(machines=17):
    while sum(node["Alive"] for node in runner.nodes()) < 17:
        time.sleep(0.005)
    took = time.perf_counter() - begin
print(json.dumps({"took": took}))
"""


def measure(repeats: int) -> list[Figure]:
    """Registration of many machines at once."""
    figure = Figure("17 machines registered, from init()", "s", note="fresh process; init with one machine included")
    for _ in range(repeats):
        figure.samples.append(fresh_process(GROW)["took"])
    return [figure]


if __name__ == "__main__":
    sys.exit(main("machines", measure))
