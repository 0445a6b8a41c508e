"""Values in shared memory: one file each, written once, read by private mappings, never changed or reused."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import secrets
from collections.abc import Iterator

from runner.errors import ObjectLostError, StoreFullError
from runner.objects import spill
from runner.objects.serialization import Serialized

_IOV_MAX = 512  # below every Linux limit (1024)


class Store:
    """A directory of segments on this host, usually under /dev/shm."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._bounds = spill.read_bounds(path)

    def write(self, object_id: str, serialized: Serialized) -> tuple[str, int]:
        """Write one value; returns its path and size in bytes.

        The name is unique, so two attempts of one task never meet.

        What is too much for memory goes to disk, see `runner.objects.spill`.

        Raises:
            StoreFullError: no space is left; nothing stays behind.
        """
        path = os.path.join(self.path, f"{object_id}-{secrets.token_hex(4)}")
        write_within(self._bounds, path, serialized)
        return path, serialized.total_bytes


def write_within(bounds: spill.Bounds | None, path: str, serialized: Serialized) -> None:
    """Write one value to `path` of a store with these bounds.

    Raises:
        StoreFullError: no space is left; nothing stays behind.
    """
    if bounds is None:
        write_segment(path, serialized)
        return
    size_bytes = serialized.total_bytes
    target = spill.place(path, size_bytes, bounds)
    try:
        write_segment(target, serialized)
    except StoreFullError:
        if target != path:
            raise
        target = spill.place_on_full(path, size_bytes, bounds)
        write_segment(target, serialized)
    if target != path:
        spill.adopt(path, target)


def write_segment(path: str, serialized: Serialized) -> None:
    """Write one value to `path`, whole or not at all.

    Raises:
        StoreFullError: no space is left; nothing stays behind.
    """
    building = f"{path}{spill.UNFINISHED}"
    try:
        fd = os.open(building, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # until it is closed: where nobody has it, the writer was killed
            # First reserve: a store that is full says so here, not by a signal at some later write.
            os.posix_fallocate(fd, 0, serialized.total_bytes)
            _write_all(fd, serialized)
            os.rename(building, path)
        finally:
            os.close(fd)
    except BaseException as error:
        _unlink_quietly(building)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM):
            raise _full(path, serialized.total_bytes) from error
        raise


def _full(path: str, size_bytes: int) -> StoreFullError:
    folder, name = os.path.split(path)
    try:
        free = os.statvfs(folder)
        free_bytes = free.f_bavail * free.f_frsize
    except OSError:
        free_bytes = 0
    return StoreFullError(
        f"The object store {folder} has no room for {name.rpartition('-')[0]}: it needs {size_bytes} bytes,"
        f" {free_bytes} are free. Drop refs that are no longer needed or give the host more shared memory."
    )


def open_segment(path: str, size_bytes: int) -> memoryview:
    """Map one segment. The mapping is private: writes to it never reach the segment.

    Raises:
        ObjectLostError: the file is gone or shorter than it was.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise ObjectLostError(f"The segment {path} is gone.") from error
    try:
        os.utime(fd)  # what was opened least recently is the first to leave memory
        seen_bytes = os.fstat(fd).st_size
        if seen_bytes < size_bytes:
            raise ObjectLostError(f"The segment {path} has {seen_bytes} bytes instead of {size_bytes}.")
        return memoryview(mmap.mmap(fd, size_bytes, access=mmap.ACCESS_COPY))
    finally:
        os.close(fd)


def _write_all(fd: int, serialized: Serialized) -> None:
    """writev, not a mapping: the kernel copies without page faults and without the interpreter lock."""
    pending: list[memoryview] = []
    for chunk in serialized.chunks():
        view = memoryview(chunk)
        if view.nbytes:
            pending.append(view.cast("B") if view.format != "B" or view.ndim != 1 else view)
        if len(pending) >= _IOV_MAX:
            _flush(fd, pending)
            pending = []
    _flush(fd, pending)


def _flush(fd: int, pending: list[memoryview]) -> None:
    views: Iterator[memoryview] = iter(pending)
    queue = list(views)
    while queue:
        written = os.writev(fd, queue)
        while queue and written >= queue[0].nbytes:
            written -= queue[0].nbytes
            queue.pop(0)
        if written:
            queue[0] = queue[0][written:]


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
