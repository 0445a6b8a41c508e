"""How long 16 more local machines take until they are registered over mutual TLS."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from typing import Any

from bench.harness import Figure, main
from runner.cli import connection
from runner.client import embedded
from runner.rpc.clusters import Target

MORE = 16
POLL_S = 0.005
DEADLINE_S = 60.0


async def _ready(open_connection: Any, count: int) -> None:
    """Wait until that many machines have registered."""
    from runner.rpc.gen import client_pb2

    deadline_s = time.monotonic() + DEADLINE_S
    states: Counter[str] = Counter()
    while time.monotonic() < deadline_s:
        request = client_pb2.ListMachinesRequest(page_size=500)
        states = Counter(machine.state for machine in await open_connection.pages("ListMachines", request, "machines"))
        if states["ready"] >= count:
            return
        await asyncio.sleep(POLL_S)
    raise TimeoutError(f"not {count} machines ready after {DEADLINE_S:g} s: {dict(states)}")


async def _grow(open_connection: Any) -> float:
    from runner.rpc.gen import client_pb2

    await _ready(open_connection, 1)
    begin_s = time.perf_counter()
    request = client_pb2.AddMachinesRequest(count=MORE, request_id="bench")
    await open_connection.stub.AddMachines(request, timeout=10)
    await _ready(open_connection, 1 + MORE)
    return time.perf_counter() - begin_s


def measure(repeats: int) -> list[Figure]:
    """Registration of many machines at once, each time in a new cluster of one machine."""
    figure = Figure(
        f"{MORE} more machines registered", "s", target=1.0, note="from the request to the last registration"
    )
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="runner-bench-") as home:
            cluster = embedded.start({"home": home, "machines": 1}, 30.0, lambda: None)
            try:
                ready = cluster.ready
                target = Target(ready.address, ready.ca_pem, ready.token)
                figure.samples.append(connection.call(target, _grow))
            finally:
                cluster.close()
    return [figure]


if __name__ == "__main__":
    sys.exit(main("machines", measure))
