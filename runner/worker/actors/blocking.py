"""Actors without coroutines: calls run one after the other in the main thread, or in threads."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from runner.client import context
from runner.client.actors.hooks import ActorExit
from runner.worker.actors.calls import Call, items_of
from runner.worker.actors.channel import Channel
from runner.worker.actors.modes import LOOK_AFTER_S, Actor, Mode, Terminated
from runner.worker.agent.acknowledgements import wait_acknowledged
from runner.worker.executor.interrupts import TaskInterrupt

# Answers of quick calls go together; none waits longer than this for the others, whatever the next call does.
GATHER_S = 0.002


class BlockingMode(Mode):
    """Runs a call in the thread that calls `run`."""

    def run(self, call: Call, pause: Callable[[Call, int], bool]) -> None:
        """Run a call in this thread. `pause(call, index)` waits until item `index` may be made; False: no more is wanted."""
        actor, answers = self.actor, self.actor.answers
        token = context.enter_call(call)
        try:
            frame = self._outcome(call, pause)
        except ActorExit:
            self.end()
            return
        except SystemExit as error:
            self.exit(error)
            return
        except (TaskInterrupt, Terminated):
            raise
        except BaseException as error:
            frame = answers.raised(call, _without_own_frames(error))
        finally:
            context.leave_call(token)
        if call.must_wait or answers.keeps_refs(call):
            wait_acknowledged(actor.session)
        self.answered(call, frame)

    def _outcome(self, call: Call, pause: Callable[[Call, int], bool]) -> bytes:
        actor, answers = self.actor, self.actor.answers
        try:
            missing = call.missing() if call.dependencies else []
            args, kwargs = call.unpack(actor.session.get(missing) if missing else (), actor.decode)
            del missing
        except Exception as error:
            return answers.unloadable(call, error)
        result = actor.method(call.method)(*args, **kwargs)
        del args, kwargs
        if not call.is_stream:
            # As in Ray: who cancelled a call gets no result, though nothing interrupts synchronous code.
            return answers.cancelled(call) if call.is_cancelled else answers.returned(call, result)
        self._stream(call, items_of(result, call), pause)
        return answers.ended(call)

    def _stream(self, call: Call, items: Any, pause: Callable[[Call, int], bool]) -> None:
        answers = self.actor.answers
        try:
            for index in itertools.count():
                if not pause(call, index):
                    break
                try:
                    item = next(items)
                except StopIteration:
                    break
                frame = answers.item(call, index, item)
                del item
                if call.must_wait:
                    call.must_wait = False
                    wait_acknowledged(self.actor.session)
                call.channel.gather(frame)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()


class SyncMode(BlockingMode):
    """One call at a time, in the main thread, which also reads and writes: no call changes threads."""

    def __init__(self, actor: Actor) -> None:
        super().__init__(actor)
        self._ready: deque[Channel] = deque()  # those with calls, in turn
        self._flusher = _Flusher(actor.board.flush)
        self._quick: dict[str, bool] = {}  # methods, by their last call
        actor.board.read_agent()

    def serve(self) -> None:
        board = self.board
        while not self.is_ending:
            if not self._ready:
                board.flush()
                self.actor.session.transport.wake()
                self.look_at_sleep()
                if not self._ready:  # else: calls that were held
                    board.poll(None)
            else:
                self._run_next(self._ready.popleft())

    def _run_next(self, channel: Channel) -> None:
        if not channel.calls or channel.is_full:
            return  # `has_room` comes
        call = channel.calls.popleft()
        if channel.calls:
            self._ready.append(channel)
        call.has_begun = True
        call.look = self._look
        if not self._quick.get(call.method) or call.is_stream:
            self.board.flush()
        elif channel.has_output:
            self._flusher.arm()
        started_s = time.monotonic()
        self.runs_in_main = True
        self.run(call, self._pause)
        self.runs_in_main = False
        call.look = None
        now_s = time.monotonic()
        self._quick[call.method] = now_s - started_s < LOOK_AFTER_S
        if self._ready and now_s - self.board.polled_s > LOOK_AFTER_S:
            self.board.poll(0)

    def arrived(self, channel: Channel) -> None:
        if channel.calls and channel not in self._ready:
            self._ready.append(channel)

    def take_back(self, call: Call) -> bool:
        call.channel.calls.remove(call)
        return True

    def _look(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.board.flush()
            self.board.poll(0)

    def _pause(self, call: Call, index: int) -> bool:
        """The first item, and those that take their time, go at once; others gather."""
        now_s = time.monotonic()
        if index == 1 or now_s - self.board.polled_s > LOOK_AFTER_S:
            call.channel.flush()
            self.board.poll(0)
        elif index:
            self._flusher.arm()
        while not call.is_over and not call.may_make(index):
            self.board.flush()
            self.board.poll(None)
        return not call.is_over


class ThreadMode(BlockingMode):
    """Calls run in threads, by group; the main thread reads."""

    def __init__(self, actor: Actor) -> None:
        super().__init__(actor)
        self._lock = threading.Lock()
        self._groups = {name: _ThreadGroup(name, limit, self._work) for name, limit in actor.groups.items()}
        actor.session.transport.want_callbacks()  # a thread reads what the agent says

    def serve(self) -> None:
        while not self.is_ending:
            self.look_at_sleep()
            self.board.poll(None)

    def finish(self, timeout_s: float) -> None:
        """Let what runs end."""
        deadline_s = time.monotonic() + timeout_s
        while any(group.running for group in self._groups.values()) and (left_s := deadline_s - time.monotonic()) > 0:
            self.board.poll(min(left_s, 0.1))

    def arrived(self, channel: Channel) -> None:
        while channel.calls and not channel.is_full:
            call = channel.calls.popleft()
            self._groups[call.group].submit(call)

    def take_back(self, call: Call) -> bool:
        with self._lock:
            if call.has_begun:
                return False
            call.has_begun = True
        with contextlib.suppress(ValueError):
            call.channel.calls.remove(call)
        return True

    def _work(self, call: Call) -> None:
        """In one of the threads."""
        with self._lock:
            if call.has_begun or self.is_ending:
                return
            call.has_begun = True
        moved = threading.Event()
        call.moved = moved.set
        self.run(call, partial(_pause, moved))
        call.channel.flush()
        self.actor.session.transport.wake()


def _pause(moved: threading.Event, call: Call, index: int) -> bool:
    call.channel.flush()
    while not call.is_over and not call.may_make(index):
        moved.wait()
        moved.clear()
    return not call.is_over


class _ThreadGroup:
    """At most `limit` threads, made when they are needed."""

    def __init__(self, name: str, limit: int, work: Callable[[Call], None]) -> None:
        self._name = name or "default"
        self._limit = limit
        self._work = work
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads = 0
        self.running: set[Call] = set()

    def submit(self, call: Call) -> None:
        """For the main thread."""
        self._calls.put(call)
        if self._threads < self._limit and not self._idle.acquire(blocking=False):
            self._threads += 1
            name = f"runner-{self._name}-{self._threads}"
            threading.Thread(target=self._run, name=name, daemon=True).start()

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            self.running.add(call)
            try:
                self._work(call)
            except BaseException:  # a thread more or less must not change what the actor can do
                traceback.print_exc()
            self.running.discard(call)
            del call
            if self._threads < self._limit:
                self._idle.release()


class _Flusher:
    """Sends what was gathered when the main thread is busy with a call that takes longer than those before."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._armed = threading.Lock()
        self._armed.acquire()
        self._is_armed = False
        self._thread: threading.Thread | None = None

    def arm(self) -> None:
        """Have it look once, GATHER_S from now."""
        if self._is_armed:
            return
        self._is_armed = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="runner-answers", daemon=True)
            self._thread.start()
        self._armed.release()

    def _run(self) -> None:
        while True:
            self._armed.acquire()
            time.sleep(GATHER_S)
            self._is_armed = False
            self._flush()


def _without_own_frames(error: BaseException) -> BaseException:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    return error.with_traceback(trace)
