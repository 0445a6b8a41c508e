"""Machines as containers of one engine: made, watched, ended, and swept by their labels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from runner import config
from runner.core.values import GPU
from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers import machine_log
from runner.providers.base import (
    Capabilities,
    ExitCallback,
    MachineSpec,
    MachineState,
    ProviderMachine,
    Wanted,
    provider_error,
)
from runner.providers.container import recipe
from runner.providers.container.devices import Devices
from runner.providers.container.ends import EndWatch, exit_in_words
from runner.providers.container.engine import ENGINE_ERRORS, Engine, find_engine, in_words
from runner.providers.container.options import ContainerOptions, parse
from runner.providers.container.recipe import CLUSTER_LABEL, MACHINE_LABEL, record_of
from runner.providers.container.site import FREEZE, Booted, Site, last_lines, open_site, unreachable
from runner.providers.container.snapshots import Snapshots
from runner.providers.registry import Place
from runner.providers.turns import Turns

log = logging.getLogger(__name__)

_REASON_LINES = 5  # of the log, in the reason of an exit
_EVENT_S = 3.0  # from the end of the output to the engine's word of why
_GPU_OBSTACLE = "it has a GPU, and CRIU saves no GPU's memory"


@dataclass(slots=True, eq=False)
class _Machine:
    spec: MachineSpec
    booted: Booted
    watch: asyncio.Task[None] | None = None
    was_oom: bool = False
    is_ending: bool = False

    @property
    def container_id(self) -> str:
        return self.booted.record.provider_machine_id


class ContainerProvider:
    """Keeps the contract of Provider for one cluster, inside the coordinator's event loop."""

    def __init__(self, options: ContainerOptions, place: Place, engine: Engine | None = None) -> None:
        """`engine`: the one to use; None: found at the first call."""
        self._options = options
        self._place = place
        self._given_engine = engine
        self._opening: asyncio.Task[Site] | None = None
        self._opened: Site | None = None
        self._ends: EndWatch | None = None
        self._machines: dict[MachineId, _Machine] = {}
        self._saved: dict[MachineId, MachineSpec] = {}  # machines of ours that are files now
        self._turns = Turns()
        self._exit_callbacks: list[ExitCallback] = []
        self._is_closed = False

    @property
    def name(self) -> str:
        return "container"

    def capabilities(self) -> Capabilities:
        """Whether containers can be saved is known once the engine has answered: after `prepare`."""
        devices = Devices(self._options.gpus)
        kind, reason = FREEZE if self._opened is None else self._opened.suspends
        return Capabilities(
            gpu_kinds=devices.kinds,
            gpus_total=devices.total,
            suspend_kind=kind,
            suspend_reason=reason,
            is_remote=True,
        )

    def suspend_obstacle(self, wanted: Wanted) -> str:
        has_gpus = bool(dict(wanted.shape).get(GPU, 0))
        return _GPU_OBSTACLE if has_gpus and self.capabilities().suspend_kind == "snapshot" else ""

    def on_exit(self, callback: ExitCallback) -> None:
        self._exit_callbacks.append(callback)

    async def prepare(self, wanted: Sequence[Wanted]) -> tuple[str, ...]:
        site = await self._site()
        try:
            await site.images.check()
        except ENGINE_ERRORS as error:
            raise unreachable(site.engine, error) from None
        if any(dict(each.shape).get(GPU, 0) for each in wanted):
            site.devices.check()
        return site.warnings

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
        if machine is not None and not machine.is_ending:
            return machine.booted.record
        site = await self._site()
        inspected = await site.inspect(name, "get")
        if inspected is not None or site.snapshots is None:
            return None if inspected is None else record_of(inspected, {})
        return site.snapshots.find(name)

    async def list(self, cluster_id: ClusterId) -> tuple[ProviderMachine, ...]:
        site = await self._site()
        records = []
        for each in await site.list(f"{CLUSTER_LABEL}={cluster_id}"):
            machine = self._machines.get(MachineId((each.get("Labels") or {}).get(MACHINE_LABEL, "")))
            if machine is not None and machine.container_id == each["Id"] and not machine.is_ending:
                records.append(machine.booted.record)
            else:
                records.append(record_of(each, {}))
        if site.snapshots is not None and cluster_id == self._place.cluster_id:
            known = {record.name for record in records}
            records += [each for each in site.snapshots.all() if each.name not in known]
        return tuple(records)

    async def logs(self, name: MachineId) -> tuple[str, ...]:
        return machine_log.read_tail(self._log_path(name))

    async def close(self) -> None:
        """Stop watching. Machines go on: they are the caller's to destroy, and end by themselves when nobody is left."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._turns.all_done()
        for machine in self._machines.values():
            machine.booted.pump.close()
            if machine.watch is not None:
                machine.watch.cancel()
        self._machines.clear()
        if self._opening is not None:
            with contextlib.suppress(ProviderError):
                site = await asyncio.shield(self._opening)
                if self._ends is not None:
                    await self._ends.close()
                site.engine.close()

    # ---- the engine ----
    async def _site(self) -> Site:
        """The engine; asked once, and again after a failure."""
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            if self._is_closed:
                raise ProviderError("the provider is closed; start a new cluster", phase="prepare")
            self._opening = asyncio.ensure_future(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Site:
        engine = self._given_engine or find_engine(self._options, config.load())
        site = self._opened = await open_site(self._options, self._place, engine)
        label = f"{CLUSTER_LABEL}={self._place.cluster_id}"
        self._ends = EndWatch(engine, label, self._died, self._ran_out, self._gap)
        return site

    # ---- creating ----
    async def _create(self, spec: MachineSpec) -> ProviderMachine:
        name = spec.machine_id
        machine = self._machines.get(name)
        if machine is not None and not machine.is_ending:
            return machine.booted.record
        if self._is_closed:
            raise provider_error("create", spec, "the provider is closed", advice="start a new cluster")
        site = await self._site()
        saved = await site.find_saved(name)
        if saved is not None:
            self._saved[name] = spec
            return saved
        phases = await self._have_image(site, name)
        gpus = site.devices.take(spec, recipe.wanted_gpus(spec))
        try:
            booted = await site.boot(spec, gpus, phases)
        except BaseException as error:
            site.devices.give_back(gpus)
            self._note(name, f"could not be created: {error}")
            raise
        if booted.is_adopted:
            site.devices.give_back(gpus)
            site.devices.keep(booted.gpus)
        how = "runs already as" if booted.is_adopted else "is"
        self._note(name, f"{how} {booted.record.detail}" + "".join(f", GPU {each}" for each in booted.gpus))
        self._keep(_Machine(spec, booted))
        return booted.record

    async def _have_image(self, site: Site, name: MachineId) -> dict[str, float]:
        """The boot phase that this was, where it was one."""
        try:
            pulled_unix_s = await site.images.ensure(partial(self._note, name))
        except ProviderError as error:
            self._note(name, f"could not be created: {error}")
            refused = provider_error("create", name, str(error), is_permanent=error.is_permanent)
            refused.phase = error.phase
            raise refused from None
        except ENGINE_ERRORS as error:
            raise provider_error("create", name, in_words(error)) from None
        return {} if pulled_unix_s is None else {"image pulled": pulled_unix_s}

    # ---- standing still ----
    async def _suspend(self, name: MachineId) -> None:
        record = await self._live("suspend", name)
        if record.state is MachineState.SUSPENDED:
            return
        site = await self._site()
        if site.snapshots is not None:
            await self._save(site, site.snapshots, record)
        else:
            await site.pause(record)
            self._note_state(record, MachineState.SUSPENDED)
            self._note(name, "is paused")

    async def _start(self, name: MachineId) -> None:
        record = await self._live("start", name)
        if record.state is not MachineState.SUSPENDED:
            return
        site = await self._site()
        if site.snapshots is not None and await site.find_saved(name) is not None:
            await self._restore(site, site.snapshots, name)
        else:
            await site.unpause(record)
            self._note_state(record, MachineState.RUNNING)
            self._note(name, "goes on")

    async def _save(self, site: Site, snapshots: Snapshots, record: ProviderMachine) -> None:
        """It runs until its snapshot is whole, and ends before anybody may take it."""
        name, machine = record.name, self._machines.get(record.name)
        if machine is not None and machine.booted.gpus:
            raise provider_error("suspend", name, _GPU_OBSTACLE, is_permanent=True)
        await snapshots.save(record)
        if machine is not None:
            machine.is_ending = True  # its end is no exit
        try:
            await site.remove(name)
        except ProviderError:
            snapshots.discard(name)
            if machine is not None:
                machine.is_ending = False
            raise
        if machine is not None:
            await last_lines(machine.booted.pump)
            self._forget(site, machine)
            self._saved[name] = machine.spec
        self._note(name, f"is saved by CRIU {snapshots.criu.version}")

    async def _restore(self, site: Site, snapshots: Snapshots, name: MachineId) -> None:
        try:
            await snapshots.restore(name)
            inspected = await site.inspect(name, "start")
            if inspected is None or record_of(inspected, {}).state is not MachineState.RUNNING:
                raise provider_error("start", name, "it ended as it was restored")
            if name in self._saved:  # else an earlier coordinator's, that `create` takes over
                self._keep(_Machine(self._saved.pop(name), await site.adopt(inspected)))
        except ENGINE_ERRORS as error:
            await site.remove_quietly(name)
            raise provider_error("start", name, in_words(error)) from None
        except ProviderError:
            await site.remove_quietly(name)
            raise
        self._note(name, "is restored")

    def _keep(self, machine: _Machine) -> None:
        machine.watch = asyncio.create_task(self._watch_output(machine))
        self._machines[machine.spec.machine_id] = machine

    async def _live(self, phase: str, name: MachineId) -> ProviderMachine:
        record = await self.get(name)
        if record is None or record.state not in (MachineState.RUNNING, MachineState.SUSPENDED):
            raise provider_error(phase, name, "a container that ended is gone", advice="create a new one")
        return record

    def _note_state(self, record: ProviderMachine, state: MachineState) -> None:
        machine = self._machines.get(record.name)
        if machine is not None and machine.container_id == record.provider_machine_id:
            machine.booted.record = replace(machine.booted.record, state=state)

    # ---- ends ----
    def _died(self, container_id: str, code: int) -> None:
        machine = self._by_id(container_id)
        if machine is not None:
            self._end(machine, code)

    def _ran_out(self, container_id: str) -> None:
        machine = self._by_id(container_id)
        if machine is not None:
            machine.was_oom = True
            self._note(machine.spec.machine_id, "ran out of memory: a process in it was killed")

    def _gap(self) -> None:
        """Ends may have been missed: look at each."""
        for machine in [*self._machines.values()]:
            self._turns.start(machine.spec.machine_id, partial(self._look, machine))

    async def _watch_output(self, machine: _Machine) -> None:
        """The end of the output is the first sign of an end; the engine's event says why. Without one it is asked."""
        await machine.booted.pump.ended.wait()
        while not machine.is_ending:
            await asyncio.sleep(_EVENT_S)
            await self._turns.take(machine.spec.machine_id, partial(self._look, machine))

    async def _look(self, machine: _Machine) -> None:
        if machine.is_ending or self._is_closed:
            return
        site = await self._site()
        try:
            inspected = await site.engine.call(site.engine.inspect, machine.container_id)
        except ENGINE_ERRORS as error:
            log.warning("machine %s cannot be looked at: %s", machine.spec.machine_id, in_words(error))
            return
        if inspected is None:
            self._end(machine, -1)
        elif record_of(inspected, {}).state is MachineState.STOPPED:
            state = inspected.get("State") or {}
            machine.was_oom = machine.was_oom or bool(state.get("OOMKilled"))
            self._end(machine, int(state.get("ExitCode", -1)))

    def _end(self, machine: _Machine, code: int) -> None:
        if not machine.is_ending:
            machine.is_ending = True
            self._turns.start(machine.spec.machine_id, partial(self._sweep_and_report, machine, code))

    async def _sweep_and_report(self, machine: _Machine, code: int) -> None:
        """First nothing of it is left, then it is called dead: its work may start elsewhere at once."""
        name = machine.spec.machine_id
        site = await self._site()
        await last_lines(machine.booted.pump)
        how = exit_in_words(code, was_oom=machine.was_oom, memory_bytes=machine.spec.boot.memory_bytes)
        try:
            await site.remove(name)
        except ProviderError as error:
            how += f"; {error}"  # its processes have ended; the sweeper comes back for the rest
        self._forget(site, machine)
        lines = [line for line in await self.logs(name) if line.strip()][-_REASON_LINES:]
        self._note(name, how)
        for callback in self._exit_callbacks:
            callback(name, "; ".join([f"container {how}", *lines]))

    async def _destroy(self, name: MachineId) -> None:
        machine = self._machines.get(name)
        if machine is not None:
            machine.is_ending = True
        site = await self._site()
        if site.snapshots is not None:
            self._saved.pop(name, None)
            site.snapshots.discard(name)
        await site.remove(name)
        if machine is not None:
            await last_lines(machine.booted.pump)
            self._note(name, "is destroyed")
            self._forget(site, machine)

    def _forget(self, site: Site, machine: _Machine) -> None:
        machine.booted.pump.close()
        site.devices.give_back(machine.booted.gpus)
        name = machine.spec.machine_id
        if self._machines.get(name) is machine:
            del self._machines[name]

    def _by_id(self, container_id: str) -> _Machine | None:
        return next((each for each in self._machines.values() if each.container_id == container_id), None)

    def _note(self, name: MachineId, event: str) -> None:
        machine_log.note(self._log_path(name), name, event)

    def _log_path(self, name: MachineId) -> Path:
        return machine_log.path_of(self._place.log_dir, name)


def make(place: Place) -> ContainerProvider:
    """See runner.providers.registry."""
    return ContainerProvider(parse(place.options), place)
