"""What the contract suite needs of each provider beyond the contract: a way to break its machines."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Protocol

from runner.core.values import CPU, UNIT, make_shape
from runner.ids import ClusterId, MachineId, random_id
from runner.providers.base import BootConfig, MachineSpec, MachineState, Provider
from runner.providers.fake import FakeProvider
from runner.providers.local import Forker, LocalProvider
from runner.providers.process_tag import Process, find_process, find_tagged
from runner.testing import FakeClock


def make_spec(cluster_id: ClusterId, name: str, **amounts: int) -> MachineSpec:
    """A machine that would register at a port where nobody listens."""
    boot = BootConfig(
        coordinator_address="127.0.0.1:9",
        ca_pem=b"",
        join_token="nobody checks it",
        machine_id=MachineId(name),
        cluster_id=cluster_id,
        embedded=True,
    )
    return MachineSpec(cluster_id, MachineId(name), make_shape({CPU: UNIT} | amounts), boot)


class Harness(Protocol):
    cluster_id: ClusterId
    provider: Provider

    async def end_machine(self, name: MachineId) -> None: ...

    def running(self, name: MachineId) -> int:
        """How many processes of a machine are there and do not stand still."""
        ...

    def left_over(self) -> list[str]: ...


def stands_still(process: Process) -> bool:
    """By a signal, or by the kernel's word about its control group."""
    now = find_process(process.pid)
    if now is None or now.state in "Tt":
        return True
    group = next(
        (line[3:] for line in Path(f"/proc/{process.pid}/cgroup").read_text().splitlines() if line[:3] == "0::"), ""
    )
    events = [root + group + "/cgroup.events" for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")]
    return any("frozen 1" in Path(path).read_text() for path in events if os.path.exists(path))


def groups_left(cluster_id: ClusterId) -> list[str]:
    """Control groups that a freeze has made."""
    return [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/runner-frozen-{cluster_id}-*")]


class FakeHarness:
    def __init__(self) -> None:
        self.cluster_id = ClusterId(random_id("c"))
        self.fake = FakeProvider(FakeClock())
        self.provider: Provider = self.fake

    async def end_machine(self, name: MachineId) -> None:
        self.fake.end_machine(name, "was killed by signal 9 (SIGKILL)")

    def running(self, name: MachineId) -> int:
        machine = self.fake._machines.get(name)
        return int(machine is not None and machine.record.state is MachineState.RUNNING)

    def left_over(self) -> list[str]:
        return [str(task) for task in self.fake._timers]


class LocalHarness:
    def __init__(self, forker: Forker, log_dir: Path, *, freezes_by_group: bool = True) -> None:
        self.cluster_id = ClusterId(random_id("c"))
        self.forker = forker
        self.provider: Provider = LocalProvider(
            forker, cluster_id=self.cluster_id, log_dir=log_dir, gpus=(), freezes_by_group=freezes_by_group
        )

    async def end_machine(self, name: MachineId) -> None:
        machine = await self.provider.get(name)
        assert machine is not None
        os.kill(int(machine.provider_machine_id.partition(":")[0]), signal.SIGKILL)

    def running(self, name: MachineId) -> int:
        found = [each.process for each in find_tagged(self.cluster_id) if each.machine_id == name]
        return sum(not stands_still(process) for process in found)

    def left_over(self) -> list[str]:
        left = [f"pid {tagged.process.pid} of {tagged.machine_id}" for tagged in find_tagged(self.cluster_id)]
        return left + groups_left(self.cluster_id)


class Exits:
    """Collects what a provider reports, and waits for the first."""

    def __init__(self, provider: Provider) -> None:
        self.seen: list[tuple[MachineId, str]] = []
        self._first = asyncio.Event()
        provider.on_exit(self._note)

    def _note(self, name: MachineId, reason: str) -> None:
        self.seen.append((name, reason))
        self._first.set()

    async def first(self) -> tuple[MachineId, str]:
        async with asyncio.timeout(10):
            await self._first.wait()
        return self.seen[0]
