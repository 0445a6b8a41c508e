"""The durable, ordered record of decided facts: SQLite in WAL mode, one row per engine turn."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgpack

from runner.errors import InternalError

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS turns (
    n INTEGER PRIMARY KEY, now_s REAL NOT NULL, unix_s REAL NOT NULL, crc32 INTEGER NOT NULL, facts BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
_INSERT = "INSERT INTO turns (n, now_s, unix_s, crc32, facts) VALUES (?, ?, ?, ?, ?)"
# How long one look at the disk's free space is good for.
_ROOM_CHECK_S = 0.5


class JournalCorruptError(InternalError):
    """The journal holds a turn that cannot be read, and it is not the last one."""


class Journal:
    """Owns `journal.db`. Synchronous: a commit costs about 20 us, less than a trip to a thread.

    Durability "process": a committed turn survives `kill -9` of this process (the page cache has it). "power": also
    the loss of power, by one fsync a turn.
    """

    def __init__(self, path: Path, *, durability: str = "process", reserve_bytes: int = 0) -> None:
        self._path = path
        self._reserve_bytes = reserve_bytes
        self._room_checked_s = float("-inf")
        self._room = True
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._prepare(durability)
        except sqlite3.DatabaseError as exc:
            self._db.close()
            raise JournalCorruptError(self._corrupt(str(exc))) from exc
        self._insert = self._db.cursor()
        # What the newest turn says about time; (0, 0) for a new journal.
        self.last_now_s = 0.0
        self.last_unix_s = 0.0
        # The number of the newest turn that can be read.
        self.turn: int = self._db.execute("SELECT max(n) FROM turns").fetchone()[0] or 0

    def _prepare(self, durability: str) -> None:
        # No other process reads it while it is written: its state directory is locked. So a commit takes no locks.
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'FULL' if durability == 'power' else 'OFF'}")
        # A checkpoint of the WAL stalls the loop; rarer and larger ones cost less in all.
        self._db.execute("PRAGMA wal_autocheckpoint=4000")
        self._db.executescript(_SCHEMA)

    def replay(self) -> Iterator[list[Any]]:
        """The encoded facts of each turn, oldest first. Sets `last_now_s` and `last_unix_s`.

        A last turn that cannot be read was being written when the process died: it was never acknowledged, so it is
        dropped.

        Raises:
            JournalCorruptError: a turn before the last cannot be read.
        """
        try:
            newest, self.turn = self.turn, 0
            for n, now_s, unix_s, crc32, blob in self._db.execute(
                "SELECT n, now_s, unix_s, crc32, facts FROM turns ORDER BY n"
            ):
                facts = _unpack(blob, crc32)
                if facts is None:
                    if n != newest:
                        raise JournalCorruptError(self._corrupt(f"turn {n} of {newest} does not match its checksum"))
                    log.warning("journal %s: dropped the torn last turn %d", self._path, n)
                    self._db.execute("DELETE FROM turns WHERE n = ?", (n,))
                    return
                self.last_now_s, self.last_unix_s, self.turn = now_s, unix_s, n
                yield facts
        except sqlite3.DatabaseError as exc:
            raise JournalCorruptError(self._corrupt(str(exc))) from exc

    def commit(self, facts: Sequence[Any], now_s: float, unix_s: float) -> None:
        """Make one turn's encoded facts durable.

        Raises:
            sqlite3.Error: nothing of the turn is durable; the process cannot go on.
        """
        blob = msgpack.packb(facts)
        self._insert.execute(_INSERT, (self.turn + 1, now_s, unix_s, zlib.crc32(blob), blob))
        self.turn += 1

    def has_room(self) -> bool:
        """Whether the disk has more than the reserve left, so that what is accepted now can also be finished."""
        now_s = time.monotonic()
        if now_s - self._room_checked_s > _ROOM_CHECK_S:
            self._room_checked_s = now_s
            disk = os.statvfs(self._path)
            self._room = disk.f_bavail * disk.f_frsize >= self._reserve_bytes
        return self._room

    def take_numbers(self, name: str, count: int) -> range:
        """The next `count` numbers of a durable counter, from 1; never handed out again."""
        row = self._db.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        first = (row[0] if row else 0) + 1
        self._db.execute("INSERT OR REPLACE INTO counters (name, value) VALUES (?, ?)", (name, first + count - 1))
        return range(first, first + count)

    def is_empty(self) -> bool:
        """Whether no turn has been committed yet."""
        return self._db.execute("SELECT 1 FROM turns LIMIT 1").fetchone() is None

    def close(self) -> None:
        """Idempotent."""
        self._insert.close()
        self._db.close()

    def _corrupt(self, saw: str) -> str:
        return f"journal {self._path} is damaged: {saw}; restore it from a copy, or move it away to start empty"


def _unpack(blob: bytes, crc32: int) -> list[Any] | None:
    if zlib.crc32(blob) != crc32:
        return None
    try:
        facts = msgpack.unpackb(blob, use_list=False, strict_map_key=False)
    except ValueError:
        return None
    return list(facts)
