"""Starting QEMU for a machine, until it takes commands."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path

from runner.providers.qemu import process
from runner.providers.qemu.command import arguments
from runner.providers.qemu.folder import CONTROL, MachineFolder, Made
from runner.providers.qemu.host import Host
from runner.providers.qemu.image import VmImage
from runner.providers.qemu.process import QemuProcess
from runner.providers.qemu.qmp import QmpError, connected
from runner.providers.qemu.snapshot import HEADER_BYTES
from runner.providers.registry import Place

_STARTS_S = 30.0
_POLL_S = 0.01


class NotStarted(Exception):
    """QEMU does not run; says why. Its own words are in the machine's log."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts machines of one cluster on this host; `log`: where the one at hand writes to."""

    place: Place
    host: Host
    image: VmImage
    log: Path

    async def launch(self, made: Made, folder: MachineFolder, fd: int | None) -> QemuProcess:
        """Cold, or with the memory that `fd` holds, which then waits for `memory.run_on`.

        Raises:
            NotStarted: it ended at once, or does not take commands; nothing runs.
            OSError: a file cannot be written, or a program cannot be started.
        """
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.control.unlink(missing_ok=True)
        command = [self.host.qemu, *arguments(made.build, self.image, folder.boot_file, CONTROL)]
        if fd is not None:
            command += ["-incoming", self._source(fd)]
        running = QemuProcess(
            process.start(
                command,
                (self.place.cluster_id, made.name),
                folder.path,
                self.log,
                fds=() if fd is None else (fd,),
                # A standing coordinator comes back for its machines; an embedded one does not.
                dies_with_us=self.place.embedded,
            )
        )
        try:
            await _takes_commands(folder.control, running.ended)
        except BaseException:
            await running.kill()
            raise
        return running

    def _source(self, fd: int) -> str:
        if self.host.takes_file_addresses:
            return f"file:/proc/self/fd/{fd},offset={HEADER_BYTES}"
        return f"fd:{fd}"  # read from where it stands


async def _takes_commands(control: Path, ended: asyncio.Future[str]) -> None:
    """Wait for that: then its command line was good, and it has what it needs."""
    try:
        async with asyncio.timeout(_STARTS_S):
            while True:
                with contextlib.suppress(QmpError):
                    async with connected(control):
                        return
                if ended.done():
                    raise NotStarted(f"QEMU {ended.result()} at once")
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise NotStarted(f"QEMU does not take commands, {_STARTS_S:g} s after it was started") from None
