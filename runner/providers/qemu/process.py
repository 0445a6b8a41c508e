"""QEMU processes: started, watched, and ended for sure."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from runner.ids import ClusterId, MachineId
from runner.providers.machine_log import describe_status
from runner.providers.process_tag import Process, find_process, send_signal, tag_environment


class QemuProcess:
    """One running QEMU, watched by this event loop. `ended` says how, once it has."""

    def __init__(self, process: Process) -> None:
        """`process`: one that `start` has started, or of an earlier coordinator.

        Raises:
            ProcessLookupError: it has ended, and was waited for.
        """
        self.process = process
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = self._loop.create_future()
        self._handle = os.pidfd_open(process.pid)
        self._loop.add_reader(self._handle, self._has_ended)

    async def kill(self) -> None:
        """End it at once; returns when it has ended."""
        if not self.ended.done():
            send_signal(self.process, signal.SIGKILL)
            await asyncio.wait([self.ended])

    def let_go(self) -> None:
        """Stop watching; it runs on. Idempotent."""
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

    def _has_ended(self) -> None:
        self.let_go()
        self.ended.set_result(reap(self.process.pid))


def start(
    command: Sequence[str],
    tag: tuple[ClusterId, MachineId],
    folder: Path,
    log: Path,
    *,
    fds: Sequence[int] = (),
    dies_with_us: bool,
) -> Process:
    """Start QEMU with `folder` as its working directory; what it and its guest write goes to `log`. It inherits `fds`.

    `dies_with_us`: the kernel kills it when the thread that calls this dies, however that happens.

    Raises:
        OSError: it cannot be started.
    """
    # By `env`: so the tag is added, and nothing else of the environment changes.
    prefix = ["env", *(f"{name}={value}" for name, value in tag_environment(*tag).items())]
    if dies_with_us:
        prefix += ["setpriv", "--pdeathsig", "KILL"]
    with log.open("ab") as output:
        child = subprocess.Popen(
            [*prefix, *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=tuple(fds),
            start_new_session=True,  # Ctrl-C in a terminal is for the client
        )
    # It may outlive this process, which is no mistake that the destructor should report; `QemuProcess` waits for it.
    child.returncode = 0
    # Until then it keeps its pid, also when it has ended at once.
    return find_process(child.pid) or Process(child.pid, start_ticks=0, session=child.pid, state="Z")


def reap(pid: int) -> str:
    """Wait for a process that has ended or is about to; how it ended, in words."""
    try:
        return describe_status(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return "ended; its exit status is not known"  # an earlier coordinator has started it
