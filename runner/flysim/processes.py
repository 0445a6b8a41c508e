"""Carries out what the cloud tells its processes, on this computer."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config import import_path
from runner.errors import ProviderError
from runner.flysim.forker import CloudZygote
from runner.flysim.imaginary import ImaginaryProcesses, OnExit
from runner.flysim.programs import BrokenProgram, CommandProgram, Program
from runner.flysim.records import Boot, Command, Freeze, Kill, Signal
from runner.ids import ClusterId, MachineId
from runner.providers.freezing import Freezer
from runner.providers.process_tag import Process, find_process, send_signal, tag_environment
from runner.providers.reaper import Reaper

log = logging.getLogger(__name__)

_KILL_GRACE_S = 5.0
_IMPORT_FOLDER = str(Path(__file__).resolve().parents[2])
_NOT_INHERITED = ("RUNNER_BOOT", "RUNNER_BOOT_FILE")


@dataclass(slots=True, eq=False)
class _Running:
    machine_id: str
    life: int
    process: Process | None = None
    memory_folder: str = ""

    @property
    def name(self) -> MachineId:
        return MachineId(f"{self.machine_id}.{self.life}")

    @property
    def leaders(self) -> tuple[Process, ...]:
        return () if self.process is None else (self.process,)


class MachineProcesses:
    """Agents and commands as sessions of processes, tagged with `tag`; the rest is imagined."""

    def __init__(
        self,
        zygote: CloudZygote,
        *,
        tag: ClusterId,
        log_dir: Path,
        program_of: Callable[[str], Program | None],
        on_exit: OnExit,
        on_lost: Callable[[], None],
    ) -> None:
        """`program_of` tells what a machine runs; `on_exit` is called once nothing of a life is left; `on_lost`: no machine can be started any more."""
        self._zygote = zygote
        self._tag = tag
        self._log_dir = log_dir
        self._program_of = program_of
        self._on_exit = on_exit
        self._imaginary = ImaginaryProcesses(on_exit)
        self._reaper = Reaper(tag, kill_grace_s=_KILL_GRACE_S)
        # By signals: then nothing is left where the simulator is killed.
        self._freezer = Freezer(tag, self._reaper, uses_groups=False)
        self._running: dict[str, _Running] = {}  # by name, which has the life in it
        self._tails: dict[str, asyncio.Task[None]] = {}  # machine id: the last thing to be done to it
        zygote.attach(self._process_gone, on_lost)

    def carry_out(self, command: Command) -> None:
        """Begin to do as told; commands to one machine are carried out in their order."""
        name = f"{command.machine_id}.{command.life}"
        if isinstance(command, Boot):
            program = self._program_of(command.machine_id)
            if program is None:
                self._imaginary.carry_out(command)
                return
            self._running[name] = _Running(command.machine_id, command.life)
            self._in_turn(command.machine_id, self._boot(self._running[name], program, command))
        elif name in self._running:
            self._in_turn(command.machine_id, self._act(self._running[name], command))
        else:
            self._imaginary.carry_out(command)

    def log_path(self, machine_id: str) -> Path:
        """What the machine wrote, over all its lives."""
        return self._log_dir / f"{machine_id}.log"

    def pids(self) -> dict[str, int]:
        """The main process of each machine that has one."""
        return {each.machine_id: each.process.pid for each in self._running.values() if each.process is not None}

    def mark_of(self, machine_id: str) -> dict[str, str] | None:
        """The environment by which a command inside the machine is found and ended with it; None where it has no process."""
        for each in self._running.values():
            if each.machine_id == machine_id and each.process is not None:
                return tag_environment(self._tag, each.name)
        return None

    async def close(self) -> None:
        """End the forker and with it every machine."""
        for tail in [*self._tails.values()]:
            tail.cancel()
        await asyncio.gather(*self._tails.values(), return_exceptions=True)
        self._zygote.close()
        # Something is left only where the forker itself was killed. Memory is freed when nobody is there to make it anew.
        await asyncio.gather(*(self._end_now(running) for running in self._running.values()))

    async def _end_now(self, running: _Running) -> None:
        try:
            await self._reaper.kill_all(running.name, running.leaders)
        except ProviderError as error:
            log.error("machine %s: %s", running.machine_id, error)
        _free(running)

    def _in_turn(self, machine_id: str, work: Coroutine[Any, Any, None]) -> None:
        before = self._tails.get(machine_id)

        async def after() -> None:
            if before is not None:
                await asyncio.wait([before])
            try:
                await work
            except (OSError, ProviderError) as error:
                log.error("machine %s: %s", machine_id, error)

        task = self._tails[machine_id] = asyncio.create_task(after(), name=f"machine {machine_id}")
        task.add_done_callback(lambda done: self._done(machine_id, done))

    def _done(self, machine_id: str, done: asyncio.Task[None]) -> None:
        if self._tails.get(machine_id) is done:
            del self._tails[machine_id]

    # ---- one machine ----
    async def _boot(self, running: _Running, program: Program, command: Boot) -> None:
        path = self.log_path(running.machine_id)
        if isinstance(program, BrokenProgram):
            with path.open("a") as file:
                file.write(program.text + "\n")
            self._ended(running, program.exit_code, 0)
            return
        env = {name: value for name, value in command.env.items() if name not in _NOT_INHERITED}
        if isinstance(program, CommandProgram):  # it imports for itself
            env.setdefault("PYTHONPATH", import_path(_IMPORT_FOLDER))
            running.memory_folder = program.memory_folder
        try:
            pid = await self._zygote.start(running.name, program, tag=self._tag, env=env, log_path=str(path))
        except OSError as error:
            log.error("machine %s could not be forked: %s", running.machine_id, error)
            self._ended(running, 1, 0)
            return
        running.process = find_process(pid)

    async def _act(self, running: _Running, command: Command) -> None:
        if running.process is None:
            return
        if isinstance(command, Signal):
            send_signal(running.process, signal.Signals(command.number))
        elif isinstance(command, Kill):
            await self._reaper.kill_all(running.name, running.leaders)
        elif isinstance(command, Freeze):
            await self._freezer.freeze(running.name, running.leaders)
        else:
            await self._freezer.thaw(running.name, running.leaders)

    def _process_gone(self, name: MachineId, status: int) -> None:
        running = self._running.get(name)
        if running is not None:
            self._in_turn(running.machine_id, self._sweep(running, status))

    async def _sweep(self, running: _Running, status: int) -> None:
        """First nothing of it runs any more, then its end is told."""
        await self._reaper.kill_all(running.name, running.leaders)
        _free(running)
        code = os.waitstatus_to_exitcode(status)
        self._ended(running, code if code >= 0 else 128 - code, max(0, -code))

    def _ended(self, running: _Running, exit_code: int, number: int) -> None:
        del self._running[running.name]
        self._freezer.forget(running.name)
        self._on_exit(running.machine_id, running.life, exit_code, number)


def _free(running: _Running) -> None:
    if running.memory_folder:
        shutil.rmtree(running.memory_folder, ignore_errors=True)
