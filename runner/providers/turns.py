"""One operation at a time on one machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from runner.ids import MachineId

T = TypeVar("T")


class Turns:
    """Runs operations on machines: those on one name in the order of the calls, those on different names side by side."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[MachineId, asyncio.Lock] = WeakValueDictionary()
        self._work: set[asyncio.Task[Any]] = set()

    async def take(self, name: MachineId, operation: Callable[[], Coroutine[None, None, T]]) -> T:
        """Run it when those before it on this machine are done.

        A caller that gives up does not stop it half way: what was created must also become known.
        """
        return await asyncio.shield(self.start(name, operation))

    def start(self, name: MachineId, operation: Callable[[], Coroutine[None, None, T]]) -> asyncio.Task[T]:
        """As `take`, for nobody who waits."""

        async def locked() -> T:
            async with lock:
                return await operation()

        lock = self._locks.setdefault(name, asyncio.Lock())
        task = asyncio.ensure_future(locked())
        self._work.add(task)
        task.add_done_callback(self._done)
        return task

    def cancel(self) -> None:
        """Have what is under way end."""
        for task in [*self._work]:
            task.cancel()

    async def all_done(self) -> None:
        """Wait for what is under way."""
        if self._work:
            await asyncio.wait([*self._work])

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also where the caller gave up
