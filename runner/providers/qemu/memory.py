"""Saving a running guest's memory to a file and resuming it, over QEMU's control socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from runner.providers.qemu import snapshot
from runner.providers.qemu.command import Build
from runner.providers.qemu.qmp import Qmp, QmpError, connected

log = logging.getLogger(__name__)

_POLL_S = 0.01
# Memory at the pace of a slow disk, and what a busy one adds.
_BYTES_PER_S_MIN = 20 << 20
_SPARE_S = 30.0
_UNLIMITED = 1 << 40  # bytes/s; QEMU's own limit, for a network, is 128 MiB/s


class MemoryNotSaved(Exception):
    """A guest's memory could not be saved, and it goes on; says why."""


class MemoryNotResumed(Exception):
    """A guest's memory could not be resumed; says why."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a save took."""

    size_bytes: int
    took_s: float


async def save(control: Path, folder: Path, build: Build, *, to_file: bool) -> Saved:
    """Stop the guest and write its memory to a snapshot in `folder`. Afterwards it must not run on.

    `to_file`: see `Host.takes_file_addresses`.

    Raises:
        MemoryNotSaved: it was not written completely; the guest goes on, and nothing is left of the file.
    """
    begin_s = time.monotonic()
    try:
        async with connected(control) as qmp:
            await qmp.execute("stop")
            try:
                size_bytes = await _write(qmp, folder, build, to_file=to_file)
            except BaseException:
                snapshot.discard(folder)  # before the guest goes on: a memory that was left behind is no snapshot
                await _go_on(qmp)
                raise
    except (QmpError, OSError) as error:
        raise MemoryNotSaved(_in_words(error)) from None
    return Saved(size_bytes, time.monotonic() - begin_s)


async def _write(qmp: Qmp, folder: Path, build: Build, *, to_file: bool) -> int:
    with snapshot.writing(folder) as fd:
        if to_file:
            address = f"file:{folder / snapshot.PARTIAL},offset={snapshot.HEADER_BYTES}"
        else:
            await qmp.give("memory", fd)
            address = "fd:memory"
        await qmp.execute("migrate-set-parameters", **{"max-bandwidth": _UNLIMITED})
        await qmp.execute("migrate", uri=address)
        limit_s = _SPARE_S + (build.memory_mib << 20) / _BYTES_PER_S_MIN
        try:
            async with asyncio.timeout(limit_s):
                await _written(qmp)
        except TimeoutError:
            raise QmpError(f"its memory was not written within {limit_s:.0f} s") from None
        return await _finish(folder, fd, build)


async def _finish(folder: Path, fd: int, build: Build) -> int:
    """As `snapshot.finish`. A caller that gives up waits as well: the thread goes on, with the descriptor."""
    finishing = asyncio.ensure_future(asyncio.to_thread(snapshot.finish, folder, fd, build))
    try:
        return await asyncio.shield(finishing)
    except asyncio.CancelledError:
        await asyncio.wait([finishing])
        raise


async def _written(qmp: Qmp) -> None:
    while True:
        said = await qmp.execute("query-migrate")
        if said.get("status") == "completed":
            return
        if said.get("status") in ("failed", "cancelled"):
            raise QmpError(f"writing its memory failed: {said.get('error-desc') or 'QEMU does not say why'}")
        await asyncio.sleep(_POLL_S)


async def _go_on(qmp: Qmp) -> None:
    with contextlib.suppress(QmpError):
        await qmp.execute("migrate_cancel")
    try:
        await qmp.execute("cont")
    except QmpError as error:
        log.warning("a guest does not go on after its memory could not be saved: %s", error)


async def run_on(control: Path, ended: asyncio.Future[str], build: Build) -> None:
    """Wait until QEMU has loaded the memory that it was started with, and let the guest go on.

    Raises:
        MemoryNotResumed: it could not load it.
    """
    limit_s = _SPARE_S + (build.memory_mib << 20) / _BYTES_PER_S_MIN
    try:
        async with asyncio.timeout(limit_s):
            while True:
                with contextlib.suppress(QmpError):
                    async with connected(control) as qmp:
                        if (await qmp.execute("query-status"))["status"] != "inmigrate":
                            await qmp.execute("cont")
                            return
                if ended.done():
                    raise MemoryNotResumed("QEMU could not load the memory, and ended")
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise MemoryNotResumed(f"QEMU did not load the memory within {limit_s:.0f} s") from None


async def wake(control: Path) -> bool:
    """Let a guest go on that a coordinator has stopped and did not live to let go on. Whether it had to be.

    Raises:
        QmpError: QEMU does not answer.
    """
    async with connected(control) as qmp:
        if (await qmp.execute("query-status"))["status"] == "running":
            return False
        await _go_on(qmp)
        return True


def _in_words(error: QmpError | OSError) -> str:
    return f"{error.strerror}" if isinstance(error, OSError) and error.strerror else str(error)
