"""Machines on this host: sessions of processes, forked from a warm process in a few milliseconds."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from runner.errors import BadOptionsError, ProviderError
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
from runner.providers.freezing import Freezer, is_frozen, sweep_beside
from runner.providers.gpu_stock import GpuStock
from runner.providers.gpus import Gpu
from runner.providers.machine_log import describe_status, note, path_of, read_tail
from runner.providers.process_tag import Process, Tagged, find_process, find_tagged, send_signal
from runner.providers.reaper import Reaper
from runner.providers.registry import Place
from runner.providers.turns import Turns

_STATUS_WAIT_S = 0.5  # from the end of a machine to the forker's word of how
_REASON_LINES = 5  # of the log, in the reason of an exit


class Forker(Protocol):
    """What forks machines (runner.worker.zygote)."""

    def attach(self, on_exit: Callable[[MachineId, int], None], on_lost: Callable[[], None]) -> None:
        """Serve this event loop: `on_exit(machine, wait status)` once per machine, `on_lost()` when the forker itself is gone."""
        ...

    async def boot(self, boot: BootConfig) -> int:
        """Fork one machine; its pid, which is also its session. OSError when the forker is gone or cannot fork."""
        ...

    def close(self) -> None:
        """End the forker and all machines that it forked."""
        ...


@dataclass(slots=True)
class _Machine:
    spec: MachineSpec
    process: Process
    gpus: tuple[str, ...]
    handle: int  # pidfd: tells the end even when the forker does not
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    is_ending: bool = False

    def record(self, *, is_frozen: bool) -> ProviderMachine:
        state = MachineState.SUSPENDED if is_frozen else MachineState.RUNNING
        state = MachineState.STOPPED if self.ended.is_set() else state
        return ProviderMachine(
            self.spec.machine_id, self.process.identity, state, self.process.started_unix_s(), f"pid {self.process.pid}"
        )


class LocalProvider:
    """Keeps the contract of Provider for one cluster, inside the coordinator's event loop.

    Machines end with the provider: `close` destroys them. GPUs of the host are handed out whole, each to one machine at a time.
    """

    def __init__(
        self,
        forker: Forker,
        *,
        cluster_id: ClusterId,
        log_dir: str | Path,
        gpus: Sequence[Gpu] | None = None,
        may_have_orphans: bool = True,
        term_grace_s: float = 2.0,
        kill_grace_s: float = 5.0,
        freezes_by_group: bool = True,
    ) -> None:
        """`gpus`: the devices to hand out, by default all that the driver shows. `may_have_orphans`: whether machines of an earlier
        coordinator may still run; looking for them costs milliseconds. The graces bound SIGTERM and SIGKILL in `destroy`.
        `freezes_by_group`: try the control group's freezer before SIGSTOP.
        """
        self._forker = forker
        self._cluster_id = cluster_id
        self._log_dir = Path(log_dir)
        self._gpus = GpuStock(gpus)
        self._term_grace_s = term_grace_s
        self._machines: dict[MachineId, _Machine] = {}
        self._turns = Turns()
        self._swept: set[MachineId] = set()  # ended here and nothing is left: destroying them again costs no look
        self._reaper = Reaper(cluster_id, kill_grace_s=kill_grace_s)
        self._freezer = Freezer(cluster_id, self._reaper, uses_groups=freezes_by_group)
        self._exit_callbacks: list[ExitCallback] = []
        self._orphans: set[MachineId] | None = None if may_have_orphans else set()  # None: not looked for yet
        self._is_lost = False
        self._is_closed = False
        forker.attach(self._machine_exited, self._forker_lost)

    @property
    def name(self) -> str:
        return "local"

    def capabilities(self) -> Capabilities:
        gpus = self._gpus.all()
        return Capabilities(
            gpu_kinds=tuple(sorted({gpu.name for gpu in gpus})),
            gpus_total=len(gpus),
            suspend_kind="freeze",
            suspend_reason="a local machine is a group of processes: they stand still, and their memory stays where it is",
            regions=("local",),
        )

    def on_exit(self, callback: ExitCallback) -> None:
        self._exit_callbacks.append(callback)

    async def prepare(self, wanted: Sequence[Wanted]) -> tuple[str, ...]:
        return ()

    def suspend_obstacle(self, wanted: Wanted) -> str:
        return ""

    async def create(self, spec: MachineSpec) -> ProviderMachine:
        return await self._turns.take(spec.machine_id, lambda: self._create(spec))

    async def start(self, name: MachineId) -> None:
        await self._turns.take(name, lambda: self._start(name))

    async def suspend(self, name: MachineId) -> None:
        await self._turns.take(name, lambda: self._suspend(name))

    async def stop(self, name: MachineId) -> None:
        await self.destroy(name)

    async def destroy(self, name: MachineId) -> None:
        await self._turns.take(name, lambda: self._destroy(name))

    async def get(self, name: MachineId) -> ProviderMachine | None:
        machine = self._machines.get(name)
        if machine is not None:
            return self._record(machine)
        if name in self._swept:
            return None
        return {record.name: record for record in await self.list(self._cluster_id)}.get(name)

    async def list(self, cluster_id: ClusterId) -> tuple[ProviderMachine, ...]:
        records: dict[MachineId, ProviderMachine] = {}
        if cluster_id == self._cluster_id:
            records = {name: self._record(machine) for name, machine in self._machines.items()}
            tagged = await self._reaper.find_tagged()
        else:
            tagged = tuple(find_tagged(cluster_id))
        for each in sorted(tagged, key=_agents_first):
            if each.machine_id not in records:
                records[each.machine_id] = _describe(each)
        return tuple(records.values())

    async def logs(self, name: MachineId) -> tuple[str, ...]:
        return read_tail(self._log_path(name))

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True  # what still waits for its turn to be created is refused
        await self._turns.all_done()
        ends = await asyncio.gather(*(self.destroy(name) for name in [*self._machines]), return_exceptions=True)
        await self._turns.all_done()
        self._forker.close()
        failures = [end for end in ends if isinstance(end, BaseException)]
        if failures:
            raise failures[0]

    # ---- creating ----
    async def _create(self, spec: MachineSpec) -> ProviderMachine:
        name = spec.machine_id
        existing = await self._find_existing(name)
        if existing is not None:
            return existing
        if self._is_closed or self._is_lost:
            seen = "the provider is closed" if self._is_closed else "the process that forks machines is gone"
            raise provider_error("create", spec, seen, advice="start a new cluster")
        gpus = self._gpus.take(spec)
        try:
            process, handle = await self._fork(spec, gpus)
        except BaseException:
            self._gpus.give_back(gpus)
            raise
        self._note(name, f"forked as pid {process.pid}" + (f", GPUs {', '.join(gpus)}" if gpus else ""))
        machine = _Machine(spec, process, gpus, handle)
        self._machines[name] = machine
        self._swept.discard(name)
        asyncio.get_running_loop().add_reader(handle, self._process_ended, machine)
        return self._record(machine)

    def _record(self, machine: _Machine) -> ProviderMachine:
        return machine.record(is_frozen=self._freezer.has(machine.spec.machine_id))

    async def _find_existing(self, name: MachineId) -> ProviderMachine | None:
        if self._orphans is None:
            self._orphans = {machine.name for machine in await self.list(self._cluster_id)}
        if name in self._machines or name in self._orphans:
            return await self.get(name)
        return None

    async def _fork(self, spec: MachineSpec, gpus: tuple[str, ...]) -> tuple[Process, int]:
        self._log_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        boot = replace(spec.boot, gpus=gpus, log_path=str(self._log_path(spec.machine_id)))
        try:
            pid = await self._forker.boot(boot)
        except OSError as error:
            raise provider_error("create", spec, f"it could not be forked: {error}") from error
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            handle = -1
        process = find_process(pid)
        if process is None or handle < 0:
            if handle >= 0:
                os.close(handle)
            raise provider_error("boot", spec, "it ended at once", log_lines=await self.logs(spec.machine_id))
        return process, handle

    # ---- standing still ----
    async def _suspend(self, name: MachineId) -> None:
        leaders = await self._leaders("suspend", name)
        if not self._is_frozen(name, leaders):
            self._note(name, f"is frozen by {await self._freezer.freeze(name, leaders)}")

    async def _start(self, name: MachineId) -> None:
        leaders = await self._leaders("start", name)
        if self._is_frozen(name, leaders):
            await self._freezer.thaw(name, leaders)
            self._note(name, "goes on")

    def _is_frozen(self, name: MachineId, leaders: tuple[Process, ...]) -> bool:
        """Of an earlier coordinator's machine its processes tell. In ours somebody else may have stopped one."""
        return self._freezer.has(name) or (name not in self._machines and is_frozen(leaders[0].pid))

    async def _leaders(self, phase: str, name: MachineId) -> tuple[Process, ...]:
        """Of a machine that is there, also where an earlier coordinator made it."""
        machine = self._machines.get(name)
        if machine is not None and not machine.is_ending:
            return (machine.process,)
        tagged = () if machine is not None or name in self._swept else await self._reaper.find_tagged()
        leaders = tuple(each.process for each in tagged if each.machine_id == name and each.is_agent)
        if not leaders:
            raise provider_error(phase, name, "a local machine that ended is gone", advice="create a new one")
        return leaders

    # ---- ends ----
    def _machine_exited(self, name: MachineId, status: int) -> None:
        machine = self._machines.get(name)
        if machine is not None:
            self._end(machine, describe_status(status))

    def _process_ended(self, machine: _Machine) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(machine.handle)
        # The forker knows the exit status, and its word is on the way unless it is gone itself.
        wait_s = 0.0 if self._is_lost else _STATUS_WAIT_S
        loop.call_later(wait_s, self._end, machine, "ended; its exit status is not known")

    def _forker_lost(self) -> None:
        self._is_lost = True

    def _end(self, machine: _Machine, how: str) -> None:
        if machine.ended.is_set():
            return
        machine.ended.set()
        if not machine.is_ending:
            machine.is_ending = True
            self._turns.start(machine.spec.machine_id, lambda: self._sweep_and_report(machine, how))

    async def _sweep_and_report(self, machine: _Machine, how: str) -> None:
        """First nothing of it runs any more, then it is called dead: its work may start elsewhere at once."""
        name = machine.spec.machine_id
        try:
            await self._reaper.kill_all(name, (machine.process,))
        except ProviderError as error:
            how += f"; {error}"  # stuck in the kernel with a SIGKILL pending: it runs no line of code any more
        else:
            self._forget(machine)
        lines = [line for line in await self.logs(name) if line.strip()][-_REASON_LINES:]
        reason = "; ".join([f"agent {how}", *lines])
        for callback in self._exit_callbacks:
            callback(name, reason)

    async def _destroy(self, name: MachineId) -> None:
        machine = self._machines.get(name)
        if machine is None:
            if name not in self._swept:
                await self._destroy_orphan(name)
            return
        machine.is_ending = True
        if not self._freezer.has(name) and send_signal(machine.process, signal.SIGTERM):
            try:
                async with asyncio.timeout(self._term_grace_s):
                    await machine.ended.wait()
            except TimeoutError:
                pass  # it is busy: SIGKILL needs no cooperation
        await self._reaper.kill_all(name, (machine.process,))
        self._forget(machine)

    async def _destroy_orphan(self, name: MachineId) -> None:
        leaders = tuple(
            each.process
            for each in await self._reaper.find_tagged()
            if each.machine_id == name and each.process.is_session_leader
        )
        await self._reaper.kill_all(name, leaders)
        sweep_beside(os.getpid())
        self._swept.add(name)

    def _forget(self, machine: _Machine) -> None:
        name = machine.spec.machine_id
        asyncio.get_running_loop().remove_reader(machine.handle)
        os.close(machine.handle)
        self._gpus.give_back(machine.gpus)
        self._freezer.forget(name)
        del self._machines[name]
        self._swept.add(name)
        machine.ended.set()

    def _note(self, name: MachineId, event: str) -> None:
        note(self._log_path(name), name, event)

    def _log_path(self, name: MachineId) -> Path:
        return path_of(self._log_dir, name)


def _agents_first(tagged: Tagged) -> bool:
    return not tagged.is_agent


def _describe(tagged: Tagged) -> ProviderMachine:
    process = tagged.process
    state, detail = MachineState.RUNNING, f"pid {process.pid}"
    if not tagged.is_agent:
        state, detail = MachineState.STOPPED, f"its agent is gone, pid {process.pid} is left"
    elif is_frozen(process.pid):
        state = MachineState.SUSPENDED
    return ProviderMachine(tagged.machine_id, process.identity, state, process.started_unix_s(), detail)


def check_options(options: Mapping[str, Any]) -> None:
    """The only one is `apart`, see runner.providers.apart.

    Raises:
        BadOptionsError: there is another one.
    """
    for name, value in options.items():
        if name != "apart" or not isinstance(value, bool):
            raise BadOptionsError(
                f"provider 'local' takes apart=True or False and no other option, not {name}={value!r}"
            )


def make(place: Place) -> LocalProvider:
    """See runner.providers.registry."""
    from runner.providers.apart import ApartProvider

    return (ApartProvider if place.options.get("apart") else LocalProvider)(
        place.zygote,
        cluster_id=place.cluster_id,
        log_dir=place.log_dir,
        may_have_orphans=not place.embedded,  # embedded machines end with the pipe of their coordinator
    )
