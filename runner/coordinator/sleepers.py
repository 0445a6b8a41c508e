"""Carries out suspends, resumes and cold starts with the provider. Each command has one task, and one answer to the core."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from runner.coordinator.engine import Engine
from runner.coordinator.fleet import Fleet
from runner.core import events, suspend_events
from runner.errors import ProviderError
from runner.ids import MachineId
from runner.providers.base import MachineState, Provider, ProviderMachine

log = logging.getLogger(__name__)

T = TypeVar("T")

_FAILURES_TOLD = 4
_RETRY_S = 1.0
_RETRY_S_MAX = 60.0
_SLEEPING = frozenset({"suspended", "resuming"})
_GONE = frozenset({MachineState.DESTROYED, MachineState.STOPPED})
# What the core calls the states of a provider's machine.
_FOUND = {
    MachineState.CREATING: "running",
    MachineState.RUNNING: "running",
    MachineState.SUSPENDED: "suspended",
    MachineState.STOPPED: "stopped",
    MachineState.DESTROYED: "gone",
}


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long one call may take before the provider is asked what has become of it. In seconds."""

    # Providers bound their own calls; these are for one that does not answer, and leave time for the turns of many machines.
    suspend_s: float = 900.0
    start_s: float = 300.0
    stop_s: float = 60.0
    get_s: float = 15.0


@dataclass(slots=True)
class _Work:
    """What is being done with one machine now."""

    command: str
    task: asyncio.Task[None]
    exit_reason: str = ""  # the provider said meanwhile that the machine has ended


class Sleepers:
    """The part of the fleet that sleeps, or is on its way there or back.

    A command that is repeated while it is carried out changes nothing. A later one for the same machine ends the earlier:
    the core has given up waiting for it.
    """

    def __init__(self, engine: Engine, provider: Provider, fleet: Fleet, limits: CallLimits | None = None) -> None:
        self._engine = engine
        self._provider = provider
        self._fleet = fleet
        self._limits = limits or CallLimits()
        self._works: dict[MachineId, _Work] = {}
        self._asleep: set[MachineId] = set()  # the provider has said so, and nobody has asked for its end
        self._others: set[asyncio.Task[None]] = set()
        self._is_closing = False
        fleet.explains_exit = self.explains_exit

    async def close(self) -> None:
        """End all calls that are under way; machines stay as they are."""
        self._is_closing = True
        tasks = [*(work.task for work in self._works.values()), *self._others]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def take_up(self) -> None:
        """Make known to the fleet what sleeps according to the journal: to a new process such machines are orphans."""
        token = ""
        while True:
            views, token = self._engine.cluster.machines(after=token, limit=1000)
            for view in views:
                if view.state in _SLEEPING:
                    self._fleet.take_up(view)
            if not token:
                return

    # ---- the core's commands ----
    def suspend(self, machine_id: MachineId, snapshot: int) -> None:
        """Have the provider save it. Answers MachineSuspended, MachineSuspendFailed, or MachineExited."""
        self._begin(machine_id, f"suspend {snapshot}", self._suspend(machine_id, snapshot))

    def resume(self, machine_id: MachineId, snapshot: int) -> None:
        """Have the provider start it. Answers MachineStarted or MachineResumeFailed; its agent registers, or does not."""
        self._begin(machine_id, f"resume {snapshot}", self._resume(machine_id, snapshot))

    def cold_start(self, machine_id: MachineId, reason: str) -> None:
        """Discard its snapshot and boot it. Answers as the creation of a machine does."""
        log.info("machine %s is started cold: %s", machine_id, reason)
        self._begin(machine_id, "cold start", self._cold_start(machine_id))

    def survey(self, machine_id: MachineId) -> None:
        """Ask what has become of it. Answers MachineSurveyed, however long that takes."""
        self._begin(machine_id, "survey", self._survey(machine_id))

    def let_go(self, machine_id: MachineId) -> None:
        """It is going to be destroyed: nothing more is to be done with it here."""
        self._asleep.discard(machine_id)
        work = self._works.pop(machine_id, None)
        if work is not None:
            work.task.cancel()

    def explains_exit(self, machine_id: MachineId, reason: str) -> bool:
        """Whether an end that the provider has told is a suspend's or a stop's, or is looked into here."""
        work = self._works.get(machine_id)
        if work is not None:
            work.exit_reason = reason
            return True
        if machine_id not in self._asleep:
            machine = self._engine.cluster.machine(machine_id)
            if machine is None or machine.state != "suspended":
                return False
        self._spawn(self._look_after_exit(machine_id, reason))
        return True

    # ---- one task for each ----
    def _begin(self, machine_id: MachineId, command: str, work: Coroutine[Any, Any, None]) -> None:
        before = self._works.get(machine_id)
        if self._is_closing or (before is not None and before.command == command):
            work.close()
            return
        self.let_go(machine_id)
        task = asyncio.ensure_future(work)
        self._works[machine_id] = _Work(command, task)
        task.add_done_callback(lambda done: self._ended(machine_id, done))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    def _ended(self, machine_id: MachineId, task: asyncio.Task[None]) -> None:
        work = self._works.get(machine_id)
        if work is not None and work.task is task:
            del self._works[machine_id]
            if work.exit_reason and machine_id in self._asleep and not self._is_closing:
                self._spawn(self._look_after_exit(machine_id, work.exit_reason))
        if not task.cancelled() and (error := task.exception()) is not None:
            # The core's own deadline goes on from here.
            log.error("a command for machine %s failed", machine_id, exc_info=error)

    async def _suspend(self, machine_id: MachineId, snapshot: int) -> None:
        try:
            await self._within(self._limits.suspend_s, self._provider.suspend(machine_id), "suspend", machine_id)
        except ProviderError as error:
            await self._after_failed_suspend(machine_id, snapshot, str(error))
        else:
            self._is_suspended(machine_id, snapshot)

    async def _after_failed_suspend(self, machine_id: MachineId, snapshot: int, reason: str) -> None:
        """It may have worked and lost its reply: what the provider says now counts."""
        try:
            machine = await self._get(machine_id)
        except ProviderError as unknown:
            reason = f"{reason}; and what has become of it cannot be had: {unknown}"
        else:
            if machine is not None and machine.state is MachineState.SUSPENDED:
                log.warning("machine %s is suspended although that failed (%s)", machine_id, reason)
                self._is_suspended(machine_id, snapshot)
                return
            if machine is None or machine.state in _GONE:
                self._engine.post(events.MachineExited(machine_id, f"it ended while it was suspended: {reason}"))
                return
            await self._let_run_on(machine_id)
        self._engine.post(suspend_events.MachineSuspendFailed(machine_id, snapshot, reason))

    async def _let_run_on(self, machine_id: MachineId) -> None:
        """A start does nothing to a machine that runs, and calls off a save that would come after its end was told."""
        try:
            await self._start(machine_id)
        except ProviderError as error:
            log.warning("machine %s cannot be told to go on: %s", machine_id, error)

    def _is_suspended(self, machine_id: MachineId, snapshot: int) -> None:
        self._asleep.add(machine_id)
        self._engine.post(suspend_events.MachineSuspended(machine_id, snapshot))

    async def _resume(self, machine_id: MachineId, snapshot: int) -> None:
        failure = await self._start_and_look(machine_id)
        if failure:
            self._engine.post(suspend_events.MachineResumeFailed(machine_id, snapshot, failure))
        else:
            self._engine.post(suspend_events.MachineStarted(machine_id, snapshot))

    async def _cold_start(self, machine_id: MachineId) -> None:
        if not await self._stop(machine_id):
            return
        boot = self._fleet.boot_anew(machine_id)
        if boot is None:
            return  # destroyed meanwhile
        machine = await self._get_at_last(machine_id)
        if machine is None or machine.state is MachineState.DESTROYED:
            self._fleet.create_anew(boot)
            return
        failure = await self._start_and_look(machine_id)
        if failure:
            self._engine.post(events.MachineBootFailed(machine_id, f"its cold start failed: {failure}"))
        else:
            self._fleet.await_agent(boot)

    async def _survey(self, machine_id: MachineId) -> None:
        machine = await self._get_at_last(machine_id)
        found = "gone" if machine is None else _FOUND[machine.state]
        view = self._engine.cluster.machine(machine_id)
        if found == "running" and view is not None and view.state == "resuming":
            await self._let_run_on(machine_id)  # an earlier coordinator may have died before its last word to it
        self._engine.post(suspend_events.MachineSurveyed(machine_id, found))

    async def _look_after_exit(self, machine_id: MachineId, reason: str) -> None:
        machine = await self._get_at_last(machine_id)
        if machine is None or machine.state in _GONE:
            self._asleep.discard(machine_id)
            self._engine.post(events.MachineExited(machine_id, reason))

    # ---- calls to the provider ----
    async def _start_and_look(self, machine_id: MachineId) -> str:
        """Start it; why it does not run, or "" when the provider says that it does."""
        failure = ""
        try:
            await self._start(machine_id)
        except ProviderError as error:
            failure = str(error)
        work = self._works.get(machine_id)
        if not failure and (work is None or not work.exit_reason):
            return ""
        try:
            machine = await self._get(machine_id)
        except ProviderError as error:
            return failure or str(error)
        if machine is not None and machine.state in {MachineState.RUNNING, MachineState.CREATING}:
            return ""  # the reply was lost, or the end was that of an earlier life
        return failure or (work.exit_reason if work is not None else "")

    async def _stop(self, machine_id: MachineId) -> bool:
        """Until it is stopped: nothing else makes sure that its snapshot is not used again. False: it is not wanted any more."""
        pause_s, failures = _RETRY_S, 0
        while self._fleet.boot(machine_id) is not None:
            try:
                await self._within(self._limits.stop_s, self._provider.stop(machine_id), "stop", machine_id)
                return True
            except ProviderError as error:
                if await self._is_gone(machine_id):
                    return True
                failures += 1
                log.warning("stopping machine %s failed, trying again in %.0f s: %s", machine_id, pause_s, error)
                if failures == _FAILURES_TOLD:
                    self._fleet.tell(
                        f"machine {machine_id} cannot be stopped, which must come before its cold start; tried again: {error}"
                    )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _RETRY_S_MAX)
        return False

    async def _is_gone(self, machine_id: MachineId) -> bool:
        try:
            machine = await self._get(machine_id)
        except ProviderError:
            return False
        return machine is None or machine.state in _GONE

    async def _get_at_last(self, machine_id: MachineId) -> ProviderMachine | None:
        """What the provider says of it, when it says something."""
        pause_s, failures = _RETRY_S, 0
        while True:
            try:
                return await self._get(machine_id)
            except ProviderError as error:
                failures += 1
                log.warning("asking for machine %s failed, trying again in %.0f s: %s", machine_id, pause_s, error)
                if failures == _FAILURES_TOLD:
                    self._fleet.tell(
                        f"the provider does not say what has become of machine {machine_id}; asked again: {error}"
                    )
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _RETRY_S_MAX)

    async def _start(self, machine_id: MachineId) -> None:
        await self._within(self._limits.start_s, self._provider.start(machine_id), "start", machine_id)

    async def _get(self, machine_id: MachineId) -> ProviderMachine | None:
        return await self._within(self._limits.get_s, self._provider.get(machine_id), "get", machine_id)

    async def _within(self, limit_s: float, call: Coroutine[Any, Any, T], phase: str, machine_id: MachineId) -> T:
        """The call's result.

        Raises:
            ProviderError: whatever went wrong, also that it took too long.
        """
        try:
            async with asyncio.timeout(limit_s):
                return await call
        except ProviderError:
            raise
        except TimeoutError:
            saw = f"no answer within {limit_s:g} s"
        except Exception as error:
            log.exception("%s of machine %s failed", phase, machine_id)
            saw = f"{type(error).__name__}: {error}"
        raise ProviderError(f"{phase} of machine {machine_id} failed: {saw}", phase=phase, machine_id=machine_id)
