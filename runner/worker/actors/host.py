"""One life of an actor in an executor: construct it, announce it, serve its callers, end it with its exit hooks."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import msgpack

from runner.client.actors.hooks import ENTER, EXIT, ActorExit, hooks
from runner.client.actors.meta import has_coroutines
from runner.client.session import Session
from runner.rpc.gen import types_pb2
from runner.worker.actors.blocking import SyncMode, ThreadMode
from runner.worker.actors.board import Switchboard
from runner.worker.actors.calls import Answers, Decode
from runner.worker.actors.coroutines import AsyncMode
from runner.worker.actors.modes import DEFAULT_GROUP, Actor, Mode, Terminated
from runner.worker.actors.sleep import ActorSleep
from runner.worker.executor.api import RunningTask
from runner.worker.executor.channel import ExecutorSocket
from runner.worker.executor.sleep import Sleeper
from runner.worker.frames import Frame, Kind

GRACE_S = 10.0
ASYNC_CONCURRENCY = 1000
_DRAIN_S = 1.0  # for the last answers


class ActorHost:
    """Belongs to the main thread. `construct`, then `serve`."""

    def __init__(
        self, agent: ExecutorSocket, task: RunningTask, session: Session, decode: Decode, sleeper: Sleeper
    ) -> None:
        """`decode(object_id, value)` gives the value of a serialised types_pb2.Value."""
        self._agent = agent
        self._serial = task.serial
        self._task = task
        self._session = session
        self._decode = decode
        self._sleeper = sleeper
        self._instance: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of an actor with coroutines
        self._mode: Mode | None = None
        self._is_to_end = False
        agent.on(Kind.ACTOR_EXIT, self._asked_to_end)

    def construct(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Make the instance and run its enter hooks; raises whatever they raise."""
        self._task.class_name = cls.__name__
        try:
            if has_coroutines(cls):
                self._loop = asyncio.new_event_loop()
                asyncio.set_event_loop(self._loop)
                self._loop.run_until_complete(self._construct(cls, args, kwargs))
                return
            self._instance = cls(*args, **kwargs)
            for name in hooks(cls, ENTER):
                getattr(self._instance, name)()
        except ActorExit:
            self._is_to_end = True

    async def _construct(self, cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """On the loop, so that the constructor can make tasks and locks."""
        self._instance = cls(*args, **kwargs)
        for name in hooks(cls, ENTER):
            result = getattr(self._instance, name)()
            if inspect.isawaitable(result):
                await result

    def serve(self, spec: types_pb2.ActorSpec) -> None:
        """Announce the actor and run its calls until it is to end.

        Raises:
            TaskInterrupt: its attempt was stopped; the exit hooks have run.
        """
        if self._instance is None:
            return  # it has ended itself before it began
        options: dict[str, Any] = msgpack.unpackb(spec.options) if spec.options else {}
        grace_s = float(options.get("grace_s", GRACE_S))
        board = Switchboard(self._agent, self._serial, self._task.attempt)
        sleep = ActorSleep(self._agent, self._sleeper, board, self._serial)
        self._mode = mode = self._make_mode(board, sleep, _groups(spec, options, is_async=self._loop is not None))
        sleep.open(self._instance)
        before = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            if not self._is_to_end:
                self._agent.send(Kind.ACTOR_READY, self._serial, board.address, board.secret)
                with contextlib.suppress(Terminated):
                    mode.serve()
        finally:
            sleep.close()
            self._end(mode, board, grace_s)
            signal.signal(signal.SIGTERM, before)

    def _make_mode(self, board: Switchboard, sleep: ActorSleep, groups: dict[str, int]) -> Mode:
        session = self._session
        actor = Actor(self._instance, self._task, session, Answers(session), self._decode, board, sleep, groups)
        if self._loop is not None:
            return AsyncMode(actor, self._loop)
        if groups == {DEFAULT_GROUP: 1}:
            return SyncMode(actor)
        return ThreadMode(actor)

    # ---- the end ----
    def _asked_to_end(self, frame: Frame) -> None:
        """Called by whoever reads the agent's socket."""
        if frame[1] == self._serial:
            self._is_to_end = True
            if self._mode is not None:
                self._mode.end()

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        mode = self._mode
        if mode is None or (mode.is_ending and not mode.runs_in_main):
            return  # the hooks run already
        mode.end()
        if mode.runs_in_main:
            mode.runs_in_main = False
            raise Terminated

    def _end(self, mode: Mode, board: Switchboard, grace_s: float) -> None:
        """Calls that run may end, the hooks run, the last answers go; all within the grace time."""
        mode.is_ending = True
        names = hooks(type(self._instance), EXIT)[::-1]
        try:
            with _limit(grace_s):
                mode.finish(grace_s / 2)
                board.flush()
                mode.call_hooks(names)
        except _GraceOver:
            sys.stderr.write(
                f"{type(self._instance).__name__}: what runs at its end took longer than its grace time of {grace_s:g} s"
                " and was given up; make it quicker or raise grace_s\n"
            )
        board.drain(_DRAIN_S)
        board.close()
        self._mode = None


class _GraceOver(BaseException):
    """Raised in the main thread when the grace time is over."""


@contextlib.contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise _GraceOver after so long. The process ends soon, so that its alarm may be taken."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise _GraceOver

    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _groups(spec: types_pb2.ActorSpec, options: dict[str, Any], *, is_async: bool) -> dict[str, int]:
    """How many calls of each concurrency group may run at a time."""
    limit = options.get("max_concurrency") or spec.max_concurrency or (ASYNC_CONCURRENCY if is_async else 1)
    return {DEFAULT_GROUP: int(limit), **options.get("concurrency_groups", {})}
