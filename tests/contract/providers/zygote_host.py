"""The shipped zygote as a process of its own: a test process has long had threads and event loops, and cannot fork one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from runner.ids import MachineId
from runner.providers.base import BootConfig
from runner.worker.zygote import Zygote

_BE_ZYGOTE = """
import socket, sys
from runner.worker.zygote import _be_zygote
_be_zygote(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
"""


class LentZygote:
    """One zygote for many providers: `close` only takes it out of the event loop."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote

    def attach(self, on_exit: Callable[[MachineId, int], None], on_lost: Callable[[], None]) -> None:
        self._zygote.attach(on_exit, on_lost)

    async def boot(self, boot: BootConfig) -> int:
        return await self._zygote.boot(boot)

    def close(self) -> None:
        assert self._zygote._loop is not None
        self._zygote._loop.remove_reader(self._zygote.sock)


@contextmanager
def running_zygote() -> Iterator[Zygote]:
    """A zygote that ends with the block."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    life_read, life_write = os.pipe()
    fds = (theirs.fileno(), life_read)
    process = subprocess.Popen([sys.executable, "-c", _BE_ZYGOTE, *map(str, fds)], pass_fds=fds)
    theirs.close()
    os.close(life_read)
    ours.setblocking(False)
    zygote = Zygote(ours, life_write, process.pid)
    try:
        yield zygote
    finally:
        zygote.close()
        process.wait()
