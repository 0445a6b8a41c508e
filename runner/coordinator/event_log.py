"""The stored log that watchers read: states, metrics, log lines. A watch is a cursor over it, not a queue."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runner.rpc.gen import client_pb2

# Kept in memory for quick watchers; older events are read from the file.
TAIL_EVENTS_MAX = 5_000
READ_EVENTS_MAX = 512
READ_BYTES_MAX = 1 << 20
# Sequence numbers are reserved in blocks: numbers of events that were never stored are not handed out again either.
_SEQ_BLOCK = 100_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, task_id TEXT NOT NULL, client_id TEXT NOT NULL, kind INTEGER NOT NULL,
    attempt INTEGER NOT NULL, item INTEGER NOT NULL, is_run INTEGER NOT NULL, event BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS events_of_task ON events (task_id, attempt, item);
CREATE TABLE IF NOT EXISTS reserved (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS newest_turn (id INTEGER PRIMARY KEY CHECK (id = 1), turn INTEGER NOT NULL, seq INTEGER NOT NULL);
"""
_MARK = "INSERT OR REPLACE INTO newest_turn VALUES (1, ?, ?)"
_INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_READ = "SELECT seq, task_id, client_id, kind, event FROM events WHERE seq >= ? AND seq < ? {} ORDER BY seq LIMIT ?"


class _Entry(NamedTuple):
    task_id: str
    client_id: str
    kind: int
    event: client_pb2.Event
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Selector:
    """Which events a watch wants. Empty sets select everything; tasks go before the client."""

    task_ids: frozenset[str] = frozenset()
    client_id: str = ""
    kinds: frozenset[int] = frozenset()

    def matches(self, task_id: str, client_id: str, kind: int) -> bool:
        """Whether an event of that task, client and kind is wanted."""
        if self.kinds and kind not in self.kinds:
            return False
        if self.task_ids:
            return task_id in self.task_ids
        return not self.client_id or client_id == self.client_id


class Watcher:
    """One reader of the log, woken when something that it wants was appended."""

    __slots__ = ("_event", "selector")

    def __init__(self, selector: Selector) -> None:
        self.selector = selector
        self._event = asyncio.Event()

    def wake(self) -> None:
        """Let `wait` return once."""
        self._event.set()

    async def wait(self) -> None:
        """Return when something wanted may have been appended since the last call."""
        await self._event.wait()
        self._event.clear()


class EventLog:
    """Owns `events.db`. Appended events are readable at once and durable after `flush`."""

    def __init__(self, path: Path, *, tail_max: int = TAIL_EVENTS_MAX) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.executescript(_SCHEMA)
        row = self._db.execute("SELECT seq FROM reserved").fetchone()
        self._reserved_seq: int = row[0] if row else 0
        self._next_seq = self._reserved_seq + 1
        self._tail: list[_Entry] = []
        self._tail_first_seq = self._next_seq
        self._tail_max = tail_max
        self._rows: list[tuple[object, ...]] = []
        self._forgotten: list[tuple[str]] = []
        self._forgettable = {
            task_id for (task_id,) in self._db.execute("SELECT DISTINCT task_id FROM events WHERE is_run = 0")
        }
        self._watchers_by_task: dict[str, set[Watcher]] = {}
        self._watchers_wide: set[Watcher] = set()

    @property
    def newest_seq(self) -> int:
        """The sequence number of the newest event; 0 before the first."""
        return self._next_seq - 1

    def is_wanted(self, task_id: str, client_id: str, kind: int) -> bool:
        """Whether a watcher of now would get such an event."""
        if any(watcher.selector.matches(task_id, client_id, kind) for watcher in self._watchers_wide):
            return True
        return any(w.selector.matches(task_id, client_id, kind) for w in self._watchers_by_task.get(task_id, ()))

    def append(
        self, event: client_pb2.Event, client_id: str, *, item: int = 0, is_run: bool = False, keep: bool = True
    ) -> None:
        """Give the event its number and show it to watchers. `item` is its index within the attempt.

        With `keep` False only watchers that follow closely see it: it stays in memory until newer events push it out.
        """
        seq = event.seq = self._next_seq
        self._next_seq = seq + 1
        data = event.SerializeToString()
        task_id, kind = event.task_id, event.kind
        self._tail.append(_Entry(task_id, client_id, kind, event, len(data)))
        if keep:
            self._rows.append((seq, task_id, client_id, kind, event.attempt, item, is_run, data))
            if not is_run and task_id:
                self._forgettable.add(task_id)
        self._wake(task_id, client_id, kind)

    def drop_uncommitted(self, turn: int) -> None:
        """The journal's newest turn is this one: the events of a later one, whose commit did not come, never happened."""
        row = self._db.execute("SELECT seq FROM newest_turn WHERE turn > ?", (turn,)).fetchone()
        if row is not None:
            self._db.execute("DELETE FROM events WHERE seq >= ?", row)
            self._db.execute("DELETE FROM newest_turn")

    def hide(self, seq: int) -> None:
        """Readers get no events from this number on: their turn could not be committed."""
        del self._tail[max(0, seq - self._tail_first_seq) :]
        self._next_seq = min(self._next_seq, seq)

    def flush(self, turn: int = 0) -> None:
        """Make everything appended durable; with `turn` only if the journal gets that turn.

        Raises:
            sqlite3.Error: it is not; nothing may be acknowledged.
        """
        if self._next_seq > self._reserved_seq + 1:
            self._reserved_seq = self._next_seq - 1 + _SEQ_BLOCK
            self._db.execute("INSERT OR REPLACE INTO reserved VALUES (1, ?)", (self._reserved_seq,))
        if self._rows or self._forgotten:
            rows, self._rows = self._rows, []
            forgotten, self._forgotten = self._forgotten, []
            if len(rows) == 1 and not forgotten and not turn:
                self._db.execute(_INSERT, rows[0])
            else:
                self._db.execute("BEGIN")
                self._db.executemany(_INSERT, rows)
                self._db.executemany("DELETE FROM events WHERE task_id = ?", forgotten)
                if turn and rows:
                    self._db.execute(_MARK, (turn, rows[0][0]))
                self._db.execute("COMMIT")
        if len(self._tail) > 2 * self._tail_max:
            self._tail_first_seq += len(self._tail) - self._tail_max
            self._tail = self._tail[-self._tail_max :]

    def forget(self, task_id: str) -> None:
        """Drop the stored events of a task that is no run."""
        if task_id in self._forgettable:
            self._forgettable.discard(task_id)
            self._forgotten.append((task_id,))

    def newest_item(self, task_id: str, attempt: int) -> int:
        """The highest stored item index of an attempt, 0 when there is none."""
        query = "SELECT max(item) FROM events WHERE task_id = ? AND attempt = ?"
        return self._db.execute(query, (task_id, attempt)).fetchone()[0] or 0

    def read(self, selector: Selector, from_seq: int) -> tuple[list[client_pb2.Event], int]:
        """Wanted events from `from_seq` on, as many as fit in one frame, and where to go on."""
        if from_seq >= self._tail_first_seq:
            return self._read_tail(selector, from_seq)
        return self._read_file(selector, from_seq)

    def watch(self, selector: Selector) -> Watcher:
        """A reader to be woken; give it back with `unwatch`."""
        watcher = Watcher(selector)
        if selector.task_ids:
            for task_id in selector.task_ids:
                self._watchers_by_task.setdefault(task_id, set()).add(watcher)
        else:
            self._watchers_wide.add(watcher)
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        """Idempotent."""
        self._watchers_wide.discard(watcher)
        for task_id in watcher.selector.task_ids:
            watchers = self._watchers_by_task.get(task_id)
            if watchers is not None:
                watchers.discard(watcher)
                if not watchers:
                    del self._watchers_by_task[task_id]

    def wake_task(self, task_id: str) -> None:
        """Wake the readers that named this task, whatever kinds they want: it settled."""
        for watcher in self._watchers_by_task.get(task_id, ()):
            watcher.wake()

    def close(self) -> None:
        """Idempotent; what was not flushed is lost."""
        self._db.close()

    def _wake(self, task_id: str, client_id: str, kind: int) -> None:
        for watcher in self._watchers_by_task.get(task_id, ()):
            if watcher.selector.matches(task_id, client_id, kind):
                watcher.wake()
        for watcher in self._watchers_wide:
            if watcher.selector.matches(task_id, client_id, kind):
                watcher.wake()

    def _read_tail(self, selector: Selector, from_seq: int) -> tuple[list[client_pb2.Event], int]:
        events: list[client_pb2.Event] = []
        size_bytes = 0
        tail = self._tail
        for position in range(from_seq - self._tail_first_seq, len(tail)):
            entry = tail[position]
            if not selector.matches(entry.task_id, entry.client_id, entry.kind):
                continue
            size_bytes += entry.size_bytes
            if events and (size_bytes > READ_BYTES_MAX or len(events) >= READ_EVENTS_MAX):
                return events, self._tail_first_seq + position
            events.append(entry.event)
        return events, max(from_seq, self._next_seq)

    def _read_file(self, selector: Selector, from_seq: int) -> tuple[list[client_pb2.Event], int]:
        # A few tasks are looked up by index; many are filtered on the way through the log.
        names = list(selector.task_ids) if len(selector.task_ids) <= 64 else []
        where = f"AND task_id IN ({','.join('?' * len(names))})" if names else ""
        limit = READ_EVENTS_MAX if names or not (selector.client_id or selector.task_ids) else 8 * READ_EVENTS_MAX
        rows = self._db.execute(_READ.format(where), (from_seq, self._tail_first_seq, *names, limit)).fetchall()
        events: list[client_pb2.Event] = []
        size_bytes = 0
        for seq, task_id, client_id, kind, data in rows:
            if not selector.matches(task_id, client_id, kind):
                continue
            size_bytes += len(data)
            if events and (size_bytes > READ_BYTES_MAX or len(events) >= READ_EVENTS_MAX):
                return events, seq
            events.append(client_pb2.Event.FromString(data))
        if len(rows) == limit:
            return events, rows[-1][0] + 1
        return events, self._tail_first_seq
