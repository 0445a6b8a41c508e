"""A channel against an actor that restarts, loses connections and dies at any moment.

Without retries no call runs twice; calls of one life run in the order in which they were made; each call ends once, and
all of them have ended when the actor is dead.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runner.client.actors.channel import ActorChannel, Call, ChannelState, End
from runner.rpc.actor_frames import ActorKind, Decoder, encode
from runner.rpc.gen import client_pb2


class ChannelMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.channel = ActorChannel("t-1", "c-me", self)
        self.calls: dict[str, Call] = {}
        self.allowed: dict[str, int] = {}
        self.ends: dict[str, str] = {}
        self.runs: dict[str, int] = {}
        self.incarnation = 0
        self.is_up = False
        self.is_dead = False
        self.wire: deque[list[Any]] = deque()  # sent by the caller, not read yet
        self.last_seq = 0  # that this connection has run
        self.decoder = Decoder()

    # ---- Client ----
    def _end(self, call: Call, how: str) -> None:
        assert call.call_id not in self.ends
        self.ends[call.call_id] = how

    def answered(self, call: Call, values: list[bytes], *, is_registered: bool) -> None:
        assert values == [call.call_id.encode()]
        self._end(call, "answered")

    def failed(self, call: Call, failure: bytes) -> None:
        self._end(call, "failed")

    def item(self, call: Call, index: int, value: bytes, *, is_registered: bool) -> None:
        raise AssertionError

    def ended(self, call: Call, end: End, failure: bytes) -> None:
        assert end is not End.DIED or self.is_dead
        self._end(call, end.value)

    def registered(self, seq: int) -> None:
        raise AssertionError

    # ---- what may happen ----
    @initialize(is_ordered=st.booleans())
    def choose(self, is_ordered: bool) -> None:
        self.is_ordered = is_ordered  # else calls run beside each other

    @rule(retries=st.integers(-1, 2), is_ready=st.booleans())
    def call(self, retries: int, is_ready: bool) -> None:
        seq = self.channel.next_seq()
        frame = encode(ActorKind.CALL, seq, f"c-{seq}", "m", b"", (), 1, 0)
        call = Call(seq, f"c-{seq}", "A.m", 1, retries, frame, is_ready=is_ready, holds_up=self.is_ordered)
        self.calls[call.call_id], self.allowed[call.call_id] = call, retries
        self.channel.call(call)
        self._carry()

    @rule(pick=st.integers(0))
    def know(self, pick: int) -> None:
        unready = [call for call in self.calls.values() if not call.is_ready]
        if unready:
            self.channel.ready(unready[pick % len(unready)])
            self._carry()

    @rule(pick=st.integers(0))
    def cancel(self, pick: int) -> None:
        pending = [call for call in self.calls.values() if call.call_id not in self.ends]
        if pending:
            self.channel.cancel(pending[pick % len(pending)], recursive=True)
            self._carry()

    @precondition(lambda self: not self.is_dead and not self.is_up)
    @rule()
    def start(self) -> None:
        self.incarnation += 1
        self.is_up = True
        self._update("alive")

    @precondition(lambda self: self.is_up)
    @rule(is_told=st.booleans())
    def crash(self, is_told: bool) -> None:
        self.is_up = False
        self._cut()
        if is_told:
            self._update("restarting")

    @precondition(lambda self: not self.is_dead)
    @rule()
    def die(self) -> None:
        self.is_up, self.is_dead = False, True
        self._cut()
        self._update("dead")

    @rule()
    def repeat_news(self) -> None:
        if self.incarnation:
            self._update("dead" if self.is_dead else "alive" if self.is_up else "restarting")

    @precondition(lambda self: self.channel.state is ChannelState.LOCATED and self.is_up)
    @rule()
    def connect(self) -> None:
        if self.channel.incarnation != self.incarnation:
            return
        self.channel.hello()
        self.decoder, self.last_seq = Decoder(), 0
        self.channel.received([int(ActorKind.WELCOME)])
        self._carry()

    @precondition(lambda self: self.channel.state is ChannelState.OPEN)
    @rule()
    def cut(self) -> None:
        self._cut()

    @precondition(lambda self: self.wire)
    @rule(is_answered=st.booleans())
    def run(self, is_answered: bool) -> None:
        frame = self.wire.popleft()
        if frame[0] != ActorKind.CALL:
            return
        seq, call_id = frame[1:3]
        assert seq > self.last_seq or not self.is_ordered
        self.last_seq = seq
        self.runs[call_id] = self.runs.get(call_id, 0) + 1
        if is_answered:
            self.channel.received([int(ActorKind.RESULT), seq, [call_id.encode()], 0])
            self._carry()

    # ---- the wire ----
    def _carry(self) -> None:
        data = self.channel.take()
        if data:
            assert self.channel.state is ChannelState.OPEN
            self.wire.extend(self.decoder.feed(data))

    def _cut(self) -> None:
        self.wire.clear()
        self.channel.broken()

    def _update(self, state: str) -> None:
        self.channel.updated(
            client_pb2.ActorUpdate(actor_id="t-1", state=state, incarnation=self.incarnation, secret=b"s")
        )
        if self.channel.state is not ChannelState.OPEN:
            self.wire.clear()

    # ---- what must hold ----
    @invariant()
    def runs_are_bounded(self) -> None:
        for call_id, runs in self.runs.items():
            assert self.allowed[call_id] < 0 or runs <= 1 + self.allowed[call_id], call_id

    @invariant()
    def calls_are_pending_or_ended(self) -> None:
        assert self.channel.pending == len(self.calls) - len(self.ends)
        assert 0 <= self.channel.in_flight <= self.channel.pending
        if self.is_dead:
            assert self.channel.pending == 0


TestChannel = ChannelMachine.TestCase
TestChannel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
