"""What the agent has said and nobody has confirmed: numbered when first sent, kept until acknowledged, resent in order. Pure.

A suspend ends a generation: `seal` lets what is there go and keeps the rest for the next one, which `begin_generation` begins.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

FRAME_ITEMS_MAX = 512
FRAME_BYTES_MAX = 1 << 20


@dataclass(slots=True, eq=False)
class Entry(Generic[T]):
    """One item in the buffer."""

    item: T
    size_bytes: int
    is_numbered: bool = False
    is_withdrawn: bool = False


class ReportBuffer(Generic[T]):
    """Items in order. Numbers are 1, 2, 3, ... per generation."""

    def __init__(self) -> None:
        self._unsent: deque[Entry[T]] = deque()
        self._unacked: deque[Entry[T]] = deque()  # the first one has number `acked_seq + 1`
        self._later: deque[Entry[T]] = deque()  # for the next generation
        self.is_sealed = False
        self._last: Entry[T] | None = None  # the word that sealed it
        self._carried = 0  # how many of the unacked ones the current stream has carried
        self.acked_seq = 0
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._unsent) + len(self._unacked) + len(self._later)

    @property
    def has_owed(self) -> bool:
        """Whether something of this generation is not acknowledged."""
        return bool(self._unsent or self._unacked)

    @property
    def has_work(self) -> bool:
        """Whether `take` would give anything."""
        return bool(self._unsent) or self._carried < len(self._unacked)

    def add(self, item: T, size_bytes: int) -> Entry[T]:
        """Append one item; `size_bytes` is about its size on the wire."""
        entry = Entry(item, size_bytes)
        (self._later if self.is_sealed else self._unsent).append(entry)
        self.size_bytes += size_bytes
        return entry

    def withdraw(self, entry: Entry[T]) -> bool:
        """Take back an item that was never sent. False: it was, and stays."""
        if entry.is_numbered or entry.is_withdrawn:
            return False
        entry.is_withdrawn = True
        self.size_bytes -= entry.size_bytes
        if self._unsent and self._unsent[-1] is entry:
            self._unsent.pop()
        return True

    def take(self) -> tuple[int, list[T]]:
        """The number of the first item, and the items of the next frame; at least one when there is any."""
        first_seq = self.acked_seq + self._carried + 1
        items: list[T] = []
        room_bytes = FRAME_BYTES_MAX
        while len(items) < FRAME_ITEMS_MAX:
            entry = self._next()
            if entry is None or (items and entry.size_bytes > room_bytes):
                break
            items.append(entry.item)
            room_bytes -= entry.size_bytes
            self._carried += 1
        return first_seq, items

    def acknowledge(self, seq: int) -> None:
        """Everything up to number `seq` is durable. An older or impossible number changes nothing."""
        while self.acked_seq < seq and self._unacked:
            self.size_bytes -= self._unacked.popleft().size_bytes
            self.acked_seq += 1
            self._carried = max(0, self._carried - 1)

    def reconnected(self) -> None:
        """A new stream: what was not acknowledged goes again, first."""
        self._carried = 0

    def seal(self) -> None:
        """The newest item is the last word of this generation, and says nothing to the next."""
        self._last = self._unsent[-1]
        self.is_sealed = True

    def settle(self) -> None:
        """Everything of this generation has been taken in, though nobody has said so."""
        for entry in (*self._unacked, *self._unsent):
            self.size_bytes -= entry.size_bytes
        self._unacked.clear()
        self._unsent.clear()

    def begin_generation(self) -> None:
        """Numbers start at 1 again. What was not acknowledged comes first, in its order."""
        owed = [*self._unacked, *self._unsent]
        if self._last is not None and self._last in owed:
            owed.remove(self._last)
            self.size_bytes -= self._last.size_bytes
        self._unsent = deque([*owed, *self._later])
        self._unacked, self._later = deque(), deque()
        self.is_sealed, self._last = False, None
        self._carried = self.acked_seq = 0

    def _next(self) -> Entry[T] | None:
        if self._carried < len(self._unacked):
            return self._unacked[self._carried]
        while self._unsent:
            entry = self._unsent.popleft()
            if not entry.is_withdrawn:
                entry.is_numbered = True
                self._unacked.append(entry)
                return entry
        return None
