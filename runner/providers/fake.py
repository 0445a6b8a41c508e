"""A provider without machines: everything is in memory, time is the clock's, faults are drawn from a seed."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from runner.clock import Clock
from runner.ids import ClusterId, MachineId
from runner.providers.base import (
    BootConfig,
    Capabilities,
    ExitCallback,
    MachineSpec,
    MachineState,
    ProviderMachine,
    Wanted,
    provider_error,
)

_LOG_LINES_MAX = 200


class SleepingClock(Clock, Protocol):
    """A clock on which one can also wait (`runner.testing.FakeClock` is one)."""

    async def sleep(self, duration_s: float) -> None:
        """Return when this much of the clock's time has passed."""
        ...


@dataclass(frozen=True, slots=True)
class ProviderFaults:
    """How often things go wrong: probabilities between 0 and 1, drawn from `seed` alone."""

    seed: int = 0
    create_fails: float = 0.0
    reply_lost: float = 0.0  # the machine exists but `create` raises
    never_registers: float = 0.0  # it runs, and its agent is never heard
    exits_early: float = 0.0  # it ends by itself within `exit_within_s`
    slow: float = 0.0  # `create` takes up to `slow_s`
    slow_s: float = 30.0
    exit_within_s: float = 60.0
    suspend_fails: float = 0.0  # it goes on
    suspend_lost: float = 0.0  # it is suspended but `suspend` raises
    resume_fails: float = 0.0  # `start` raises, and it stays suspended
    resume_lost: float = 0.0  # it goes on but `start` raises
    resume_cold: float = 0.0  # its snapshot is found lost: it boots, and nobody says so
    resume_mute: float = 0.0  # it runs, and its agent is never heard again
    resume_hangs: float = 0.0  # `start` does not return until the machine is stopped or destroyed
    stop_fails: float = 0.0  # it stays as it was


@dataclass(slots=True)
class _FakeMachine:
    record: ProviderMachine
    spec: MachineSpec
    boots: int = 0
    starts: int = 0  # asked for; one that comes during a suspend ends it
    has_snapshot: bool = False
    ended: asyncio.Event = field(
        default_factory=asyncio.Event
    )  # stopped or destroyed: who waits for it, waits no longer


@dataclass(slots=True)
class FakeProvider:
    """Keeps the whole contract of Provider.

    `boot` is called for each machine that comes up, in place of an agent; `halt` when one is destroyed, stopped or suspended.
    Where `freeze` and `thaw` are given they are called in place of both for one that is suspended and resumed with its memory.
    """

    clock: SleepingClock
    faults: ProviderFaults = field(default_factory=ProviderFaults)
    boot: Callable[[BootConfig], None] | None = None
    halt: Callable[[MachineId], None] | None = None
    freeze: Callable[[MachineId], None] | None = None
    thaw: Callable[[MachineId], None] | None = None
    machines_max: int | None = None
    can_suspend: bool = True
    obstacle: str = ""  # why machines of any kind cannot be suspended
    suspend_s: float = 0.0  # what every `suspend` takes, the machine running on meanwhile
    resume_s: float = 0.0  # what every `start` of a suspended one takes
    create_s: float = 0.0  # what every `create` takes
    destroy_s: float = 0.0  # what every `destroy` takes, the machine running on meanwhile
    _random: random.Random = field(init=False)
    _machines: dict[MachineId, _FakeMachine] = field(init=False, default_factory=dict)
    _creating: dict[MachineId, asyncio.Task[ProviderMachine]] = field(init=False, default_factory=dict)
    _logs: dict[MachineId, deque[str]] = field(init=False, default_factory=dict)
    _timers: set[asyncio.Task[None]] = field(init=False, default_factory=set)
    _exit_callbacks: list[ExitCallback] = field(init=False, default_factory=list)
    _serial: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._random = random.Random(self.faults.seed)

    @property
    def name(self) -> str:
        return "fake"

    def capabilities(self) -> Capabilities:
        return Capabilities(
            gpu_kinds=("fake",),
            gpus_total=None,
            suspend_kind="snapshot" if self.can_suspend else "",
            suspend_reason="" if self.can_suspend else "switched off for this test",
            regions=("nowhere",),
        )

    async def prepare(self, wanted: Sequence[Wanted]) -> tuple[str, ...]:
        most = sum(each.most for each in wanted)
        if self.machines_max is not None and most > self.machines_max:
            return (f"{most} machines are wanted; there is room for {self.machines_max}",)
        return ()

    def suspend_obstacle(self, wanted: Wanted) -> str:
        return self.obstacle or self.capabilities().suspend_reason

    def on_exit(self, callback: ExitCallback) -> None:
        self._exit_callbacks.append(callback)

    async def create(self, spec: MachineSpec) -> ProviderMachine:
        name = spec.machine_id
        if name in self._machines:
            return self._machines[name].record
        if name not in self._creating:
            task = asyncio.ensure_future(self._create(spec))
            self._creating[name] = task
            task.add_done_callback(lambda done: self._created(name, done))
        creating = self._creating[name]
        try:
            # The cloud goes on with the machine when the caller gives up.
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            if not creating.cancelled():
                raise
            raise provider_error("create", name, "it was destroyed meanwhile") from None

    async def start(self, name: MachineId) -> None:
        machine = self._require(name, "start")
        machine.starts += 1
        if machine.record.state is MachineState.SUSPENDED:
            await self._resume(machine)
        elif machine.record.state is not MachineState.RUNNING:
            self._run(machine, "started")

    async def _resume(self, machine: _FakeMachine) -> None:
        name = machine.record.name
        draws = self._draw("resume_fails", "resume_lost", "resume_cold", "resume_mute", "resume_hangs")
        await self._sleep(self.resume_s)
        if draws["resume_hangs"]:
            await machine.ended.wait()
            raise provider_error("start", name, "it was ended meanwhile")
        if self._require(name, "start").record.state is not MachineState.SUSPENDED:
            return  # another caller was first, or somebody stopped it
        if draws["resume_fails"]:
            raise provider_error("start", name, "the fault plan refused it")
        is_cold = draws["resume_cold"] or not machine.has_snapshot
        machine.has_snapshot = False
        if draws["resume_mute"]:
            self._move(machine, MachineState.RUNNING, "resumed")
        elif is_cold or self.thaw is None:
            if is_cold and self.freeze is not None:
                self._halt(name)  # the one that stood still is gone
            self._run(machine, "started without its snapshot" if is_cold else "resumed")
        else:
            self._move(machine, MachineState.RUNNING, "resumed")
            self.thaw(name)
        if draws["resume_lost"]:
            raise provider_error("start", name, "the reply was lost", advice="look the machine up by its name")

    async def suspend(self, name: MachineId) -> None:
        machine = self._require(name, "suspend")
        if not self.can_suspend:
            raise provider_error("suspend", name, self.capabilities().suspend_reason)
        draws, starts = self._draw("suspend_fails", "suspend_lost"), machine.starts
        await self._sleep(self.suspend_s)
        machine = self._require(name, "suspend")
        if machine.record.state is MachineState.SUSPENDED:
            return
        if machine.starts != starts:
            raise provider_error("suspend", name, "it was started meanwhile")
        if machine.record.state is not MachineState.RUNNING:
            raise provider_error("suspend", name, f"it is {machine.record.state.value}")
        if draws["suspend_fails"]:
            raise provider_error("suspend", name, "the fault plan refused it")
        machine.has_snapshot, machine.ended = True, asyncio.Event()
        self._move(machine, MachineState.SUSPENDED, "suspended")
        if self.freeze is not None:
            self.freeze(name)
        else:
            self._halt(name)
        if draws["suspend_lost"]:
            raise provider_error("suspend", name, "the reply was lost", advice="look the machine up by its name")

    async def stop(self, name: MachineId) -> None:
        machine = self._require(name, "stop")
        if self._draw("stop_fails")["stop_fails"]:
            raise provider_error("stop", name, "the fault plan refused it")
        machine.has_snapshot = False
        self._move(machine, MachineState.STOPPED, "stopped")
        self._halt(name)
        machine.ended.set()

    async def destroy(self, name: MachineId) -> None:
        creating = self._creating.get(name)
        if creating is not None:
            creating.cancel()
            await asyncio.wait([creating])
        if name in self._machines:
            await self._sleep(self.destroy_s)
        machine = self._machines.pop(name, None)
        if machine is not None:
            self._log(name, "destroyed")
            self._halt(name)
            machine.ended.set()

    async def get(self, name: MachineId) -> ProviderMachine | None:
        machine = self._machines.get(name)
        return machine.record if machine else None

    async def list(self, cluster_id: ClusterId) -> tuple[ProviderMachine, ...]:
        return tuple(m.record for m in self._machines.values() if m.spec.cluster_id == cluster_id)

    async def logs(self, name: MachineId) -> tuple[str, ...]:
        return tuple(self._logs.get(name, ()))

    async def close(self) -> None:
        pending = [*self._timers, *self._creating.values()]
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)

    def end_machine(self, name: MachineId, reason: str) -> None:
        """Let a machine end by itself; unknown names are ignored. The exit is reported before this returns."""
        if self._machines.pop(name, None) is None:
            return
        self._log(name, reason)
        for callback in self._exit_callbacks:
            callback(name, reason)

    def lose_snapshot(self, name: MachineId) -> None:
        """As a cloud that moves a machine to another host: its next start is cold. It stays suspended, and nobody is told."""
        self._require(name, "losing the snapshot").has_snapshot = False

    def put_orphan(self, spec: MachineSpec) -> None:
        """A machine of this cluster that an earlier coordinator created and nobody remembers."""
        self._add(spec)

    async def _create(self, spec: MachineSpec) -> ProviderMachine:
        name = spec.machine_id
        # One draw per kind of fault and machine, whatever happens: a seed means the same faults after a change elsewhere.
        draws = {kind: self._random.random() for kind in ("slow", "fails", "lost", "mute", "exits", "delay")}
        await self._sleep(
            self.create_s + (draws["delay"] * self.faults.slow_s if draws["slow"] < self.faults.slow else 0)
        )
        if draws["fails"] < self.faults.create_fails:
            self._log(name, "create refused")
            raise provider_error("create", name, "the fault plan refused it", log_lines=await self.logs(name))
        if self.machines_max is not None and len(self._machines) >= self.machines_max:
            seen = f"no capacity: all {self.machines_max} machines exist"
            raise provider_error("create", name, seen, is_capacity=True)
        machine = self._add(spec)
        if draws["exits"] < self.faults.exits_early:
            self._start_timer(self._end_later(name, draws["delay"] * self.faults.exit_within_s))
        if draws["mute"] >= self.faults.never_registers:
            self._run(machine, "started")
        if draws["lost"] < self.faults.reply_lost:
            raise provider_error("create", name, "the reply was lost", advice="look the machine up by its name")
        return machine.record

    def _created(self, name: MachineId, done: asyncio.Task[ProviderMachine]) -> None:
        del self._creating[name]
        if not done.cancelled():
            done.exception()  # seen, also where the caller gave up

    def _add(self, spec: MachineSpec) -> _FakeMachine:
        self._serial += 1
        record = ProviderMachine(
            spec.machine_id, f"fake-{self._serial}", MachineState.RUNNING, self.clock.unix_s(), detail="created"
        )
        machine = _FakeMachine(record, spec)
        self._machines[spec.machine_id] = machine
        self._log(spec.machine_id, "created")
        return machine

    def _run(self, machine: _FakeMachine, event: str) -> None:
        machine.boots += 1
        self._move(machine, MachineState.RUNNING, event)
        if self.boot is not None:
            self.boot(machine.spec.boot)

    def _move(self, machine: _FakeMachine, state: MachineState, event: str) -> None:
        machine.record = replace(machine.record, state=state, detail=event)
        self._log(machine.record.name, event)

    def _halt(self, name: MachineId) -> None:
        if self.halt is not None:
            self.halt(name)

    def _require(self, name: MachineId, phase: str) -> _FakeMachine:
        machine = self._machines.get(name)
        if machine is None:
            raise provider_error(phase, name, "no machine has this name")
        return machine

    def _log(self, name: MachineId, line: str) -> None:
        lines = self._logs.setdefault(name, deque(maxlen=_LOG_LINES_MAX))
        lines.append(f"{self.clock.unix_s():.3f} {line}")

    def _draw(self, *kinds: str) -> dict[str, bool]:
        """Which of these faults strike; always one number for each, as in `_create`."""
        return {kind: self._random.random() < getattr(self.faults, kind) for kind in kinds}

    def _start_timer(self, work: Coroutine[None, None, None]) -> None:
        timer = asyncio.ensure_future(work)
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    async def _end_later(self, name: MachineId, after_s: float) -> None:
        await self.clock.sleep(after_s)
        self.end_machine(name, "exited by the fault plan")

    async def _sleep(self, duration_s: float) -> None:
        if duration_s > 0:
            await self.clock.sleep(duration_s)
