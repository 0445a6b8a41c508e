"""Has all processes of a machine on this host stand still, and lets them go on.

Where this process may make a control group of version 2, the kernel's freezer does it, and nothing in the machine can tell.
Elsewhere every process gets SIGSTOP and later SIGCONT, which its own parent and its own handlers may notice. The freezer of
version 1 is not used: what it holds does not even die of SIGKILL, so that `kill -9` of everything would leave it there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runner.ids import ClusterId, MachineId
from runner.providers.base import provider_error
from runner.providers.process_tag import Process, find_process, send_signal
from runner.providers.reaper import Reaper

_POLL_S = 0.005
_STILL = "Tt"
_PREFIX = "runner-frozen-"


@dataclass(frozen=True, slots=True)
class Standstill:
    """A machine that stands still: its control group, or the processes that were sent SIGSTOP."""

    group: Path | None
    stopped: tuple[Process, ...] = ()

    @property
    def how(self) -> str:
        """In words, for the machine's log."""
        return "SIGSTOP" if self.group is None else "its control group's freezer"


class Freezer:
    """For one cluster and one event loop. Callers see to it that nothing else is done to the machine meanwhile."""

    def __init__(
        self, cluster_id: ClusterId, reaper: Reaper, *, uses_groups: bool = True, within_s: float = 5.0
    ) -> None:
        """`within_s`: how long a process may take to stand still, such as one that waits for a disk."""
        self._cluster_id = cluster_id
        self._reaper = reaper
        self._uses_groups = uses_groups
        self._within_s = within_s
        self._frozen: dict[MachineId, Standstill] = {}

    def has(self, name: MachineId) -> bool:
        """Whether it was frozen here, and neither thawed nor forgotten since."""
        return name in self._frozen

    async def freeze(self, name: MachineId, leaders: tuple[Process, ...]) -> str:
        """Return when no process of the machine runs any more; by what, in words.

        Raises:
            ProviderError: one does not stand still in time. All of them go on.
        """
        made = await self._freeze(name, leaders)
        self._frozen[name] = made
        return made.how

    async def _freeze(self, name: MachineId, leaders: tuple[Process, ...]) -> Standstill:
        group = self._make_group(name, leaders) if self._uses_groups else None
        if group is not None:
            try:
                return await self._freeze_group(name, leaders, group)
            except OSError:  # no right to move a process, or the group went away: signals need neither
                _leave(group)
        return await self._stop_all(name, leaders)

    async def thaw(self, name: MachineId, leaders: tuple[Process, ...]) -> None:
        """Let everything go on, where it was before."""
        standstill = self._frozen.pop(name) if name in self._frozen else await self._find(name, leaders)
        _let_go(standstill)

    async def _find(self, name: MachineId, leaders: tuple[Process, ...]) -> Standstill:
        """How a coordinator that is gone has frozen it."""
        members = await self._reaper.members(name, leaders)
        groups = {group for each in members if (group := _frozen_group(each.pid)) is not None}
        stopped = tuple(each for each in members if each.state in _STILL)
        return Standstill(groups.pop() if groups else None, stopped)

    def forget(self, name: MachineId) -> None:
        """Its processes are gone: remove what held them."""
        standstill = self._frozen.pop(name, None)
        if standstill is not None and standstill.group is not None:
            with contextlib.suppress(OSError):  # one that is not empty yet is swept by the next freeze
                standstill.group.rmdir()

    async def _freeze_group(self, name: MachineId, leaders: tuple[Process, ...], group: Path) -> Standstill:
        # Frozen before anything is in it: each process stands still as it enters, and those outside are fewer each time.
        (group / "cgroup.freeze").write_text("1")
        # The leaders at once: as long as the group is empty, the freeze of another machine sweeps it away.
        for leader in leaders:
            _enter(group, leader)
        deadline_s = asyncio.get_running_loop().time() + self._within_s
        while True:
            inside = _pids(group)
            outside = [each for each in await self._reaper.members(name, leaders) if each.pid not in inside]
            if not outside and "frozen 1" in (group / "cgroup.events").read_text().splitlines():
                return Standstill(group)
            for each in outside:
                _enter(group, each)
            if asyncio.get_running_loop().time() > deadline_s:
                _leave(group)
                raise provider_error("suspend", name, f"its processes did not stand still in {self._within_s:g} s")
            await asyncio.sleep(_POLL_S)

    async def _stop_all(self, name: MachineId, leaders: tuple[Process, ...]) -> Standstill:
        """Again until all stand still: one that runs may fork another meanwhile."""
        stopped: dict[int, Process] = {}
        deadline_s = asyncio.get_running_loop().time() + self._within_s
        while True:
            members = await self._reaper.members(name, leaders)
            moving = [each for each in members if each.state not in _STILL]
            if not moving:
                return Standstill(None, tuple(stopped.values()))
            for each in moving:
                if send_signal(each, signal.SIGSTOP):
                    stopped[each.pid] = each
            if asyncio.get_running_loop().time() > deadline_s:
                _let_go(Standstill(None, tuple(stopped.values())))
                states = ", ".join(f"{each.pid} (state {each.state})" for each in moving)
                raise provider_error(
                    "suspend", name, f"these processes did not stand still in {self._within_s:g} s: {states}"
                )
            await asyncio.sleep(_POLL_S)

    def _make_group(self, name: MachineId, leaders: Iterable[Process]) -> Path | None:
        """Below the group that the machine is in, so that its limits go on counting; None where it cannot be made."""
        for leader in leaders:
            parent = _group_of(leader.pid)
            if parent is None:
                return None
            sweep(parent)
            is_inside = parent.name.startswith(_PREFIX)
            group = parent if is_inside else parent / f"{_PREFIX}{self._cluster_id}-{name}"
            try:
                group.mkdir(exist_ok=True)
                if (group / "cgroup.freeze").exists():
                    return group
                group.rmdir()  # a kernel before 5.2
            except OSError:
                return None
        return None


def _let_go(standstill: Standstill) -> None:
    if standstill.group is not None:
        _leave(standstill.group)
    for each in standstill.stopped:
        send_signal(each, signal.SIGCONT)


def is_frozen(pid: int) -> bool:
    """Whether this machine stands still, by its first process."""
    process = find_process(pid)
    return process is not None and (process.state in _STILL or _frozen_group(pid) is not None)


def sweep(parent: Path) -> None:
    """Remove groups that a coordinator which was killed has left below this one: nothing is in them any more."""
    for group in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            group.rmdir()


def sweep_beside(pid: int) -> None:
    """As `sweep`, below the group of this process."""
    parent = _group_of(pid)
    if parent is not None:
        sweep(parent)


def _enter(group: Path, process: Process) -> None:
    current = find_process(process.pid)
    if current is None or current.start_ticks != process.start_ticks:
        return  # it is gone, and its pid may be a stranger's by now
    with contextlib.suppress(ProcessLookupError):
        (group / "cgroup.procs").write_text(str(process.pid))


def _leave(group: Path) -> None:
    """Thaw what is in the group and put it back into the one above, so that it can be removed."""
    with contextlib.suppress(FileNotFoundError):
        (group / "cgroup.freeze").write_text("0")
    with contextlib.suppress(
        OSError
    ):  # what may not be moved back goes on inside; the next freeze finds the group there
        while pids := _pids(group):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    (group.parent / "cgroup.procs").write_text(str(pid))
        group.rmdir()


def _pids(group: Path) -> set[int]:
    return {int(word) for word in (group / "cgroup.procs").read_text().split()}


def _frozen_group(pid: int) -> Path | None:
    group = _group_of(pid)
    if group is None or not group.name.startswith(_PREFIX):
        return None
    try:
        return group if (group / "cgroup.freeze").read_text().strip() == "1" else None
    except FileNotFoundError:
        return None


def _group_of(pid: int) -> Path | None:
    """The control group of version 2 that a process is in; None where there are none, or it is gone."""
    root = _root()
    if root is None:
        return None
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    return root / path.lstrip("/") if path.startswith("/") and not path.startswith("/..") else None


def _root() -> Path | None:
    # Alone, or beside those of version 1.
    for path in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if os.path.exists(f"{path}/cgroup.procs") and os.path.exists(f"{path}/cgroup.controllers"):
            return Path(path)
    return None
