"""Forks machines that are small scripts, so that a test decides how a machine behaves; the processes are real."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable

from runner.ids import MachineId
from runner.providers.base import BootConfig

_PRELUDE = """
import os, signal, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
os.setsid()
from runner.providers.process_tag import tag_this_process
tag_this_process(sys.argv[1], sys.argv[2])
print(sys.argv[2], "is up", flush=True)
"""
WELL_BEHAVED = "signal.sigwait([signal.SIGTERM])"
IGNORES_SIGTERM = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\nwhile True: signal.pause()"
LEAVES_CHILDREN = """
for kwargs in ({}, {"start_new_session": True}):
    child = subprocess.Popen([sys.executable, "-c", "import signal; print('child', flush=True); signal.pause()"], stdout=subprocess.PIPE, **kwargs)
    child.stdout.readline()
if os.fork() == 0:
    while True: signal.pause()
print('deaf', flush=True)
signal.sigwait([signal.SIGTERM])
"""


class ScriptForker:
    """Keeps the promises of runner.providers.local.Forker."""

    def __init__(self, script: str = WELL_BEHAVED) -> None:
        self.script = script
        self.children: dict[MachineId, subprocess.Popen[bytes]] = {}
        self.is_broken = False
        self._on_exit: Callable[[MachineId, int], None] | None = None
        self.on_lost: Callable[[], None] | None = None

    def attach(self, on_exit: Callable[[MachineId, int], None], on_lost: Callable[[], None]) -> None:
        self._on_exit = on_exit
        self.on_lost = on_lost

    async def boot(self, boot: BootConfig) -> int:
        if self.is_broken:
            raise OSError("out of processes")
        with open(boot.log_path, "ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-c", _PRELUDE + self.script, boot.cluster_id, boot.machine_id], stdout=log, stderr=log
            )
        self.children[boot.machine_id] = child
        handle = os.pidfd_open(child.pid)
        asyncio.get_running_loop().add_reader(handle, self._reap, boot.machine_id, child, handle)
        await self._until_it_says(boot.log_path, f"{boot.machine_id} is up")
        if "deaf" in self.script:
            await self._until_it_says(boot.log_path, "deaf")
        return child.pid

    def close(self) -> None:
        for child in self.children.values():
            assert child.returncode is not None, "a machine outlived its provider"

    def _reap(self, name: MachineId, child: subprocess.Popen[bytes], handle: int) -> None:
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        code = child.wait()
        if self._on_exit is not None:
            self._on_exit(name, code << 8 if code >= 0 else -code)

    async def _until_it_says(self, path: str, line: str) -> None:
        async with asyncio.timeout(10):
            while True:
                with open(path) as log:
                    if line in log.read():
                        return
                await asyncio.sleep(0)
