"""Notices machines that end by themselves: one listing of the cluster every few seconds, and a closer look at those missing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from runner.ids import MachineId
from runner.providers.fly.errors import FlyError
from runner.providers.fly.lookup import Lookup
from runner.providers.fly.model import Machine
from runner.providers.fly.records import DEAD_STATES

log = logging.getLogger(__name__)

# A machine on its way out has its last event soon; only then is it called dead.
_ENDED_STATES = DEAD_STATES - {"destroying"}


class ExitWatch:
    """Calls `report(name, machine or None)` once for each watched machine that ended. Runs only while there is one."""

    def __init__(
        self, lookup: Lookup, *, poll_s: float, lag_s: float, report: Callable[[MachineId, Machine | None], None]
    ) -> None:
        """`lag_s`: for how long a machine that was just added may be missing."""
        self._lookup = lookup
        self._poll_s = poll_s
        self._lag_s = lag_s
        self._report = report
        self._watched: dict[MachineId, tuple[str, float]] = {}  # id, and since when on the loop's clock
        self._task: asyncio.Task[None] | None = None

    def add(self, name: MachineId, machine_id: str) -> None:
        """Watch it; a no-op for one that is watched."""
        if self._watched.get(name, ("",))[0] != machine_id:
            self._watched[name] = (machine_id, asyncio.get_running_loop().time())
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())

    def remove(self, name: MachineId) -> None:
        """Whatever becomes of it is no exit any more."""
        self._watched.pop(name, None)

    async def close(self) -> None:
        """Watch nothing any more."""
        self._watched.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._watched:
            await asyncio.sleep(self._poll_s)
            try:
                await self._look()
            except FlyError as error:
                log.debug("looking for machines that ended failed, trying again: %s", error)
            except Exception:
                log.exception("looking for machines that ended failed, trying again")

    async def _look(self) -> None:
        before = dict(self._watched)
        seen = {machine.id: machine for machine in await self._lookup.all()}
        missing = []
        for name, (machine_id, since_s) in before.items():
            machine = seen.get(machine_id)
            if machine is None:
                missing.append((name, machine_id, since_s + self._lag_s))
            elif machine.state in _ENDED_STATES:
                self._ended(name, machine_id, machine)
        await asyncio.gather(*(self._look_closer(*each) for each in missing))

    async def _look_closer(self, name: MachineId, machine_id: str, visible_by_s: float) -> None:
        """It is not listed: gone, or the list lags behind."""
        machine = await self._lookup.after_end(machine_id)
        is_gone = machine is None and asyncio.get_running_loop().time() >= visible_by_s
        if is_gone or (machine is not None and machine.state in _ENDED_STATES):
            self._ended(name, machine_id, machine)

    def _ended(self, name: MachineId, machine_id: str, machine: Machine | None) -> None:
        if self._watched.get(name, ("",))[0] == machine_id:
            del self._watched[name]
            self._report(name, machine)
