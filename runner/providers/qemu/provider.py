"""Machines as micro-VMs on this host: made, watched, suspended, resumed and ended."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from runner import config
from runner.core.values import GPU
from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId, random_id
from runner.providers import machine_log
from runner.providers.base import (
    Capabilities,
    ExitCallback,
    MachineSpec,
    MachineState,
    ProviderMachine,
    SuspendKind,
    Wanted,
    provider_error,
)
from runner.providers.process_tag import find_tagged
from runner.providers.qemu import host as this_host
from runner.providers.qemu import memory, snapshot
from runner.providers.qemu.command import Build, build_of, guest_view
from runner.providers.qemu.folder import MachineFolder, Made, names_in
from runner.providers.qemu.host import Host
from runner.providers.qemu.image import VmImage
from runner.providers.qemu.launch import Launcher, NotStarted
from runner.providers.qemu.machine import Machine, describe
from runner.providers.qemu.options import QemuOptions, parse
from runner.providers.qemu.process import QemuProcess, reap
from runner.providers.qemu.qmp import QmpError
from runner.providers.reaper import Reaper
from runner.providers.registry import Place
from runner.providers.turns import Turns

log = logging.getLogger(__name__)

_FOLDER = "qemu"  # beside the machines' logs, in the cluster's state directory
_REASON_LINES = 5  # of the log, in the reason of an exit
_KILL_GRACE_S = 5.0
# A save is bound by the disk: a second one has work for it while the first waits for the file to be durable; more only
# make each of them slower, and a guest stands still while its memory is written.
_SAVES_AT_ONCE = 2
_NO_GPU = "micro-VMs have no GPUs; providers that have them are local and container"
_NO_QEMU = "QEMU is not installed on this host (apt-get install qemu-system-x86)"


class QemuProvider:
    """Keeps the contract of Provider for one cluster, inside the coordinator's event loop.

    What a later coordinator needs to go on with a machine is in the machine's folder; running ones carry the cluster's tag.
    """

    def __init__(self, options: QemuOptions, place: Place) -> None:
        self._options = options
        self._place = place
        self._folders = place.log_dir.parent / _FOLDER
        self._looking: asyncio.Task[Host] | None = None
        self._machines: dict[MachineId, Machine] = {}
        self._swept: set[MachineId] = set()  # ended here and nothing is left: destroying them again costs no look
        self._turns = Turns()
        self._reaper = Reaper(place.cluster_id, kill_grace_s=_KILL_GRACE_S)
        self._saves = asyncio.Semaphore(_SAVES_AT_ONCE)
        # A resume is bound by a CPU: QEMU loads with one, and then the guest wants it.
        self._resumes = asyncio.Semaphore(max(2, os.cpu_count() or 1))
        self._exit_callbacks: list[ExitCallback] = []
        self._is_closed = False

    @property
    def name(self) -> str:
        return "qemu"

    def capabilities(self) -> Capabilities:
        is_there = bool(this_host.program(self._options))
        kind: SuspendKind = "snapshot" if is_there else ""
        return Capabilities(suspend_kind=kind, suspend_reason="by QEMU" if is_there else _NO_QEMU, is_remote=True)

    def on_exit(self, callback: ExitCallback) -> None:
        self._exit_callbacks.append(callback)

    async def prepare(self, wanted: Sequence[Wanted]) -> tuple[str, ...]:
        if any(dict(each.shape).get(GPU, 0) for each in wanted):
            error = ProviderError(f"machines with GPUs cannot be had here: {_NO_GPU}", phase="prepare")
            error.is_permanent = True
            raise error
        host = await self._host()
        if host.accel == "kvm" or self._options.accel == "tcg":
            return ()
        return (f"guests are emulated, about ten times slower than the host: {host.why_emulated}",)

    def suspend_obstacle(self, wanted: Wanted) -> str:
        return _NO_GPU if dict(wanted.shape).get(GPU, 0) else ""

    async def create(self, spec: MachineSpec) -> ProviderMachine:
        return await self._turns.take(spec.machine_id, lambda: self._create(spec))

    async def start(self, name: MachineId) -> None:
        await self._turns.take(name, lambda: self._start(name))

    async def suspend(self, name: MachineId) -> None:
        await self._turns.take(name, lambda: self._suspend(name))

    async def stop(self, name: MachineId) -> None:
        await self._turns.take(name, lambda: self._stop(name))

    async def destroy(self, name: MachineId) -> None:
        await self._turns.take(name, lambda: self._destroy(name))

    async def get(self, name: MachineId) -> ProviderMachine | None:
        machine = self._machines.get(name)
        if machine is not None:
            return machine.record
        if name in self._swept:
            return None
        return {record.name: record for record in await self.list(self._place.cluster_id)}.get(name)

    async def list(self, cluster_id: ClusterId) -> tuple[ProviderMachine, ...]:
        processes = {each.machine_id: each.process for each in find_tagged(cluster_id)}
        if cluster_id != self._place.cluster_id:
            return tuple(describe(name, None, processes[name]) for name in sorted(processes))
        names = sorted({*self._machines, *names_in(self._folders), *processes})
        records = []
        for name in names:
            known = self._machines.get(name)
            folder = self._folder(name)
            records.append(known.record if known is not None else describe(name, folder, processes.get(name)))
        return tuple(records)

    async def logs(self, name: MachineId) -> tuple[str, ...]:
        return machine_log.read_tail(self._log_path(name))

    async def close(self) -> None:
        """Stop watching. Machines go on, but those of an embedded coordinator: the kernel ends them with its process."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._turns.all_done()
        for machine in self._machines.values():
            if machine.process is not None:
                machine.process.let_go()
        self._machines.clear()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def _host(self) -> Host:
        """What this host has; looked at once, and again after a failure."""
        if self._is_closed:
            raise ProviderError("the provider is closed; start a new cluster", phase="prepare")
        if self._looking is None or (self._looking.done() and self._looking.exception() is not None):
            self._looking = asyncio.ensure_future(this_host.look(self._options, config.load().home))
        return await asyncio.shield(self._looking)

    # ---- creating ----
    async def _create(self, spec: MachineSpec) -> ProviderMachine:
        name = spec.machine_id
        machine = self._machines.get(name) or await self._adopt(name)
        if machine is not None and machine.state is not MachineState.STOPPED:
            return machine.record
        if machine is None:
            await self._end_strays(name)
        if dict(spec.shape).get(GPU, 0):
            raise provider_error("create", spec, _NO_GPU, is_permanent=True)
        try:
            host = await self._host()
            machine = await self._make(spec, host, host.image())
        except ProviderError as error:
            self._note(name, f"could not be created: {error.args[0]}")
            if error.machine_id:
                raise
            # What this host lacks, it lacks for every machine.
            refused = provider_error("create", spec, str(error), is_permanent=error.is_permanent)
            refused.phase = error.phase
            raise refused from None
        self._note(name, f"is a {machine.record.detail}")
        return machine.record

    async def _make(self, spec: MachineSpec, host: Host, image: VmImage) -> Machine:
        name = spec.machine_id
        build = build_of(
            spec.boot,
            qemu=host.version,
            accel=host.accel,
            image_id=image.image_id,
            memory_bytes=self._options.default_memory_bytes,
        )
        made = Made(name, random_id("q"), time.time(), build)
        boot = replace(
            spec.boot,
            coordinator_address=guest_view(spec.boot.coordinator_address),
            owns_clock=True,
            provider_machine_id=made.unique_id,
            host_id="",
            pull_host="",  # nobody reaches a guest: its values go through the coordinator
        )
        machine = Machine(made, self._folder(name), is_creating=True)
        self._machines[name] = machine
        try:
            machine.folder.create(made, boot)
            await self._launch(machine, host, image)
        except BaseException as error:
            del self._machines[name]
            machine.folder.remove()
            if isinstance(error, NotStarted | OSError):
                lines = await self._last_lines(name)
                raise provider_error("create", spec, str(error), log_lines=lines) from None
            raise
        machine.is_creating = False
        self._swept.discard(name)
        return machine

    async def _launch(self, machine: Machine, host: Host, image: VmImage, fd: int | None = None) -> None:
        """Start QEMU for it: a cold boot, or with the memory that `fd` holds.

        Raises:
            NotStarted: nothing runs.
            OSError: the folder cannot be written.
        """
        machine.made = replace(machine.made, build=_build_here(machine, host, image))
        machine.folder.note(machine.made)
        launcher = Launcher(self._place, host, image, self._log_path(machine.made.name))
        process = await launcher.launch(machine.made, machine.folder, fd)
        machine.process = process
        process.ended.add_done_callback(partial(self._has_ended, machine, process))

    async def _adopt(self, name: MachineId) -> Machine | None:
        """A machine of an earlier coordinator, as its folder and its process tell of it."""
        folder = self._folder(name)
        made = folder.read()
        if name in self._swept or made is None:
            return None
        machine = Machine(made, folder)
        for each in find_tagged(self._place.cluster_id):
            if each.machine_id == name:
                try:
                    machine.process = QemuProcess(each.process)
                except ProcessLookupError:
                    continue
                machine.process.ended.add_done_callback(partial(self._has_ended, machine, machine.process))
        self._machines[name] = machine
        self._note(name, f"is taken over from an earlier coordinator, {machine.state.value}")
        if machine.state is MachineState.RUNNING:
            await self._wake(machine)
        return machine

    async def _wake(self, machine: Machine) -> None:
        """The earlier coordinator may have died between stopping the guest and saving it, or between loading and starting it."""
        try:
            if await memory.wake(machine.folder.control):
                self._note(machine.made.name, "stood still, and goes on")
        except QmpError as error:
            log.warning("machine %s cannot be asked whether it runs: %s", machine.made.name, error)

    # ---- suspending and resuming ----
    async def _suspend(self, name: MachineId) -> None:
        machine = await self._need(name, "suspend")
        if machine.state is MachineState.RUNNING:
            host = await self._host()
            async with self._saves:
                try:
                    saved = await memory.save(
                        machine.folder.control,
                        machine.folder.path,
                        machine.made.build,
                        to_file=host.takes_file_addresses,
                    )
                except memory.MemoryNotSaved as error:
                    self._note(name, f"could not be suspended: {error}")
                    raise provider_error("suspend", name, str(error), advice="it goes on as before") from None
                await self._end_process(machine)
            self._note(name, f"is suspended: {saved.size_bytes / 1e6:.0f} MB in {saved.took_s:.2f} s")
        elif machine.state is MachineState.SUSPENDED:
            await self._end_process(machine)
        else:
            raise provider_error("suspend", name, f"it is {machine.state.value}", advice="start it first")

    async def _start(self, name: MachineId) -> None:
        machine = await self._need(name, "start")
        if machine.state is MachineState.RUNNING:
            return
        host = await self._host()
        image = host.image()
        if machine.state is MachineState.SUSPENDED:
            await self._end_process(machine)
            async with self._resumes:
                await self._resume(machine, host, image)
            return
        try:
            await self._launch(machine, host, image)
        except (NotStarted, OSError) as error:
            raise provider_error("start", name, str(error), log_lines=await self._last_lines(name)) from None
        self._note(name, "is started cold")

    async def _resume(self, machine: Machine, host: Host, image: VmImage) -> None:
        name, begin_s = machine.made.name, time.monotonic()
        build = _build_here(machine, host, image)
        try:
            with snapshot.consuming(machine.folder.path, build) as fd:
                await self._launch(machine, host, image, fd)
                assert machine.process is not None
                await memory.run_on(machine.folder.control, machine.process.ended, build)
        except (snapshot.SnapshotError, memory.MemoryNotResumed, NotStarted, OSError) as error:
            await self._end_process(machine)
            lines = () if isinstance(error, snapshot.SnapshotError) else await self._last_lines(name)
            self._note(name, f"could not be resumed, and its memory is gone: {error}")
            advice = "its memory is gone; starting it again boots it cold"
            raise provider_error("resume", name, str(error), advice=advice, log_lines=lines) from None
        self._note(name, f"is resumed, in {time.monotonic() - begin_s:.2f} s")

    async def _stop(self, name: MachineId) -> None:
        machine = self._machines.get(name) or await self._adopt(name)
        if machine is not None and machine.state is not MachineState.STOPPED:
            await self._end_process(machine)
            snapshot.discard(machine.folder.path)
            self._note(name, "is stopped")

    async def _need(self, name: MachineId, phase: str) -> Machine:
        machine = self._machines.get(name) or await self._adopt(name)
        if machine is None:
            raise provider_error(phase, name, "there is no such machine (any more)", advice="create a new one")
        return machine

    # ---- ends ----
    async def _end_process(self, machine: Machine) -> None:
        """End QEMU, where it runs; this is no exit to report."""
        process, machine.process = machine.process, None
        if process is not None:
            await process.kill()

    def _has_ended(self, machine: Machine, process: QemuProcess, ended: asyncio.Future[str]) -> None:
        if machine.process is process and not self._is_closed:
            self._turns.start(machine.made.name, partial(self._report_end, machine, process, ended.result()))

    async def _report_end(self, machine: Machine, process: QemuProcess, how: str) -> None:
        """The guest has powered off, or QEMU was killed: with it goes the machine, and then it is called dead."""
        name = machine.made.name
        if machine.process is not process:
            return  # somebody else has ended it meanwhile
        lines = await self._last_lines(name)
        self._forget(machine)
        how = "powered off" if how == "exited with code 0" else how
        self._note(name, how)
        for callback in self._exit_callbacks:
            callback(name, "; ".join([f"micro-VM {how}", *lines]))

    async def _destroy(self, name: MachineId) -> None:
        machine = self._machines.get(name)
        if machine is not None:
            await self._end_process(machine)
            self._forget(machine)
            self._note(name, "is destroyed")
        elif name not in self._swept:
            await self._end_strays(name)
            self._folder(name).remove()
            self._swept.add(name)

    async def _end_strays(self, name: MachineId) -> None:
        """End what runs under this name and is none of ours: an earlier coordinator's, whose folder may be gone."""
        pids = [each.process.pid for each in find_tagged(self._place.cluster_id) if each.machine_id == name]
        if pids:
            await self._reaper.kill_all(name, ())
        for pid in pids:
            reap(pid)

    def _forget(self, machine: Machine) -> None:
        machine.folder.remove()
        del self._machines[machine.made.name]
        self._swept.add(machine.made.name)

    async def _last_lines(self, name: MachineId) -> tuple[str, ...]:
        return tuple([line for line in await self.logs(name) if line.strip()][-_REASON_LINES:])

    def _folder(self, name: MachineId) -> MachineFolder:
        return MachineFolder(self._folders / name)

    def _note(self, name: MachineId, event: str) -> None:
        machine_log.note(self._log_path(name), name, event)

    def _log_path(self, name: MachineId) -> Path:
        return machine_log.path_of(self._place.log_dir, name)


def _build_here(machine: Machine, host: Host, image: VmImage) -> Build:
    """What a machine is when it is started here and now."""
    return replace(machine.made.build, qemu=host.version, accel=host.accel, image_id=image.image_id)


def make(place: Place) -> QemuProvider:
    """See runner.providers.registry."""
    return QemuProvider(parse(place.options), place)
