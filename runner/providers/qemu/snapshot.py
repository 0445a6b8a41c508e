"""The file that holds a machine's memory: written whole or not at all, and used at most once.

It begins with a block of 4 KiB that says what it is; QEMU's own stream follows. A file that is not complete never has
the final name: the memory goes to a name of its own, the block is written last, and then it is renamed. To resume, the
file is opened and its name removed before any guest runs on it: after a crash at any point there is a whole snapshot
that nobody has used, or none.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.providers.qemu.command import Build

HEADER_BYTES = 4096
_MAGIC = b"runner snapshot 1\n"
PARTIAL = "snapshot.partial"
_NAME = "snapshot"


class SnapshotError(Exception):
    """A snapshot cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a snapshot without loading it."""

    build: Build
    size_bytes: int  # of the whole file
    saved_unix_s: float


def exists(folder: Path) -> bool:
    """Whether a machine has a snapshot that nobody has used."""
    return (folder / _NAME).exists()


def discard(folder: Path) -> None:
    """Remove what there is, also what was not finished. Idempotent."""
    for name in (_NAME, PARTIAL):
        (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[int]:
    """A descriptor for the memory, at the place where it begins. Nothing is left when the block fails.

    `finish` makes it a snapshot.
    """
    path = folder / PARTIAL
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.lseek(fd, HEADER_BYTES, os.SEEK_SET)
        yield fd
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def finish(folder: Path, fd: int, build: Build) -> int:
    """Give a complete memory its header and its name, durably; returns the size in bytes. Blocks until it is on disk."""
    size_bytes = os.fstat(fd).st_size
    said = {"build": build.to_dict(), "size_bytes": size_bytes, "saved_unix_s": time.time()}
    os.pwrite(fd, (_MAGIC + json.dumps(said).encode()).ljust(HEADER_BYTES, b"\0"), 0)
    os.fsync(fd)
    os.rename(folder / PARTIAL, folder / _NAME)
    _sync_folder(folder)
    return size_bytes


@contextlib.contextmanager
def consuming(folder: Path, build: Build) -> Iterator[int]:
    """A descriptor of the snapshot's memory, which has no name any more: it is used here or never.

    Raises:
        SnapshotError: there is none, it is truncated, or it belongs to another build. It is gone.
    """
    try:
        fd = os.open(folder / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SnapshotError("there is no snapshot of it") from None
    try:
        discard(folder)
        _sync_folder(folder)
        _check(read_header(fd), os.fstat(fd).st_size, build)
        os.lseek(fd, HEADER_BYTES, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def read_header(fd: int) -> Header:
    """What a snapshot says of itself.

    Raises:
        SnapshotError: it is none, or one of another version.
    """
    block = os.pread(fd, HEADER_BYTES, 0)
    if not block.startswith(_MAGIC):
        raise SnapshotError("the file is no snapshot of this version of runner")
    try:
        said = json.loads(block[len(_MAGIC) :].rstrip(b"\0"))
        return Header(Build.from_dict(said["build"]), int(said["size_bytes"]), float(said["saved_unix_s"]))
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotError(f"the snapshot's header cannot be read ({error})") from None


def _check(header: Header, size_bytes: int, build: Build) -> None:
    if size_bytes != header.size_bytes:
        raise SnapshotError(f"the snapshot has {size_bytes} bytes of {header.size_bytes}: it was truncated or damaged")
    saved, here = header.build.to_dict(), build.to_dict()
    if differences := [f"{name} {saved[name]}, here {here[name]}" for name in saved if saved[name] != here[name]]:
        raise SnapshotError(f"the snapshot was saved with {'; '.join(differences)}")


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
