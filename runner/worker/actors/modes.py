"""What all ways to run an actor's calls share: the actor, and what callers want of it."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.client.actors.hooks import ActorExit
from runner.client.session import Session
from runner.errors import BadOptionsError, ProtocolViolationError
from runner.rpc.actor_frames import ActorKind
from runner.worker.actors.board import Switchboard
from runner.worker.actors.calls import Answers, Call, Decode
from runner.worker.actors.channel import Channel
from runner.worker.actors.sleep import ActorSleep
from runner.worker.executor.api import RunningTask

DEFAULT_GROUP = ""
# Between two calls that are there already, callers and agent are looked at this often.
LOOK_AFTER_S = 0.001
_CALL = int(ActorKind.CALL)
_CANCEL = int(ActorKind.CANCEL)
_READ = int(ActorKind.READ)
_RELEASED = int(ActorKind.RELEASED)
_CLOSE_STREAM = int(ActorKind.CLOSE_STREAM)


class Terminated(BaseException):
    """SIGTERM came while a method ran in the main thread."""


@dataclass(slots=True)
class Actor:
    """The instance, and what its calls need."""

    instance: Any
    task: RunningTask
    session: Session
    answers: Answers
    decode: Decode
    board: Switchboard
    sleep: ActorSleep
    groups: Mapping[str, int]  # calls at a time by concurrency group; DEFAULT_GROUP has a limit too

    def method(self, name: str) -> Callable[..., Any]:
        """What to call; raises AttributeError."""
        special = _SPECIAL.get(name)
        if special is not None:
            return lambda *args, **kwargs: special(self.instance, *args, **kwargs)
        method: Callable[..., Any] = getattr(self.instance, name)
        return method


class Mode:
    """What all modes share: implements `Desk`. `end` says that no more calls are to be run."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.board = actor.board
        self.sleep = actor.sleep
        actor.sleep.begin = self._begin_held
        actor.task.park = actor.sleep.park
        self.is_ending = False
        self.runs_in_main = False  # a method, at this moment: a signal may raise there
        actor.board.desk = self

    def serve(self) -> None:
        """Run calls until `end`."""
        raise NotImplementedError

    def look_at_sleep(self) -> None:
        """Do what a suspend wants of the actor now, when its calls run in threads."""
        while (frame := self.sleep.look()) is not None:
            self.sleep.run(frame)

    def finish(self, timeout_s: float) -> None:
        """No more calls begin: let those that run end, at most so long."""

    def call_hooks(self, names: list[str]) -> None:
        """Call the methods one after the other; what they raise is printed."""
        for name in names:
            try:
                getattr(self.actor.instance, name)()
            except Exception:
                told_of_hook(self.actor.instance, name)

    def end(self) -> None:
        """From any thread, and from signal handlers."""
        self.is_ending = True
        self.board.wake()

    # ---- what callers send ----
    def frames(self, channel: Channel, frames: list[list[Any]]) -> None:
        for frame in frames:
            kind = frame[0]
            if kind == _CALL:
                call = Call(channel, frame, self.actor.task)
                if call.group in self.actor.groups:
                    channel.by_seq[call.seq] = call
                    self._admit(call)
                else:
                    channel.gather(self.actor.answers.raised(call, self._no_group(call)))
            elif kind == _RELEASED:
                channel.release(frame[1])
            else:
                self._about_call(channel, frame)
        if channel.calls:
            self.arrived(channel)
        if channel.has_output:  # of calls that do not begin
            channel.flush()
        self.actor.session.transport.wake()

    def _admit(self, call: Call) -> None:
        if self.sleep.is_waited_for:
            self.sleep.hold(call)
        else:
            call.channel.calls.append(call)

    def _begin_held(self, call: Call) -> None:
        """A suspend is over that it came during."""
        call.channel.calls.append(call)
        self.arrived(call.channel)

    def _no_group(self, call: Call) -> BadOptionsError:
        known = ", ".join(repr(name) for name in self.actor.groups if name != DEFAULT_GROUP) or "none"
        return BadOptionsError(
            f"{call.task_name}: the actor has no concurrency group {call.group!r}; it has {known}."
            " Name it in concurrency_groups= of the class."
        )

    def _about_call(self, channel: Channel, frame: list[Any]) -> None:
        kind = frame[0]
        if kind not in (_CANCEL, _READ, _CLOSE_STREAM) or not all(isinstance(field, int) for field in frame):
            raise ProtocolViolationError(f"callers do not send {repr(frame)[:80]}")
        call = channel.by_seq.get(frame[1])
        if call is None:
            return  # it was answered meanwhile
        if kind == _READ:
            call.items_read = max(call.items_read, frame[2])
        elif kind == _CLOSE_STREAM:
            call.is_closed = True
        else:
            call.is_cancelled = True
            if frame[2]:
                self._cancel_children(call)
        if kind == _READ or call.has_begun:
            if kind == _CANCEL:
                self.interrupt(call)
            if call.moved is not None:
                call.moved()
        elif self.sleep.take_back(call) or self.take_back(call):
            self.answered(call, self.actor.answers.ended(call))

    def _cancel_children(self, call: Call) -> None:
        for task_id, cancel in call.children:
            cancel(task_id)

    def arrived(self, channel: Channel) -> None:
        """It has calls that have not begun."""
        raise NotImplementedError

    def take_back(self, call: Call) -> bool:
        """Have a call that has not begun never begin; False when it is too late."""
        raise NotImplementedError

    def interrupt(self, call: Call) -> None:
        """A call that has begun is cancelled. Synchronous code can only ask whether it was."""

    def has_room(self, channel: Channel) -> None:
        for call in list(channel.by_seq.values()):
            if call.moved is not None:
                call.moved()
        self.arrived(channel)

    def gone(self, channel: Channel) -> None:
        """What it has asked for is still done; its streams end."""
        for call in list(channel.by_seq.values()):
            if call.moved is not None:
                call.moved()

    # ---- one call ----
    def answered(self, call: Call, frame: bytes) -> None:
        """The last frame of the call."""
        call.channel.by_seq.pop(call.seq, None)
        call.channel.gather(frame)
        if self.sleep.is_waited_for:
            self.board.wake()  # it may have been what the suspend waits for
        if self.actor.task.attempt > 1:
            # What ended the last life may be sent again, behind this call: were answers lost with it each time, no life would get further.
            call.channel.flush()

    def exit(self, error: SystemExit) -> None:
        """sys.exit() in a method: without an error it ends the actor; else its process ends as any other would."""
        if not error.code:
            self.end()
            return
        if not isinstance(error.code, int):
            sys.stderr.write(f"{error.code}\n")
        self.board.flush()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(error.code & 0xFF if isinstance(error.code, int) else 1)


def told_of_hook(instance: Any, name: str) -> None:
    """Print what it has raised: there is nobody else to tell."""
    sys.stderr.write(f"the exit hook {name} of {type(instance).__name__} failed:\n")
    traceback.print_exc()


def _exit_now(_instance: Any) -> None:
    raise ActorExit


# What Ray's handles have besides the methods of the class.
_SPECIAL: dict[str, Callable[..., Any]] = {
    "__ray_ready__": lambda _instance: True,
    "__ray_call__": lambda instance, function, *args, **kwargs: function(instance, *args, **kwargs),
    "__ray_terminate__": _exit_now,
}
