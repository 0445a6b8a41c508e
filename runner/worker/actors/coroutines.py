"""Actors with coroutines: their calls are tasks of one asyncio loop in the main thread, their other methods run on it too."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections import deque
from typing import Any

from runner.client import context
from runner.client.actors.hooks import ActorExit
from runner.worker.actors.calls import Call, items_of
from runner.worker.actors.channel import Channel
from runner.worker.actors.modes import LOOK_AFTER_S, Actor, Mode, told_of_hook
from runner.worker.agent.acknowledgements import acknowledged
from runner.worker.frames import Frame

_END_S = 1.0  # for cancelled coroutines


class AsyncMode(Mode):
    """At most so many calls of each group at a time; they begin in the order in which they came."""

    def __init__(self, actor: Actor, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(actor)
        self._loop = loop
        self._groups = {name: _Group(limit) for name, limit in actor.groups.items()}
        self._flushes_soon = False
        self._hooks: asyncio.Task[None] | None = None  # of a suspend, while they run
        actor.task.park = actor.sleep.refuse
        actor.session.transport.want_callbacks()

    def serve(self) -> None:
        self._loop.add_reader(self.board.fileno(), self._poll)
        try:
            self._loop.run_forever()
        finally:
            self._loop.remove_reader(self.board.fileno())

    def _poll(self) -> None:
        self.board.poll(0)
        self.look_at_sleep()
        if self.is_ending:
            self._loop.stop()

    def look_at_sleep(self) -> None:
        if self._hooks is None and (frame := self.sleep.look()) is not None:
            self._hooks = self._loop.create_task(self._run_hooks(frame))

    async def _run_hooks(self, frame: Frame) -> None:
        try:
            await self.sleep.run_async(frame)
        finally:
            self._hooks = None
            self.board.wake()  # there may be more to do

    def finish(self, timeout_s: float) -> None:
        tasks = [call.running for group in self._groups.values() for call in group.running]
        if tasks:
            self._loop.run_until_complete(_end(tasks, timeout_s))
        self.board.flush()

    def call_hooks(self, names: list[str]) -> None:
        self._loop.run_until_complete(self._call_hooks(names))

    async def _call_hooks(self, names: list[str]) -> None:
        for name in names:
            try:
                result = getattr(self.actor.instance, name)()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                told_of_hook(self.actor.instance, name)

    # ---- what callers send ----
    def arrived(self, channel: Channel) -> None:
        while channel.calls and not channel.is_full:
            call = channel.calls.popleft()
            group = self._groups[call.group]
            if len(group.running) < group.limit:
                self._start(call, group)
            else:
                group.waiting.append(call)

    def take_back(self, call: Call) -> bool:
        if call.running is not None:
            return False  # it looks before it begins
        for calls in (call.channel.calls, self._groups[call.group].waiting):
            if call in calls:
                calls.remove(call)
        return True

    def interrupt(self, call: Call) -> None:
        if not call.is_made:
            call.running.cancel()

    def gone(self, channel: Channel) -> None:
        for call in list(channel.by_seq.values()):
            if call.moved is not None:
                call.moved()

    def _start(self, call: Call, group: _Group) -> None:
        group.running.add(call)
        call.running = self._loop.create_task(self._serve_call(call, group))

    async def _serve_call(self, call: Call, group: _Group) -> None:
        try:
            await self._run_call(call)
        finally:
            group.running.discard(call)
            call.running = call.moved = None
            while group.waiting and len(group.running) < group.limit and not self.is_ending:
                self._start(group.waiting.popleft(), group)

    # ---- one call ----
    async def _run_call(self, call: Call) -> None:
        answers = self.actor.answers
        call.has_begun = True
        context.enter_call(call)  # of this task only, so it need not be left
        try:
            frame = await self._outcome(call)
        except ActorExit:
            self.end()
            return
        except SystemExit as error:
            self.exit(error)
            return
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            if call.is_over and isinstance(error, asyncio.CancelledError):
                frame = answers.ended(call)
            elif self.is_ending and isinstance(error, asyncio.CancelledError):
                return  # its caller learns from the end of the actor
            else:
                trace = error.__traceback__
                frame = answers.raised(call, error.with_traceback(trace.tb_next if trace is not None else None))
        call.is_made = True
        if call.must_wait or answers.keeps_refs(call):
            await acknowledged(self.actor.session)
        self._answer(call, frame)

    async def _outcome(self, call: Call) -> bytes:
        actor, answers = self.actor, self.actor.answers
        if call.is_cancelled:
            return answers.cancelled(call)
        try:
            asked = [await ref for ref in call.missing()] if call.dependencies else []
            args, kwargs = call.unpack(asked, actor.decode)
            del asked
        except Exception as error:
            return answers.unloadable(call, error)
        result = actor.method(call.method)(*args, **kwargs)
        del args, kwargs
        if inspect.isawaitable(result):
            result = await result
        if not call.is_stream:
            return answers.returned(call, result)
        await self._stream(call, items_of(result, call))
        return answers.ended(call)

    async def _stream(self, call: Call, items: Any) -> None:
        reader = _Reader(call)
        call.moved = reader.moved
        yielded_s = time.monotonic()
        try:
            for index in itertools.count():
                if not await reader.wants(index):
                    break
                try:
                    item = await reader.next(items)
                except (StopAsyncIteration, StopIteration):
                    break
                frame = self.actor.answers.item(call, index, item)
                del item
                if call.must_wait:
                    call.must_wait = False
                    await acknowledged(self.actor.session)
                call.channel.gather(frame)
                now_s = time.monotonic()
                if not index or now_s - yielded_s > LOOK_AFTER_S:  # the first goes at once, quick ones go together
                    call.channel.flush()
                    await asyncio.sleep(0)
                    yielded_s = time.monotonic()
                else:
                    self._flush_soon()
        finally:
            await _close(items)

    def _answer(self, call: Call, frame: bytes) -> None:
        self.answered(call, frame)
        self._flush_soon()

    def _flush_soon(self) -> None:
        """Answers of one turn of the loop go together."""
        if not self._flushes_soon:
            self._flushes_soon = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushes_soon = False
        self.board.flush()
        self.actor.session.transport.wake()


class _Group:
    """Calls that share a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running: set[Call] = set()
        self.waiting: deque[Call] = deque()


class _Reader:
    """What the caller of a stream wants, for the coroutine that makes its items."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._changed = asyncio.Event()
        self._is_making = False

    def moved(self) -> None:
        """READ, CLOSE_STREAM, CANCEL, or the end of the channel."""
        self._changed.set()
        call = self._call
        if self._is_making and call.is_over and not call.is_cancelled and call.running is not None:
            call.running.cancel()  # it may wait for long for an item that nobody wants

    async def wants(self, index: int) -> bool:
        """Wait until item `index` may be made; False: no more are."""
        call = self._call
        while not call.is_over and not call.may_make(index):
            self._changed.clear()
            await self._changed.wait()
        return not call.is_over

    async def next(self, items: Any) -> Any:
        """The next item; raises StopIteration or StopAsyncIteration when there is none."""
        self._is_making = True
        try:
            if hasattr(items, "__anext__"):
                return await items.__anext__()
            return _next(items)
        finally:
            self._is_making = False


def _next(items: Any) -> Any:
    """StopIteration cannot pass through a coroutine."""
    for item in items:
        return item
    raise StopAsyncIteration


async def _close(items: Any) -> None:
    if hasattr(items, "aclose"):
        await items.aclose()
    elif hasattr(items, "close"):
        items.close()


async def _end(tasks: list[asyncio.Task[None]], timeout_s: float) -> None:
    """Wait for them; cancel those that take longer."""
    _, late = await asyncio.wait(tasks, timeout=timeout_s)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late, timeout=_END_S)
