"""Keeps an object store within its bound: segments that were opened least recently move to disk.

Whoever writes makes room, for all, under one lock. A segment that moves keeps its path: the file there is exchanged, in one
step, for a symbolic link to the copy on disk, so that whoever has the path opens the copy and whoever has it mapped notices
nothing. The bound is on files: memory of a segment that somebody still has mapped is given back when they let go.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from typing import NamedTuple

from runner.errors import StoreFullError

MEMORY_SHARE = 0.3  # of the host's memory, as in Ray; tasks can ask for the rest
SETTINGS_NAME = ".bounds.json"  # in the store's folder; names with a dot are no segments
# A segment that is being written has this behind its name, and is locked by its writer.
UNFINISHED = ".writing.tmp"
_LOCK_NAME = ".room"
_LINK = ".link-"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_libc = ctypes.CDLL(None, use_errno=True)


class Bounds(NamedTuple):
    """How much a store may hold in memory, and where the rest goes."""

    bytes_max: int
    folder: str  # on disk
    disk_reserve_bytes: int = 0  # what must stay free there


def default_bytes_max(store_path: str) -> int:
    """30 % of the host's memory, as in Ray, and at most 80 % of the file system that the store is on."""
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    there = os.statvfs(store_path)
    return min(int(memory_bytes * MEMORY_SHARE), int(there.f_blocks * there.f_frsize * 0.8))


def set_bounds(store_path: str, bounds: Bounds) -> None:
    """Say how much the store may hold; for all processes that open it from now on."""
    os.makedirs(bounds.folder, mode=0o700, exist_ok=True)
    path = os.path.join(store_path, SETTINGS_NAME)
    with open(f"{path}.tmp", "w", encoding="utf-8") as file:
        json.dump(bounds._asdict(), file)
    os.replace(f"{path}.tmp", path)


def read_bounds(store_path: str) -> Bounds | None:
    """None: the store has no bound but that of its disk."""
    try:
        with open(os.path.join(store_path, SETTINGS_NAME), encoding="utf-8") as file:
            return Bounds(**json.load(file))
    except FileNotFoundError:
        return None


def place(path: str, size_bytes: int, bounds: Bounds) -> str:
    """Make room for a segment at `path`; returns where to write it: there, or on disk when it is larger than the store.

    A segment that was written elsewhere gets its path by `adopt`.

    Raises:
        StoreFullError: neither memory nor disk has room.
    """
    store_path = os.path.dirname(path)
    if size_bytes > bounds.bytes_max:
        return _on_disk(path, size_bytes, bounds)
    with _locked(store_path):
        excess_bytes = sum(size for _, size, _ in _segments(store_path)) + size_bytes - bounds.bytes_max
        if excess_bytes > 0:
            _spill(store_path, excess_bytes, bounds)
    return path


def place_on_full(path: str, size_bytes: int, bounds: Bounds) -> str:
    """The memory had no room although the bound is not reached: where to write instead.

    Raises:
        StoreFullError: the disk has no room either.
    """
    return _on_disk(path, size_bytes, bounds)


def adopt(path: str, written: str) -> None:
    """Give what was written on disk its path in the store."""
    os.symlink(written, path)


def remove(path: str) -> None:
    """Remove a segment wherever it lies; one that is gone is fine. Safe while another process moves it."""
    folder, name = os.path.split(path)
    gone = os.path.join(folder, f".gone-{name}-{secrets.token_hex(4)}")
    try:
        os.rename(path, gone)
    except FileNotFoundError:
        return
    with contextlib.suppress(OSError):
        os.unlink(os.readlink(gone))  # raises for a segment in memory
    with contextlib.suppress(FileNotFoundError):
        os.unlink(gone)


def clear(store_path: str) -> None:
    """Remove a store with all that it has on disk."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        bounds = read_bounds(store_path)
        if bounds is not None:
            shutil.rmtree(bounds.folder, ignore_errors=True)
    shutil.rmtree(store_path, ignore_errors=True)


def _segments(store_path: str) -> list[tuple[float, int, str]]:
    """(last opened, bytes, path) of each segment in a folder, those that are being written included."""
    found = []
    with os.scandir(store_path) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime, status.st_blocks * 512, entry.path))
    return found


def _sweep(store_path: str, bounds: Bounds) -> int:
    """Remove what processes have left that were killed while they wrote or moved a segment; returns how many bytes of
    memory that were.
    """
    swept_bytes = 0
    for folder in (store_path, bounds.folder):
        for _, size_bytes, path in _segments(folder):
            if path.endswith(UNFINISHED) and size_bytes and not _has_writer(path):
                remove(path)
                swept_bytes += size_bytes * (folder == store_path)
    for name in os.listdir(store_path):
        if name.startswith(_LINK):  # whoever moves holds the lock that we have
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(store_path, name))
    return swept_bytes


def _has_writer(path: str) -> bool:
    """Whether its writer lives. It has the lock before the file has any bytes."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # it is whole now
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return not os.path.samestat(os.fstat(fd), os.lstat(path))
    except (BlockingIOError, FileNotFoundError):
        return True
    finally:
        os.close(fd)


def _spill(store_path: str, wanted_bytes: int, bounds: Bounds) -> None:
    wanted_bytes -= _sweep(store_path, bounds)
    if wanted_bytes <= 0:
        return
    for _, size_bytes, path in sorted(_segments(store_path)):
        if path.endswith(".tmp"):  # is being written
            continue
        _check_disk(path, size_bytes, bounds)
        if _move(path, bounds):
            wanted_bytes -= size_bytes
        if wanted_bytes <= 0:
            return


def _move(path: str, bounds: Bounds) -> bool:
    """Move one segment to disk; False: it was freed meanwhile."""
    copy = os.path.join(bounds.folder, os.path.basename(path))
    link = os.path.join(os.path.dirname(path), f"{_LINK}{secrets.token_hex(8)}")
    try:
        shutil.copyfile(path, copy)
        os.symlink(copy, link)
        _exchange(link, path)
    except BaseException as error:
        for each in (copy, link):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each)
        if isinstance(error, FileNotFoundError):
            return False
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _full(path, os.path.getsize(path), bounds) from error
        raise
    os.unlink(link)  # now the file that was in memory
    return True


def _exchange(one: str, other: str) -> None:
    if _libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        if number == errno.ENOENT:
            raise FileNotFoundError(number, os.strerror(number), other)
        raise OSError(number, os.strerror(number), other)


def _on_disk(path: str, size_bytes: int, bounds: Bounds) -> str:
    _check_disk(path, size_bytes, bounds)
    return os.path.join(bounds.folder, os.path.basename(path))


def _check_disk(path: str, size_bytes: int, bounds: Bounds) -> None:
    free = os.statvfs(bounds.folder)
    if free.f_bavail * free.f_frsize < size_bytes + bounds.disk_reserve_bytes:
        raise _full(path, size_bytes, bounds)


def _full(path: str, size_bytes: int, bounds: Bounds) -> StoreFullError:
    free = os.statvfs(bounds.folder)
    return StoreFullError(
        f"The object store {os.path.dirname(path)} is full (its bound is {bounds.bytes_max} bytes), and {bounds.folder}"
        f" has no room for {size_bytes} bytes more: {free.f_bavail * free.f_frsize} are free there, of which"
        f" {bounds.disk_reserve_bytes} are kept in reserve. Drop refs that are no longer needed, free space on that"
        " disk, or raise object_store_memory."
    )


@contextlib.contextmanager
def _locked(store_path: str) -> Iterator[None]:
    fd = os.open(os.path.join(store_path, _LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
