"""Serving a watch: a cursor over the event log that moves on when something wanted is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from runner.clock import Clock
from runner.coordinator.conversion import failure_message
from runner.coordinator.event_log import READ_BYTES_MAX, EventLog, Selector, Watcher
from runner.coordinator.recorder import TERMINAL_STATES
from runner.core.cluster import Cluster
from runner.errors import BadOptionsError
from runner.ids import TaskId
from runner.rpc.gen import client_pb2

# A task that nobody knows is either forgotten or on its way in a frame that this call has overtaken.
_UNKNOWN_WAIT_S = 2.0

# A reader of pages is held so long for the first event (tasks that nobody knows are given up before), and for more.
_PAGE_WAIT_S = 2 * _UNKNOWN_WAIT_S
_MORE_WAIT_S = 0.005

Write = Callable[[client_pb2.WatchReply], Awaitable[None]]


class _EnoughError(Exception):
    """Ends a page."""


class Watches:
    """Holds nothing per watch but the cursor: a slow reader costs nothing and misses nothing that is stored."""

    def __init__(self, event_log: EventLog, cluster: Cluster, clock: Clock) -> None:
        self._log = event_log
        self._cluster = cluster
        self._clock = clock
        self._is_closed = False
        self._open: set[Watcher] = set()

    async def serve(self, request: client_pb2.WatchRequest, write: Write) -> None:
        """Write what is wanted, until the end that the request names.

        Raises:
            BadOptionsError: `until_done` without tasks.
        """
        if request.until_done and not request.task_ids:
            raise BadOptionsError("a watch until done must name its tasks")
        selector = Selector(frozenset(request.task_ids), request.client_id, frozenset(request.kinds))
        watcher = self._log.watch(selector)
        self._open.add(watcher)
        try:
            await self._serve(request, selector, watcher, write)
        finally:
            self._open.discard(watcher)
            self._log.unwatch(watcher)

    async def page(self, request: client_pb2.WatchRequest) -> client_pb2.WatchReply:
        """What this watch would tell now; waits for something to tell, but not for ever."""
        found = client_pb2.WatchReply(next_seq=max(1, request.from_seq))
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(_PAGE_WAIT_S)

        async def write(reply: client_pb2.WatchReply) -> None:
            is_progress = reply.next_seq > found.next_seq
            found.MergeFrom(reply)
            if is_progress and found.ByteSize() > READ_BYTES_MAX:
                raise _EnoughError
            if reply.events:
                limit.reschedule(loop.time() + _MORE_WAIT_S)

        try:
            async with limit:
                await self.serve(request, write)
            found.is_over = True
        except (_EnoughError, TimeoutError):
            pass
        return found

    def close(self) -> None:
        """End all watches at their next step. Idempotent."""
        self._is_closed = True
        for watcher in self._open:
            watcher.wake()

    async def _serve(
        self, request: client_pb2.WatchRequest, selector: Selector, watcher: Watcher, write: Write
    ) -> None:
        cursor = max(1, request.from_seq)
        told: set[str] = set()  # tasks whose end has been sent
        pending = set(request.task_ids) if request.until_done else set()
        give_up_s = self._clock.monotonic_s() + _UNKNOWN_WAIT_S
        while not self._is_closed:
            # Judged before reading: what settles while we write is read in the next round.
            is_late = self._clock.monotonic_s() >= give_up_s
            pending = {task_id for task_id in pending if not self._is_over(task_id, unknown=is_late)}
            cursor = await self._catch_up(selector, cursor, told, write)
            if request.until_done and not pending:
                await self._tell_ends(request, selector, told, cursor, write)
                return
            if not (request.follow or request.until_done):
                await write(client_pb2.WatchReply(next_seq=cursor))
                return
            has_unknown = any(self._cluster.task(TaskId(task_id)) is None for task_id in pending)
            await self._wait(watcher, give_up_s if has_unknown else None)

    async def _catch_up(self, selector: Selector, cursor: int, told: set[str], write: Write) -> int:
        """Write everything wanted that is there; returns where to go on."""
        while True:
            events, cursor = self._log.read(selector, cursor)
            if events:
                told.update(event.task_id for event in events if event.state in TERMINAL_STATES)
                await write(client_pb2.WatchReply(events=events, next_seq=cursor))
            if cursor > self._log.newest_seq:
                return cursor

    async def _wait(self, watcher: Watcher, until_s: float | None) -> None:
        wait_s = None if until_s is None else max(0.0, until_s - self._clock.monotonic_s())
        try:
            async with asyncio.timeout(wait_s):
                await watcher.wait()
        except TimeoutError:
            pass

    async def _tell_ends(
        self, request: client_pb2.WatchRequest, selector: Selector, told: set[str], cursor: int, write: Write
    ) -> None:
        """Ends of plain tasks are not stored: those that this watch has not seen are told from the core's record."""
        if selector.kinds and client_pb2.EVENT_KIND_STATE not in selector.kinds:
            return
        reply, size_bytes = client_pb2.WatchReply(next_seq=cursor), 0
        for task_id in dict.fromkeys(request.task_ids):
            view = self._cluster.task(TaskId(task_id))
            if task_id in told or view is None:
                continue
            event = reply.events.add(kind=client_pb2.EVENT_KIND_STATE, seq=cursor - 1, time_s=self._clock.unix_s())
            event.task_id, event.name, event.attempt, event.state = task_id, view.name, view.attempt, view.state
            event.machine_id = view.machine_id or ""
            if view.failure is not None:
                event.failure.CopyFrom(failure_message(view.failure))
            size_bytes += event.ByteSize()
            if size_bytes > READ_BYTES_MAX:
                await write(reply)
                reply, size_bytes = client_pb2.WatchReply(next_seq=cursor), 0
        if reply.events:
            await write(reply)

    def _is_over(self, task_id: str, *, unknown: bool) -> bool:
        view = self._cluster.task(TaskId(task_id))
        return unknown if view is None else view.state in TERMINAL_STATES
