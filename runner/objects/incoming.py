"""A file that arrives in checked chunks: reserved first, under another name until it is whole. File work runs in threads."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from runner.errors import ProtocolViolationError, StoreFullError

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


def read_chunk(fd: int, start: int) -> tuple[bytes, int]:
    """At most CHUNK_BYTES from `start` on, and their crc32; in a thread."""
    data = os.pread(fd, CHUNK_BYTES, start)
    return data, zlib.crc32(data)


def read_hashed(fd: int, start: int, digest: hashlib._Hash) -> tuple[bytes, int]:
    """As `read_chunk`; the digest takes it in."""
    data, crc32 = read_chunk(fd, start)
    digest.update(data)
    return data, crc32


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
        self._building = f"{path}.tmp"
        self.position = 0  # bytes that are there
        self._is_hashed = is_hashed
        self._digest = hashlib.sha256()
        self._fd = -1

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
        self._drop()
        if isinstance(error, OSError):
            raise self._typed(error) from error

    async def add(self, data: bytes, crc32: int) -> None:
        """Append one chunk.

        Raises:
            ProtocolViolationError: it is damaged, or more than was announced.
        """
        if self.position + len(data) > self.total_bytes:
            raise ProtocolViolationError(f"{self._what} goes beyond the announced {self.total_bytes} bytes")
        await in_thread(self._write, data, crc32)
        self.position += len(data)

    def finish(self, sha256: str = "") -> None:
        """Nothing more comes.

        Raises:
            ProtocolViolationError: bytes are missing, or it is not what was sent.
        """
        if self.position != self.total_bytes:
            raise ProtocolViolationError(f"{self._what} ended after {self.position} of {self.total_bytes} bytes")
        if self._is_hashed and self._digest.hexdigest() != sha256:
            raise ProtocolViolationError(f"{self._what} arrived with another digest than it was sent with")

    def resumed(self) -> None:
        """Another stream goes on at `position`; its digest is of what it brings itself."""
        self._digest = hashlib.sha256()

    def rewind(self) -> None:
        """What came is wrong: begin again."""
        self.position = 0

    def publish(self) -> None:
        """From now on it is there under its name."""
        os.rename(self._building, self.path)

    def _reserve(self) -> None:
        folder = os.path.dirname(self.path)
        if self._reserve_bytes and shutil.disk_usage(folder).free - self.total_bytes < self._reserve_bytes:
            raise OSError(errno.ENOSPC, "the rest is reserved")
        self._fd = os.open(self._building, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        if self.total_bytes:
            # A full tmpfs says so here, not by SIGBUS at some later access.
            os.posix_fallocate(self._fd, 0, self.total_bytes)

    def _write(self, data: bytes, crc32: int) -> None:
        if zlib.crc32(data) != crc32:
            raise ProtocolViolationError(f"{self._what} is damaged after byte {self.position}")
        if self._is_hashed:
            self._digest.update(data)
        view, position = memoryview(data), self.position
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
