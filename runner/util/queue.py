"""A first-in-first-out queue between tasks and actors: an actor that holds the items."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

import runner


class Empty(queue.Empty):
    """There was no item, or none in time."""


class Full(queue.Full):
    """There was no room, or none in time."""


class _Items:
    """The actor. Waiting calls take no thread."""

    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def put(self, items: list[Any], limit_s: float | None) -> bool:
        try:
            await asyncio.wait_for(self._queue.put(items[0]), limit_s)
        except TimeoutError:
            return False
        return True

    async def put_nowait(self, items: list[Any]) -> bool:
        if self._queue.maxsize and len(items) > self._queue.maxsize - self._queue.qsize():
            return False
        for item in items:
            self._queue.put_nowait(item)
        return True

    async def get(self, limit_s: float | None) -> list[Any]:
        try:
            return [await asyncio.wait_for(self._queue.get(), limit_s)]
        except TimeoutError:
            return []

    async def get_nowait(self, count: int) -> list[Any]:
        if self._queue.qsize() < count:
            return []
        return [self._queue.get_nowait() for _ in range(count)]

    async def qsize(self) -> int:
        return self._queue.qsize()


class Queue:
    """As `ray.util.queue.Queue`: usable in every process that has it. It ends with its last handle."""

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        """`maxsize`: 0 for no limit. `actor_options` are those of the actor that holds the items."""
        self.maxsize = maxsize
        self.actor = runner.remote(_Items).options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """How many items there are."""
        count: int = runner.get(self.actor.qsize.remote())
        return count

    qsize = size

    def empty(self) -> bool:
        """Whether there is none."""
        return self.size() == 0

    def full(self) -> bool:
        """Whether there is no room."""
        return 0 < self.maxsize <= self.size()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item; waits for room, at most `timeout` seconds.

        Raises:
            Full: there was none.
        """
        call = self.actor.put.remote([item], _seconds(timeout)) if block else self.actor.put_nowait.remote([item])
        if not runner.get(call):
            raise Full

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ASYNC109  Ray's
        """As `put`, in an event loop."""
        call = self.actor.put.remote([item], _seconds(timeout)) if block else self.actor.put_nowait.remote([item])
        if not await call:
            raise Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item; waits for one, at most `timeout` seconds.

        Raises:
            Empty: there was none.
        """
        return _one(runner.get(self.actor.get.remote(_seconds(timeout)) if block else self.actor.get_nowait.remote(1)))

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ASYNC109  Ray's
        """As `get`, in an event loop."""
        return _one(await (self.actor.get.remote(_seconds(timeout)) if block else self.actor.get_nowait.remote(1)))

    def put_nowait(self, item: Any) -> None:
        """Add an item if there is room now."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Take an item if there is one now."""
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all of these, or raise Full and add none."""
        if not runner.get(self.actor.put_nowait.remote(list(items))):
            raise Full

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take so many items, or raise Empty and take none."""
        items: list[Any] = runner.get(self.actor.get_nowait.remote(num_items))
        if len(items) < num_items:
            raise Empty
        return items

    def shutdown(self) -> None:
        """End the queue; items in it are gone."""
        runner.kill(self.actor)


def _one(items: list[Any]) -> Any:
    if not items:
        raise Empty
    return items[0]


def _seconds(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError("'timeout' must be a non-negative number")
    return timeout
