"""One operation at a time on one machine, and those that a later one breaks off."""

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


class Breakable:
    """Operations of one kind that take their turn and that others, which come later, need not wait for."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._work: dict[MachineId, set[asyncio.Task[Any]]] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._work

    async def take(
        self, name: MachineId, operation: Callable[[], Coroutine[None, None, T]], broken: Callable[[], Exception]
    ) -> T:
        """As `Turns.take`; raises `broken()` where the operation was broken off."""
        task = self._turns.start(name, operation)
        self._work.setdefault(name, set()).add(task)
        task.add_done_callback(lambda done: self._done(name, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                raise
            raise broken() from None

    def break_off(self, name: MachineId) -> None:
        """Cancel those on this machine, also while they wait for their turn."""
        for task in [*self._work.get(name, ())]:
            task.cancel()

    def _done(self, name: MachineId, task: asyncio.Task[Any]) -> None:
        self._work[name].discard(task)
        if not self._work[name]:
            del self._work[name]
