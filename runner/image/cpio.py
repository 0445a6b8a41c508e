"""Archives in the form that Linux unpacks as its initial RAM disk (Documentation/driver-api/early-userspace/buffer-format)."""

from __future__ import annotations

import gzip
import stat
from collections.abc import Iterable
from dataclasses import dataclass

_ALIGNMENT = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """A file; a folder where `data` is None; a symbolic link where `link` is set. Folders come before what is in them."""

    name: str
    data: bytes | None = None
    mode: int = 0o755
    link: str = ""


def pack(entries: Iterable[Entry]) -> bytes:
    """A compressed archive of them, owned by root."""
    packed = bytearray()
    for number, entry in enumerate([*entries, Entry("TRAILER!!!", b"", 0)], start=1):
        packed += _record(number, entry)
    return gzip.compress(bytes(packed), compresslevel=6, mtime=0)


def _record(number: int, entry: Entry) -> bytes:
    data = entry.link.encode() or entry.data or b""
    kind = stat.S_IFLNK if entry.link else stat.S_IFDIR if entry.data is None else stat.S_IFREG
    mode = entry.mode | kind
    name = entry.name.encode() + b"\0"
    # inode, mode, uid, gid, links, time, size, device (2), device of a node (2), length of the name, checksum
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(header) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
