"""Scripts with one machine that is put to sleep and comes back."""

from __future__ import annotations

from typing import Any

from runner.core import commands as c
from runner.core import events as e
from runner.core import suspend_events as se
from runner.core.values import CoreConfig, PoolRecord
from tests.unit.core.script import M1, Script, cpus, of


class Sleeper(Script):
    """One machine of a pool that can be put to sleep."""

    def __init__(self, config: CoreConfig | None = None, **pool: Any) -> None:
        super().__init__(config)
        record = PoolRecord("default", cpus(1), 1, 1)._replace(**pool)
        self.feed(e.PoolsConfigured((record,), {"default": 1}, "fake"))
        self.feed(e.MachineCreated(M1, "p-1"))
        self.register("m-1", cpus(1))

    @property
    def machine(self) -> Any:
        return self.cluster._state.machines[M1]

    @property
    def machine_pool(self) -> PoolRecord:
        """As it is configured now."""
        return self.cluster.pools()[0].record

    @property
    def where(self) -> str:
        """State, and stage."""
        sleep = self.machine.sleep
        return self.machine.state.label + ("" if sleep is None else f"/{sleep.stage.name.lower()}")

    def ask(self, **more: Any) -> list[c.Command]:
        return self.feed(se.SuspendRequested(M1, **more))

    def say(self, kind: type[Any], **more: Any) -> list[c.Command]:
        return self.feed(kind(M1, self.machine.generation, self.machine.snapshot, **more))

    def prepare(self) -> list[c.Command]:
        self.ask()
        self.say(se.AgentIsQuiet)
        return self.say(se.AgentPrepared)

    def put_to_sleep(self) -> None:
        self.prepare()
        self.feed(se.MachineSuspended(M1, self.machine.snapshot))
        assert self.where == "suspended/saved"

    def come_back(self, snapshot: int | None = None, instance: str = "agent-1/key-2") -> list[c.Command]:
        number = self.machine.snapshot if snapshot is None else snapshot
        return self.feed(e.MachineRegistered(M1, instance, cpus(1), "host", snapshot=number))


def sent(commands: list[c.Command]) -> list[str]:
    return [command.action for command in of(c.SuspendAgent, commands)]
