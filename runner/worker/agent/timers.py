"""A heap of times with a name and a subject each. Pure: the caller says what time it is."""

from __future__ import annotations

import heapq
from collections.abc import Iterator


class Timers:
    """Timers are never taken back: whoever gets one looks whether it still means anything."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str, object]] = []
        self._count = 0

    def set(self, due_s: float, name: str, subject: object = None) -> None:
        """Have `due` give this name and subject at `due_s`."""
        self._count += 1
        heapq.heappush(self._heap, (due_s, self._count, name, subject))

    def shift(self, by_s: float) -> None:
        """All are due so much later."""
        self._heap = [(due_s + by_s, count, name, subject) for due_s, count, name, subject in self._heap]

    @property
    def next_s(self) -> float | None:
        """When the first one is due."""
        return self._heap[0][0] if self._heap else None

    def due(self, now_s: float) -> Iterator[tuple[str, object]]:
        """All that are due, oldest first, also those that are set meanwhile."""
        while self._heap and self._heap[0][0] <= now_s:
            _, _, name, subject = heapq.heappop(self._heap)
            yield name, subject
