"""One caller's calls of one actor, without I/O: their order, which are unanswered, and what a broken channel means for them.

Calls enter by `call` and wait while the actor cannot be reached. `updated` says where the actor is; the shell then
connects, sends `hello` and everything from `take`, and hands in each frame that comes. What is settled is told to the
`Client`. Callers hold one lock around every method.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from runner.errors import ProtocolViolationError
from runner.rpc.actor_frames import PROTOCOL, REGISTERED, STREAMING, ActorKind, Frame, encode
from runner.rpc.gen import client_pb2


class ChannelState(enum.Enum):
    """What the caller knows of the way to the actor."""

    WAITING = "waiting"  # the actor has no place yet, or is being restarted: the server tells
    LOCATED = "located"  # a connection is wanted
    GREETED = "greeted"  # HELLO is on its way
    OPEN = "open"
    DEAD = "dead"


TRANSITIONS: dict[ChannelState, frozenset[ChannelState]] = {
    ChannelState.WAITING: frozenset({ChannelState.LOCATED, ChannelState.DEAD}),
    ChannelState.LOCATED: frozenset({ChannelState.GREETED, ChannelState.WAITING, ChannelState.DEAD}),
    ChannelState.GREETED: frozenset({ChannelState.OPEN, ChannelState.LOCATED, ChannelState.WAITING, ChannelState.DEAD}),
    ChannelState.OPEN: frozenset({ChannelState.LOCATED, ChannelState.WAITING, ChannelState.DEAD}),
    ChannelState.DEAD: frozenset(),
}


class End(enum.Enum):
    """Why a call ends without an answer of the actor."""

    DIED = "died"
    UNAVAILABLE = "unavailable"
    CANCELLED = "cancelled"


@dataclass(slots=True, eq=False)
class Call:
    """One call. `frame` is what is sent; `keep` is alive until the answer."""

    seq: int
    call_id: str
    name: str  # for people
    num_returns: int
    retries: int  # left; -1: no limit
    frame: bytes = field(repr=False)
    keep: Any = field(default=None, repr=False)
    # Whether a failure of the user's code, as serialised, is to be tried again.
    may_retry: Callable[[bytes], bool] | None = field(default=None, repr=False)
    is_ready: bool = True  # its arguments are final, and the server knows all objects that it names
    holds_up: bool = True  # until then later calls wait too: the actor runs its calls in their order
    is_sent: bool = False
    is_cancelled: bool = False
    items: int = 0  # of its stream, that have come


class Client(Protocol):
    """Whom a channel tells of its calls. Called under the lock."""

    def answered(self, call: Call, values: list[bytes], *, is_registered: bool) -> None:
        """The method has returned; `values` are serialised."""

    def failed(self, call: Call, failure: bytes) -> None:
        """The actor answers with a serialised Failure."""

    def item(self, call: Call, index: int, value: bytes, *, is_registered: bool) -> None:
        """The next item of a stream; each comes once and in order."""

    def ended(self, call: Call, end: End, failure: bytes) -> None:
        """There will be no answer; `failure` says what happened to the actor, empty when that is not known."""

    def registered(self, seq: int) -> None:
        """A registered answer came: `released` is to be called when the server knows that its values are held here."""


class ActorChannel:
    """State of the calls of one actor."""

    def __init__(self, actor_id: str, caller_id: str, client: Client) -> None:
        self.actor_id = actor_id
        self.caller_id = caller_id
        self.state = ChannelState.WAITING
        self.incarnation = 0
        self.is_asleep = False  # its machine is suspended, until somebody wants it
        self.place: client_pb2.ActorUpdate | None = None  # where it is said to be
        self.failure = b""  # of a dead actor, or of its last incarnation
        self._client = client
        self._is_killed = False  # by us: what is called from now on is not for this incarnation
        self._next_seq = 1
        self._calls: dict[int, Call] = {}  # unanswered
        self._by_id: dict[str, Call] = {}
        self._queue: deque[Call] = deque()  # of these the ones to be sent, in order
        self._parked: set[Call] = set()  # and those that join them when they are ready
        self._out: list[bytes] = []
        self._out_bytes = 0

    # ---- calls ----
    @property
    def pending(self) -> int:
        """How many calls are unanswered."""
        return len(self._calls)

    @property
    def in_flight(self) -> int:
        """How many of them the actor has."""
        return len(self._calls) - len(self._queue) - len(self._parked)

    @property
    def out_bytes(self) -> int:
        """How much is to be sent."""
        return self._out_bytes

    def next_seq(self) -> int:
        """The number for the next call. Calls come to `call` in the order of their numbers."""
        seq = self._next_seq
        self._next_seq += 1
        return seq

    def call(self, call: Call) -> None:
        """Send it as soon as it is ready and the actor can take it; after those that were made before and hold it up."""
        if self.state is ChannelState.DEAD:
            self._client.ended(call, End.DIED, self.failure)
            return
        self._calls[call.seq] = call
        self._by_id[call.call_id] = call
        if call.is_ready or call.holds_up:
            self._queue.append(call)
            self._pump()
        else:
            self._parked.add(call)

    def ready(self, call: Call) -> None:
        """What the call needs is there by now, and the server knows what it names."""
        call.is_ready = True
        if call in self._parked:
            self._parked.remove(call)
            self._queue.append(call)
        self._pump()

    def killed(self) -> None:
        """We have asked for its death: later calls wait for the word on it, as if they had come after it."""
        self._is_killed = self.state not in (ChannelState.WAITING, ChannelState.DEAD)

    def find(self, call_id: str) -> Call | None:
        """An unanswered call."""
        return self._by_id.get(call_id)

    def cancel(self, call: Call, *, recursive: bool) -> None:
        """Ask for its end; one that was not sent ends now."""
        call.retries = 0
        call.is_cancelled = True
        if call.is_sent:
            self._put(encode(ActorKind.CANCEL, call.seq, recursive))
        else:
            if call in self._parked:
                self._parked.remove(call)
            else:
                self._queue.remove(call)
            self._end(call, End.CANCELLED)

    def read(self, call: Call, count: int) -> None:
        """So many items of its stream were read."""
        if call.is_sent:
            self._put(encode(ActorKind.READ, call.seq, count))

    def close_stream(self, call: Call) -> None:
        """Nobody reads its stream on."""
        if call.is_sent:
            self._put(encode(ActorKind.CLOSE_STREAM, call.seq))
        else:
            self.cancel(call, recursive=True)

    def released(self, seq: int) -> None:
        """The values of the oldest registered answer of this call are held here."""
        self._put(encode(ActorKind.RELEASED, seq))

    # ---- the way to the actor ----
    def updated(self, update: client_pb2.ActorUpdate) -> None:
        """The server tells of the actor. It may repeat itself."""
        if self.state is ChannelState.DEAD:
            return
        self.is_asleep = update.asleep
        if update.state == "dead":
            self.failure = update.failure
            self._move(ChannelState.DEAD)
            for call in list(self._calls.values()):
                self._end(call, End.DIED)
            self._queue.clear()
            self._parked.clear()
        elif update.state == "alive" and update.incarnation > self.incarnation:
            self._lose(update.incarnation - self.incarnation if self.incarnation else 1)
            self.incarnation, self.place, self._is_killed = update.incarnation, update, False
            if self.state is not ChannelState.LOCATED:
                self._move(ChannelState.LOCATED)
        elif update.state == "restarting" and update.incarnation >= self.incarnation:
            self.failure, self._is_killed = update.failure, False
            if self.state is not ChannelState.WAITING:
                self._move(ChannelState.WAITING)
            self._lose(1)

    def hello(self) -> bytes:
        """A connection is there: the first bytes on it."""
        assert self.place is not None
        if self.state in (ChannelState.GREETED, ChannelState.OPEN):
            self._move(ChannelState.LOCATED)
        self._move(ChannelState.GREETED)
        return encode(ActorKind.HELLO, PROTOCOL, self.place.secret, self.caller_id, self.incarnation)

    def broken(self) -> None:
        """The connection is gone; whether the actor is, the server tells, or another connection does."""
        if self.state in (ChannelState.GREETED, ChannelState.OPEN):
            self._move(ChannelState.LOCATED)

    def take(self) -> bytes:
        """What is to be sent now."""
        out = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        return out

    def received(self, frame: Frame) -> bool:
        """One frame of the actor; False: it refuses this caller. May be repeated when it was interrupted.

        Raises:
            ProtocolViolationError: it must not send this.
        """
        kind = frame[0]
        if kind == ActorKind.RESULT:
            self._result(frame[1], frame[2], frame[3])
        elif kind == ActorKind.ITEM:
            self._item(frame[1], frame[2], frame[3], frame[4])
        elif kind == ActorKind.FAILURE:
            self._failure(frame[1], frame[2], is_retryable=frame[3])
        elif kind == ActorKind.WELCOME:
            self._welcomed()
        elif kind == ActorKind.REFUSED:
            return False
        else:
            raise ProtocolViolationError(f"an actor sent frame {kind} to its caller")
        return True

    # ---- inside ----
    def _welcomed(self) -> None:
        if self.state is not ChannelState.GREETED:
            raise ProtocolViolationError("an actor welcomed a caller twice")
        self._lose(1)  # what was sent before went to a connection that is gone
        self._move(ChannelState.OPEN)
        self._pump()

    def _result(self, seq: int, values: list[bytes], flags: int) -> None:
        is_registered = bool(flags & REGISTERED)
        call = self._calls.get(seq)
        if call is not None:
            expected = 0 if call.num_returns == STREAMING else call.num_returns
            if len(values) != expected:
                raise ProtocolViolationError(f"{call.call_id} has {expected} results and got {len(values)}")
            self._client.answered(call, values, is_registered=is_registered)
            self._forget(call)
        if is_registered:
            self._client.registered(seq)

    def _item(self, seq: int, index: int, value: bytes, flags: int) -> None:
        is_registered = bool(flags & REGISTERED)
        call = self._calls.get(seq)
        if call is not None and index >= call.items:  # else an attempt repeats it
            if index > call.items:
                raise ProtocolViolationError(f"item {index} of {call.call_id} came after item {call.items - 1}")
            self._client.item(call, index, value, is_registered=is_registered)
            call.items = index + 1
        if is_registered:
            self._client.registered(seq)

    def _failure(self, seq: int, failure: bytes, *, is_retryable: bool) -> None:
        call = self._calls.get(seq)
        if call is None:
            return
        if is_retryable and call.retries and call.may_retry is not None and call.may_retry(failure):
            call.retries -= call.retries > 0
            self._put(call.frame)
            return
        self._client.failed(call, failure)
        self._forget(call)

    def _lose(self, restarts: int) -> None:
        """Nobody will answer what was sent: it is sent again where it may be, in order, before what was not sent yet."""
        self._out.clear()
        self._out_bytes = 0
        again: list[Call] = []
        for call in [each for each in self._calls.values() if each.is_sent]:
            if call.retries < 0 or call.retries >= restarts:
                call.retries -= restarts if call.retries > 0 else 0
                call.is_sent = False
                again.append(call)
            else:
                self._end(call, End.UNAVAILABLE)
        self._queue = deque(sorted([*again, *self._queue], key=lambda each: each.seq))

    def _pump(self) -> None:
        while self.state is ChannelState.OPEN and not self._is_killed and self._queue and self._queue[0].is_ready:
            self._send(self._queue.popleft())

    def _send(self, call: Call) -> None:
        call.is_sent = True
        self._put(call.frame)

    def _put(self, frame: bytes) -> None:
        if self.state is ChannelState.OPEN:
            self._out.append(frame)
            self._out_bytes += len(frame)

    def _end(self, call: Call, end: End) -> None:
        self._forget(call)
        self._client.ended(call, End.CANCELLED if call.is_cancelled else end, self.failure)

    def _forget(self, call: Call) -> None:
        del self._calls[call.seq]
        del self._by_id[call.call_id]

    def _move(self, to: ChannelState) -> None:
        if to not in TRANSITIONS[self.state]:
            raise ProtocolViolationError(f"channel to {self.actor_id}: {self.state.value} -> {to.value}")
        self.state = to
