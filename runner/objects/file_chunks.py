"""Files that leave and arrive in checked chunks. Reading, writing and hashing run in threads, one chunk ahead of the network."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import zlib
from collections.abc import AsyncGenerator, Callable
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from runner.errors import ProtocolViolationError, StoreFullError
from runner.objects import spill

CHUNK_BYTES = 1 << 20
P = ParamSpec("P")
T = TypeVar("T")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `asyncio.to_thread`, but a caller that is cancelled waits for the thread: it may be using a descriptor of ours."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


class OutgoingFile:
    """A file that leaves in chunks: `async with` opens it, the next chunk is read while the one before is on its way.

    Raises:
        OSError: it cannot be opened; a symbolic link is followed only where its store has spilled it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._ahead: asyncio.Future[tuple[bytes, int]] | None = None
        self._digest = hashlib.sha256()

    async def __aenter__(self) -> Self:
        self._fd = await in_thread(_open, self._path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._ahead is not None:
            await asyncio.wait([self._ahead])
        os.close(self._fd)

    @property
    def sha256(self) -> str:
        """Of what `chunks` gave."""
        return self._digest.hexdigest()

    async def chunks(self, start: int, stop: int) -> AsyncGenerator[tuple[bytes, int], None]:
        """Bytes from `start` to `stop`, or to the end if that comes before, with their crc32."""
        position = start
        self._read_ahead(position, stop)
        while self._ahead is not None:
            data, crc32 = await asyncio.shield(self._ahead)
            self._ahead = None
            if not data:
                return
            position += len(data)
            self._read_ahead(position, stop)
            yield data, crc32

    def _read_ahead(self, position: int, stop: int) -> None:
        if position < stop:
            size_bytes = min(CHUNK_BYTES, stop - position)
            self._ahead = asyncio.ensure_future(asyncio.to_thread(self._read, position, size_bytes))

    def _read(self, position: int, size_bytes: int) -> tuple[bytes, int]:
        data = os.pread(self._fd, size_bytes, position)
        self._digest.update(data)
        return data, zlib.crc32(data)


def _open(path: str) -> int:
    """Follows no symbolic link but that of a store to its own folder on disk."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except OSError as error:
        bounds = spill.read_bounds(os.path.dirname(path)) if error.errno == errno.ELOOP else None
        if bounds is None:
            raise
        target = os.readlink(path)
        if os.path.dirname(target) != bounds.folder:
            raise
        return os.open(target, flags)


class IncomingFile:
    """`async with` makes room for it; without `publish` nothing of it stays.

    Raises:
        StoreFullError: no space, or less than `reserve_bytes` would be left.
    """

    def __init__(
        self, path: str, total_bytes: int, *, what: str, reserve_bytes: int = 0, is_hashed: bool = False
    ) -> None:
        """`what` names it in messages. `is_hashed`: `finish` is given a digest to compare with."""
        self.path = path
        self.total_bytes = total_bytes
        self._what = what
        self._reserve_bytes = reserve_bytes
        self._target = path  # elsewhere when its store has no room in memory
        self._building = f"{path}.tmp"
        self.position = 0  # bytes that are there
        self._is_hashed = is_hashed
        self._digest = hashlib.sha256()
        self._fd = -1
        self._writing: asyncio.Future[None] | None = None  # the chunk before

    async def __aenter__(self) -> Self:
        try:
            await in_thread(self._reserve)
        except BaseException as error:
            self._drop()
            raise self._typed(error) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])  # it uses our descriptor
        self._drop()
        if isinstance(error, OSError):
            raise self._typed(error) from error

    async def add(self, data: bytes, crc32: int) -> None:
        """Append one chunk; returns while it is being written.

        Raises, for this chunk or the one before:
            ProtocolViolationError: it is damaged, or more than was announced.
        """
        if self.position + len(data) > self.total_bytes:
            raise ProtocolViolationError(f"{self._what} goes beyond the announced {self.total_bytes} bytes")
        await self._written()
        self._writing = asyncio.ensure_future(asyncio.to_thread(self._write, data, crc32, self.position))
        self.position += len(data)

    async def finish(self, sha256: str = "") -> None:
        """Nothing more comes.

        Raises:
            ProtocolViolationError: bytes are missing, or it is not what was sent.
        """
        await self._written()
        if self.position != self.total_bytes:
            raise ProtocolViolationError(f"{self._what} ended after {self.position} of {self.total_bytes} bytes")
        if self._is_hashed and self._digest.hexdigest() != sha256:
            raise ProtocolViolationError(f"{self._what} arrived with another digest than it was sent with")

    async def resumed(self) -> None:
        """Another stream goes on at `position`; its digest is of what it brings itself."""
        await self._written()
        self._digest = hashlib.sha256()

    def rewind(self) -> None:
        """What came is wrong: begin again."""
        self.position = 0

    def publish(self) -> None:
        """From now on it is there under its name."""
        os.rename(self._building, self._target)
        if self._target != self.path:
            spill.adopt(self.path, self._target)

    def _reserve(self) -> None:
        folder = os.path.dirname(self.path)
        bounds = spill.read_bounds(folder)
        if bounds is not None:
            self._target = spill.place(self.path, self.total_bytes, bounds)
            self._building = f"{self._target}.tmp"
        if self._reserve_bytes and shutil.disk_usage(folder).free - self.total_bytes < self._reserve_bytes:
            raise OSError(errno.ENOSPC, "the rest is reserved")
        self._fd = os.open(self._building, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if self.total_bytes:
            # A full tmpfs says so here, not by SIGBUS at some later access.
            os.posix_fallocate(self._fd, 0, self.total_bytes)

    async def _written(self) -> None:
        if self._writing is not None:
            await asyncio.shield(self._writing)
            self._writing = None

    def _write(self, data: bytes, crc32: int, position: int) -> None:
        if zlib.crc32(data) != crc32:
            raise ProtocolViolationError(f"{self._what} is damaged after byte {position}")
        if self._is_hashed:
            self._digest.update(data)
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, position)
            position += written
            view = view[written:]

    def _drop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        with contextlib.suppress(OSError):  # published: it is not there any more
            os.unlink(self._building)

    def _typed(self, error: BaseException) -> BaseException:
        if not isinstance(error, OSError) or error.errno not in _FULL:
            return error
        return StoreFullError(
            f"{os.path.dirname(self.path)} has no room for {self._what} ({self.total_bytes} bytes); drop refs that are no"
            " longer needed, free space there or give the host more"
        )
