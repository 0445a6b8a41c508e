"""The fly provider on the simulator, for the contract suite. The simulator's machines are real agents."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.flysim import FlySim, SimSettings
from runner.flysim.settings import Delay
from runner.ids import ClusterId, MachineId, random_id
from runner.providers import fly
from runner.providers.base import Provider
from runner.providers.fly.records import machine_name
from runner.providers.registry import Place
from tests.contract.providers.harness import stands_still

_SHORT: dict[str, Any] = {
    each.name: Delay(0.02) for each in dataclasses.fields(SimSettings) if each.name.endswith("_delay")
}
APP, ORG = "contract", "personal"


@contextmanager
def running_simulator(**changes: Any) -> Iterator[FlySim]:
    """Fast, without a limit on calls, with everything that is late by nature still late by a little."""
    settings = SimSettings(**({"rate_limit": False, "org": ORG, "destroyed_visible_s": 0.5, **_SHORT} | changes))
    with FlySim(settings) as sim:
        yield sim


class FlyHarness:
    def __init__(self, sim: FlySim, log_dir: Path, **options: Any) -> None:
        self.cluster_id = ClusterId(random_id("c"))
        self.sim = sim
        values = {
            "app": APP,
            "org": ORG,
            "image": "runner-worker:1",
            "base_url": sim.url,
            "token": sim.token,
            "rates": False,
            "poll_s": 0.2,
            "lag_s": 2.0,
        } | options
        values = {key: value for key, value in values.items() if value is not None}
        place = Place(self.cluster_id, True, values, log_dir, "", "", "host-1", coordinator_host="127.0.0.1")
        self.provider: Provider = fly.make(place)

    async def end_machine(self, name: MachineId) -> None:
        self.sim.inject("crash", machine=machine_name(self.cluster_id, name))

    def running(self, name: MachineId) -> int:
        machines = self.sim.state()["machines"].items()
        ids = {each for each, machine in machines if machine["name"] == machine_name(self.cluster_id, name)}
        found = [each.process for each in self.sim.processes() if each.machine_id.partition(".")[0] in ids]
        return sum(not stands_still(process) for process in found)

    def left_over(self) -> list[str]:
        return [f"pid {tagged.process.pid} of {tagged.machine_id}" for tagged in self.sim.processes()]
