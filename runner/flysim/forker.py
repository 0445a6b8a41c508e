"""Forks machines of the simulated cloud: agents from a warm process, commands by exec. All of them end with the simulator."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from runner.flysim.programs import AgentProgram, CommandProgram
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig
from runner.providers.process_tag import tag_this_process
from runner.worker.agent.agent import run_agent
from runner.worker.process import children_of
from runner.worker.zygote import CLOSE_S, Zygote, ZygoteServer, log_to_stderr, write_to


class CloudZygote(Zygote):
    """The simulator's handle on the process that forks."""

    @classmethod
    def fork_for_cloud(cls) -> Self:
        """As `Zygote.fork`."""
        return cls.fork(CloudServer)

    async def start(
        self,
        name: MachineId,
        program: AgentProgram | CommandProgram,
        *,
        tag: ClusterId,
        env: Mapping[str, str],
        log_path: str,
    ) -> int:
        """Fork the program in a session of its own; its pid. OSError as in `boot`."""
        packed: dict[str, Any] = {"name": name, "tag": tag, "env": dict(env), "log_path": log_path}
        if isinstance(program, AgentProgram):
            packed["boot"] = program.boot.to_dict()
        else:
            packed |= {"argv": list(program.argv), "memory_folder": program.memory_folder}
        return await self._ask_for(name, packed)


class CloudServer(ZygoteServer):
    """Machines keep their leases, drain on the first signal, and yet none outlives this process, nor what it had in shared memory."""

    def __init__(self, control: socket.socket, life_fd: int) -> None:
        super().__init__(control, life_fd)
        self._memory_folders: set[str] = set()

    def boot(self, packed: Mapping[str, Any]) -> None:
        name = MachineId(packed["name"])
        life_fd = self.life_fd
        if folder := packed.get("memory_folder"):
            self._memory_folders.add(folder)

        def body(ours: socket.socket, theirs: socket.socket) -> None:
            _be_machine(packed, ours, theirs, life_fd)

        self.fork_machine(name, (packed["tag"], name), body, is_embedded=True)

    def end_children(self, elapsed_s: float) -> bool:
        """SIGKILL, since a frozen machine would hear nothing else; what its processes leave lands here, and ends too.

        Their memory is freed here: the simulator may have been killed, and nobody but this process sees them all dead.
        """
        children = children_of(os.getpid())
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if children and elapsed_s < CLOSE_S:
            return True
        for folder in self._memory_folders:
            shutil.rmtree(folder, ignore_errors=True)
        return False


def _be_machine(packed: Mapping[str, Any], ours: socket.socket, theirs: socket.socket, life_fd: int) -> None:
    os.setsid()
    ours.close()
    tag_this_process(ClusterId(packed["tag"]), MachineId(packed["name"]))
    write_to(packed["log_path"])
    os.environ.update(packed["env"])  # noqa: TID251  written, not read: the machine's own
    if "argv" in packed:
        os.execvpe(packed["argv"][0], packed["argv"], os.environ)  # noqa: TID251  handed on
    log_to_stderr()
    boot = replace(BootConfig.from_dict(packed["boot"]), embedded=False)
    sys.exit(run_agent(boot, life_fd, theirs, is_own_process=True))
