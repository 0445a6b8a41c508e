"""Machines as containers of one engine: made, watched, ended, and swept by their labels."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from docker.errors import APIError

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
from runner.providers.container.engine import ENGINE_ERRORS, Engine, find_engine, in_words, is_gone
from runner.providers.container.images import Images
from runner.providers.container.options import ContainerOptions, parse
from runner.providers.container.output import OutputPump
from runner.providers.container.recipe import CLUSTER_LABEL, Recipe, container_name, record_of
from runner.providers.registry import Place
from runner.providers.turns import Turns

log = logging.getLogger(__name__)

_REASON_LINES = 5  # of the log, in the reason of an exit
_LAST_LINES_S = 1.0  # from the end of a container to the end of what it printed
_EVENT_S = 3.0  # from the end of the output to the engine's word of why
_REMOVAL_S = 20.0  # for the engine to finish a removal
_SUSPEND_REASON = "a container's memory cannot be saved by Docker or Podman without CRIU; destroy it and boot another"
# An image that has no such program; Docker and runc say it differently.
_NO_PROGRAM = ("executable file not found", "no such file or directory", "command not found")


@dataclass(slots=True)
class _Machine:
    spec: MachineSpec
    container_id: str
    gpus: tuple[str, ...]
    record: ProviderMachine
    pump: OutputPump
    was_oom: bool = False
    is_ending: bool = False
    watch: asyncio.Task[None] | None = field(default=None, repr=False)


class ContainerProvider:
    """Keeps the contract of Provider for one cluster, inside the coordinator's event loop."""

    def __init__(self, options: ContainerOptions, place: Place, engine: Engine | None = None) -> None:
        """`engine`: the one to use; None: found at the first call."""
        self._options = options
        self._place = place
        self._cluster_id = place.cluster_id
        self._given_engine = engine
        self._opening: asyncio.Task[_Open] | None = None
        self._machines: dict[MachineId, _Machine] = {}
        self._gone: set[MachineId] = set()  # ended here and nothing is left
        self._turns = Turns()
        self._exit_callbacks: list[ExitCallback] = []
        self._is_closed = False

    @property
    def name(self) -> str:
        return "container"

    def capabilities(self) -> Capabilities:
        devices = Devices(self._options.gpus)
        return Capabilities(
            gpu_kinds=devices.kinds, gpus_total=devices.total, suspend_reason=_SUSPEND_REASON, is_remote=True
        )

    def on_exit(self, callback: ExitCallback) -> None:
        self._exit_callbacks.append(callback)

    async def prepare(self, wanted: Sequence[Wanted]) -> tuple[str, ...]:
        opened = await self._open()
        try:
            await opened.images.check()
            if any(dict(each.shape).get(GPU, 0) for each in wanted):
                opened.devices.check()
        except ENGINE_ERRORS as error:
            raise _unreachable(opened.engine, error) from None
        return opened.warnings

    async def create(self, spec: MachineSpec) -> ProviderMachine:
        return await self._turns.take(spec.machine_id, lambda: self._create(spec))

    async def start(self, name: MachineId) -> None:
        await self._turns.take(name, lambda: self._start(name))

    async def suspend(self, name: MachineId) -> None:
        raise provider_error("suspend", name, _SUSPEND_REASON)

    async def stop(self, name: MachineId) -> None:
        await self.destroy(name)

    async def destroy(self, name: MachineId) -> None:
        await self._turns.take(name, lambda: self._destroy(name))

    async def get(self, name: MachineId) -> ProviderMachine | None:
        machine = self._machines.get(name)
        if machine is not None and not machine.is_ending:
            return machine.record
        if name in self._gone:
            return None
        opened = await self._open()
        inspected = await self._inspect(opened.engine, name, "get")
        if inspected is None:
            return None
        found = record_of(inspected, {})
        return found if found.name == name else None

    async def list(self, cluster_id: ClusterId) -> tuple[ProviderMachine, ...]:
        opened = await self._open()
        filters = {"label": f"{CLUSTER_LABEL}={cluster_id}"}
        try:
            found = await opened.engine.call(opened.engine.client.containers, all=True, filters=filters)
        except ENGINE_ERRORS as error:
            raise _unreachable(opened.engine, error) from None
        records = []
        for each in found:
            if str(each.get("State", "")).lower() == "removing":
                continue
            machine = self._machines.get(MachineId((each.get("Labels") or {}).get(recipe.MACHINE_LABEL, "")))
            is_ours = machine is not None and machine.container_id == each["Id"] and not machine.is_ending
            records.append(machine.record if machine is not None and is_ours else record_of(each, {}))
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
            machine.pump.close()
            if machine.watch is not None:
                machine.watch.cancel()
        self._machines.clear()
        if self._opening is not None:
            with contextlib.suppress(ProviderError):
                opened = await asyncio.shield(self._opening)
                await asyncio.to_thread(opened.watch.close)
                opened.engine.close()

    # ---- the engine ----
    async def _open(self) -> _Open:
        """The engine with all that depends on what it is; asked once, and again after a failure."""
        if self._is_closed and self._opening is None:
            raise ProviderError("the provider is closed; start a new cluster", phase="prepare")
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = asyncio.ensure_future(self._do_open())
        return await asyncio.shield(self._opening)

    async def _do_open(self) -> _Open:
        engine = self._given_engine or find_engine(self._options, config.load())
        try:
            version, info = await engine.call(engine.version_and_info)
        except ENGINE_ERRORS as error:
            engine.close()
            raise _unreachable(engine, error) from None
        os.makedirs(self._place.log_dir, mode=0o700, exist_ok=True)
        shares = engine.is_local if self._options.share_host is None else self._options.share_host
        user = self._options.user or (recipe.default_user(info.get("SecurityOptions") or []) if shares else "")
        made = Recipe(
            self._options, self._place, shares_host=shares, user=user, host_memory=int(info.get("MemTotal") or 0)
        )
        watch = EndWatch(engine, f"{CLUSTER_LABEL}={self._cluster_id}", self._died, self._ran_out, self._gap)
        devices = Devices(self._options.gpus, info=info, version=version, is_local=engine.is_local)
        return _Open(engine, made, Images(engine, self._options.image, self._options.pull), devices, watch)

    async def _inspect(self, engine: Engine, name: MachineId, phase: str) -> dict[str, Any] | None:
        try:
            return await engine.call(engine.inspect, container_name(self._cluster_id, name))
        except ENGINE_ERRORS as error:
            raise provider_error(phase, name, in_words(error)) from None

    # ---- creating ----
    async def _create(self, spec: MachineSpec) -> ProviderMachine:
        name = spec.machine_id
        machine = self._machines.get(name)
        if machine is not None and not machine.is_ending:
            return machine.record
        if self._is_closed:
            raise provider_error("create", spec, "the provider is closed", advice="start a new cluster")
        opened = await self._open()
        phases: dict[str, float] = {}
        pulled_s = await self._ensure_image(opened, name)
        if pulled_s is not None:
            phases["image pulled"] = pulled_s
        gpus = opened.devices.take(spec, recipe.wanted_gpus(spec))
        try:
            record, pump = await self._boot(opened, spec, gpus, phases)
        except BaseException:
            opened.devices.give_back(gpus)
            raise
        if pump is None:
            opened.devices.give_back(gpus)
            return record
        self._note(name, f"is {record.detail}" + (f", GPUs {', '.join(gpus)}" if gpus else ""))
        made = _Machine(spec, record.provider_machine_id, gpus, record, pump)
        made.watch = asyncio.create_task(self._watch_output(made))
        self._machines[name] = made
        self._gone.discard(name)
        return record

    async def _ensure_image(self, opened: _Open, name: MachineId) -> float | None:
        try:
            return await opened.images.ensure(partial(self._note, name))
        except ProviderError as error:
            refused = provider_error("create", name, str(error), is_permanent=error.is_permanent)
            refused.phase = "image"
            raise refused from None
        except ENGINE_ERRORS as error:
            raise provider_error("create", name, in_words(error)) from None

    async def _boot(
        self, opened: _Open, spec: MachineSpec, gpus: tuple[str, ...], phases: dict[str, float]
    ) -> tuple[ProviderMachine, OutputPump | None]:
        """Make and start the container; an adopted one comes without its output."""
        engine, name = opened.engine, spec.machine_id
        try:
            container_id, stream = await engine.call(_make, opened, spec, gpus)
        except ENGINE_ERRORS as error:
            if not _is_conflict(error):
                raise self._boot_error(spec, error) from None
            inspected = await self._inspect(engine, name, "create")
            if inspected is not None and record_of(inspected, {}).state is MachineState.RUNNING:
                return record_of(inspected, {}), None
            # One that was never started, as a killed coordinator leaves it, or that has ended.
            await self._remove(opened, name)
            try:
                container_id, stream = await engine.call(_make, opened, spec, gpus)
            except ENGINE_ERRORS as again:
                raise self._boot_error(spec, again) from None
        pump = OutputPump(stream, self._log_path(name))
        try:
            await engine.call(engine.client.start, container_id)
            phases["started"] = time.time()
            inspected = await self._inspect(engine, name, "create")
        except ENGINE_ERRORS as error:
            pump.close()
            await self._remove_quietly(opened, name)
            raise self._boot_error(spec, error) from None
        if inspected is None:
            raise await self._ended_at_once(spec, pump)
        record = record_of(inspected, phases)
        if record.state is MachineState.STOPPED:
            await self._remove_quietly(opened, name)
            raise await self._ended_at_once(spec, pump)
        return record, pump

    def _boot_error(self, spec: MachineSpec, error: BaseException) -> ProviderError:
        words = in_words(error)
        lowered = words.lower()
        advice = ""
        if any(each in lowered for each in _NO_PROGRAM):
            advice = f"image {self._options.image} has no `runner`; see `runner image check {self._options.image}`"
        is_permanent = bool(advice) or (isinstance(error, APIError) and error.status_code in {400, 404})
        is_capacity = "no space left" in lowered or "cannot allocate memory" in lowered
        self._note(spec.machine_id, f"could not be created: {words}")
        return provider_error(
            "create", spec, words, advice=advice, is_permanent=is_permanent and not is_capacity, is_capacity=is_capacity
        )

    async def _ended_at_once(self, spec: MachineSpec, pump: OutputPump) -> ProviderError:
        await _until_ended(pump)
        return provider_error("boot", spec, "it ended at once", log_lines=await self.logs(spec.machine_id))

    async def _start(self, name: MachineId) -> None:
        machine = self._machines.get(name)
        if machine is not None and not machine.is_ending:
            return
        opened = await self._open()
        inspected = None if name in self._gone else await self._inspect(opened.engine, name, "start")
        if inspected is None or record_of(inspected, {}).state is not MachineState.RUNNING:
            raise provider_error("start", name, "a container that ended is gone", advice="create a new one")

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
        await machine.pump.ended.wait()
        while not machine.is_ending:
            await asyncio.sleep(_EVENT_S)
            await self._turns.take(machine.spec.machine_id, partial(self._look, machine))

    async def _look(self, machine: _Machine) -> None:
        if machine.is_ending:
            return
        opened = await self._open()
        try:
            inspected = await opened.engine.call(opened.engine.inspect, machine.container_id)
        except ENGINE_ERRORS as error:
            log.warning("machine %s cannot be looked at: %s", machine.spec.machine_id, in_words(error))
            return
        state = (inspected or {}).get("State") or {}
        if inspected is None:
            self._end(machine, -1)
        elif record_of(inspected, {}).state is MachineState.STOPPED:
            machine.was_oom = machine.was_oom or bool(state.get("OOMKilled"))
            self._end(machine, int(state.get("ExitCode", -1)))

    def _end(self, machine: _Machine, code: int) -> None:
        if not machine.is_ending:
            machine.is_ending = True
            self._turns.start(machine.spec.machine_id, partial(self._sweep_and_report, machine, code))

    async def _sweep_and_report(self, machine: _Machine, code: int) -> None:
        """First nothing of it is left, then it is called dead: its work may start elsewhere at once."""
        name = machine.spec.machine_id
        opened = await self._open()
        await _until_ended(machine.pump)
        how = exit_in_words(code, was_oom=machine.was_oom, memory_bytes=machine.spec.boot.memory_bytes)
        try:
            await self._remove(opened, name)
        except ProviderError as error:
            how += f"; {error}"  # its processes have ended; the sweeper comes back for the rest
        self._forget(opened, machine)
        lines = [line for line in await self.logs(name) if line.strip()][-_REASON_LINES:]
        self._note(name, how)
        for callback in self._exit_callbacks:
            callback(name, "; ".join([f"container {how}", *lines]))

    async def _destroy(self, name: MachineId) -> None:
        machine = self._machines.get(name)
        if machine is None and name in self._gone:
            return
        if machine is not None:
            machine.is_ending = True
        opened = await self._open()
        await self._remove(opened, name)
        if machine is not None:
            await _until_ended(machine.pump)
            self._note(name, "is destroyed")
            self._forget(opened, machine)
        self._gone.add(name)

    async def _remove(self, opened: _Open, name: MachineId) -> None:
        """Until the engine has no such container.

        Raises:
            ProviderError: the engine does not answer, or does not finish.
        """
        engine, container = opened.engine, container_name(self._cluster_id, name)
        try:
            async with asyncio.timeout(_REMOVAL_S):
                await engine.call(engine.remove, container)
                while await engine.call(engine.inspect, container) is not None:
                    await asyncio.sleep(0.05)
                    await engine.call(engine.remove, container)
        except TimeoutError:
            raise provider_error("destroy", name, f"{container} is still there after {_REMOVAL_S:g} s") from None
        except ENGINE_ERRORS as error:
            raise provider_error("destroy", name, in_words(error)) from None

    async def _remove_quietly(self, opened: _Open, name: MachineId) -> None:
        try:
            await self._remove(opened, name)
        except ProviderError as error:
            log.warning("%s; the sweeper will find it", error)

    def _forget(self, opened: _Open, machine: _Machine) -> None:
        machine.pump.close()
        opened.devices.give_back(machine.gpus)
        name = machine.spec.machine_id
        if self._machines.get(name) is machine:
            del self._machines[name]
        self._gone.add(name)

    def _by_id(self, container_id: str) -> _Machine | None:
        return next((each for each in self._machines.values() if each.container_id == container_id), None)

    def _note(self, name: MachineId, event: str) -> None:
        machine_log.note(self._log_path(name), name, event)

    def _log_path(self, name: MachineId) -> Any:
        return machine_log.path_of(self._place.log_dir, name)


@dataclass(frozen=True, slots=True)
class _Open:
    """An engine that has answered, and what depends on its answer."""

    engine: Engine
    recipe: Recipe
    images: Images
    devices: Devices
    watch: EndWatch

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.recipe.shares_host:
            return ()
        return ("machines do not share this host's files: large values and checkpoints travel through the coordinator",)


def _make(opened: _Open, spec: MachineSpec, gpus: tuple[str, ...]) -> tuple[str, Any]:
    """Create one container with its boot configuration and its output attached; blocking. Leaves nothing when it fails."""
    client = opened.engine.client
    made = client.create_container(**opened.recipe.arguments(opened.engine, spec, gpus))
    container_id = str(made["Id"])
    try:
        client.put_archive(container_id, *opened.recipe.boot_archive(spec, gpus))
        stream = client.attach_socket(container_id, params={"stdout": 1, "stderr": 1, "stream": 1, "logs": 0})
    except BaseException:
        with contextlib.suppress(*ENGINE_ERRORS):
            opened.engine.remove(container_id)
        raise
    return container_id, stream


async def _until_ended(pump: OutputPump) -> None:
    """Its last lines."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_LINES_S):
            await pump.ended.wait()
    pump.close()


def _is_conflict(error: BaseException) -> bool:
    return (
        isinstance(error, APIError)
        and not is_gone(error)
        and (error.status_code == 409 or "already in use" in in_words(error))
    )


def _unreachable(engine: Engine, error: BaseException) -> ProviderError:
    return ProviderError(
        f"the container engine at {engine.url} did not answer: {in_words(error)}; is it running, and may this user use it?",
        phase="prepare",
    )


def make(place: Place) -> ContainerProvider:
    """See runner.providers.registry."""
    return ContainerProvider(parse(place.options), place)
