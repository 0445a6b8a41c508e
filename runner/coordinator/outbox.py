"""What waits to be sent on one stream: filled by the engine's turns, drained by the stream's writer in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

# One frame costs 100 to 300 us in Python gRPC whatever is in it, so frames carry what waits, up to this.
FRAME_ITEMS_MAX = 512
FRAME_BYTES_MAX = 1 << 20


class Outbox(Generic[Item]):
    """An ordered queue with one reader. `push` never blocks; what fills it is limited by its own protocol."""

    __slots__ = ("_items", "_poked", "_waiter", "closed", "on_due")

    def __init__(self) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._poked = False
        self.closed = False
        self.on_due: Callable[[], None] | None = None  # called instead of waking who waits

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: Item, size_bytes: int) -> None:
        """Append one item; its writer wakes in the next loop iteration."""
        self._items.append((item, size_bytes))
        if self._waiter is not None or self.on_due is not None:
            self._wake()

    def poke(self) -> None:
        """Wake the writer though nothing new waits, to send an acknowledgement."""
        self._poked = True
        self._wake()

    def close(self) -> None:
        """The reader's `wait` returns False from now on."""
        self.closed = True
        self._wake()

    def take(self) -> list[Item]:
        """Remove what fits in one frame; at least one item when any waits."""
        items = self._items
        if len(items) == 1:
            return [items.popleft()[0]]
        taken: list[Item] = []
        room_bytes = FRAME_BYTES_MAX
        while items and len(taken) < FRAME_ITEMS_MAX:
            room_bytes -= items[0][1]
            if room_bytes < 0 and taken:
                break
            taken.append(items.popleft()[0])
        return taken

    async def wait(self) -> bool:
        """Return when something may wait or the writer was poked; False once closed.

        A second waiter releases the first: it belongs to a stream that a newer one has replaced.
        """
        if not (self._items or self._poked or self.closed):
            self._wake()
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None
        self._poked = False
        return not self.closed

    def _wake(self) -> None:
        if self.on_due is not None:
            self.on_due()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
