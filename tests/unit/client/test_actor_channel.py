from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from runner.client.actors.channel import TRANSITIONS, ActorChannel, Call, ChannelState, End
from runner.errors import ProtocolViolationError
from runner.rpc.actor_frames import PROTOCOL, REGISTERED, STREAMING, ActorKind, Decoder, encode
from runner.rpc.gen import client_pb2


@dataclass
class Told:
    """Writes down what a channel tells."""

    log: list[tuple[Any, ...]] = field(default_factory=list)

    def answered(self, call: Call, values: list[bytes], *, is_registered: bool) -> None:
        self.log.append(("answered", call.call_id, values, is_registered))

    def failed(self, call: Call, failure: bytes) -> None:
        self.log.append(("failed", call.call_id, failure))

    def item(self, call: Call, index: int, value: bytes, *, is_registered: bool) -> None:
        self.log.append(("item", call.call_id, index, value))

    def ended(self, call: Call, end: End, failure: bytes) -> None:
        self.log.append((end.value, call.call_id, failure))

    def registered(self, seq: int) -> None:
        self.log.append(("registered", seq))


class Peer:
    """A channel and what it sends, decoded."""

    def __init__(self) -> None:
        self.told = Told()
        self.channel = ActorChannel("t-1", "c-me", self.told)

    def call(self, *, retries: int = 0, num_returns: int = 1, **fields: Any) -> Call:
        seq = self.channel.next_seq()
        frame = encode(ActorKind.CALL, seq, f"c-{seq}", "m", b"", (), num_returns, 0)
        call = Call(seq, f"c-{seq}", "A.m", num_returns, retries, frame, **fields)
        self.channel.call(call)
        return call

    def update(self, state: str, incarnation: int = 1, failure: bytes = b"") -> None:
        self.channel.updated(
            client_pb2.ActorUpdate(
                actor_id="t-1", state=state, incarnation=incarnation, address="a", secret=b"s", failure=failure
            )
        )

    def connect(self) -> list[list[Any]]:
        hello = Decoder().feed(self.channel.hello())
        assert self.channel.received([int(ActorKind.WELCOME)])
        return hello

    def up(self, incarnation: int = 1) -> None:
        self.update("alive", incarnation)
        self.connect()

    def sent(self) -> list[tuple[int, ...]]:
        return [tuple(frame[:2]) for frame in Decoder().feed(self.channel.take())]

    def answer(self, seq: int) -> None:
        self.channel.received([int(ActorKind.RESULT), seq, [b"v"], 0])

    def ends(self) -> list[tuple[str, str]]:
        return [(entry[0], entry[1]) for entry in self.told.log]


CALL = int(ActorKind.CALL)


@pytest.fixture
def peer() -> Peer:
    return Peer()


def test_calls_wait_for_the_actor_and_go_in_order(peer: Peer) -> None:
    peer.call()
    peer.call()
    peer.update("pending")
    assert peer.channel.take() == b""
    peer.update("alive")
    assert peer.connect() == [[int(ActorKind.HELLO), PROTOCOL, b"s", "c-me", 1]]
    peer.call()
    assert peer.sent() == [(CALL, 1), (CALL, 2), (CALL, 3)]
    assert (peer.channel.pending, peer.channel.in_flight) == (3, 3)
    peer.answer(2)
    assert peer.told.log == [("answered", "c-2", [b"v"], False)]
    assert peer.channel.pending == 2


def test_a_call_whose_objects_are_unknown_holds_back_those_after_it(peer: Peer) -> None:
    peer.up()
    first = peer.call(is_ready=False)
    peer.call()
    assert peer.sent() == []
    peer.channel.ready(first)
    assert peer.sent() == [(CALL, 1), (CALL, 2)]


def test_one_that_is_not_ready_holds_up_nobody_where_calls_run_beside_each_other(peer: Peer) -> None:
    peer.up()
    first = peer.call(is_ready=False, holds_up=False)
    cancelled = peer.call(is_ready=False, holds_up=False)
    peer.call(holds_up=False)
    assert peer.sent() == [(CALL, 3)]
    assert (peer.channel.pending, peer.channel.in_flight) == (3, 1)
    peer.channel.cancel(cancelled, recursive=True)
    peer.channel.ready(cancelled)
    peer.channel.ready(first)
    assert peer.sent() == [(CALL, 1)]
    peer.call(is_ready=False, holds_up=False)
    peer.update("dead")
    assert sorted(peer.ends()) == [("cancelled", "c-2"), ("died", "c-1"), ("died", "c-3"), ("died", "c-4")]
    assert (peer.channel.pending, peer.channel.in_flight) == (0, 0)


def test_a_dead_actor_fails_what_is_sent_and_what_waits(peer: Peer) -> None:
    peer.call()
    peer.up()
    peer.call(is_ready=False, retries=-1)
    peer.update("dead", 1, b"why")
    peer.call()
    assert peer.told.log == [("died", f"c-{seq}", b"why") for seq in (1, 2, 3)]
    assert peer.channel.pending == 0
    peer.update("alive", 2)
    assert peer.channel.state is ChannelState.DEAD


def test_a_restart_fails_what_was_sent_and_keeps_what_waits(peer: Peer) -> None:
    peer.up()
    peer.call()
    waiting = peer.call(is_ready=False)
    peer.channel.broken()
    assert peer.told.log == []
    peer.update("restarting", 1, b"why")
    assert peer.told.log == [("unavailable", "c-1", b"why")]
    peer.call()
    waiting.is_ready = True
    peer.channel.take()
    peer.up(2)
    assert peer.sent() == [(CALL, 2), (CALL, 3)]


def test_calls_with_retries_are_sent_again_in_order_and_no_more_often_than_allowed(peer: Peer) -> None:
    peer.up()
    for retries in (1, 0, -1, 2):
        peer.call(retries=retries)
    peer.sent()
    peer.update("restarting")
    peer.call()
    peer.up(2)
    assert peer.ends() == [("unavailable", "c-2")]
    assert peer.sent() == [(CALL, 1), (CALL, 3), (CALL, 4), (CALL, 5)]
    peer.update("restarting", 2)
    peer.up(3)
    assert peer.ends()[1:] == [("unavailable", "c-1"), ("unavailable", "c-5")]
    assert peer.sent() == [(CALL, 3), (CALL, 4)]


def test_a_restart_that_was_not_told_counts_too(peer: Peer) -> None:
    peer.up()
    peer.call(retries=1)
    peer.call(retries=2)
    peer.sent()
    peer.update("alive", 3)
    assert peer.ends() == [("unavailable", "c-1")]
    peer.connect()
    assert peer.sent() == [(CALL, 2)]
    peer.update("restarting", 3)
    assert peer.ends() == [("unavailable", "c-1"), ("unavailable", "c-2")]


def test_old_news_changes_nothing(peer: Peer) -> None:
    peer.up(2)
    peer.call()
    peer.update("alive", 2)
    peer.update("alive", 1)
    peer.update("restarting", 1)
    assert peer.channel.state is ChannelState.OPEN
    assert peer.told.log == []


def test_a_new_connection_to_the_same_life_does_not_repeat_calls(peer: Peer) -> None:
    peer.up()
    peer.call()
    peer.call(retries=1)
    peer.sent()
    peer.channel.broken()
    peer.call()
    assert peer.sent() == []
    peer.connect()
    assert peer.ends() == [("unavailable", "c-1")]
    assert peer.sent() == [(CALL, 2), (CALL, 3)]


def test_cancelling(peer: Peer) -> None:
    waiting = peer.call()
    peer.channel.cancel(waiting, recursive=True)
    assert peer.ends() == [("cancelled", "c-1")]
    peer.up()
    running = peer.call(retries=3)
    peer.sent()
    peer.channel.cancel(running, recursive=True)
    assert peer.sent() == [(int(ActorKind.CANCEL), 2)]
    assert len(peer.told.log) == 1
    peer.update("restarting")
    assert peer.ends()[1:] == [("cancelled", "c-2")]
    assert peer.channel.find("c-2") is None


def test_calls_after_a_kill_do_not_reach_the_killed(peer: Peer) -> None:
    peer.up()
    peer.call()
    peer.sent()
    peer.channel.killed()
    peer.call()
    assert peer.sent() == []
    peer.update("restarting")
    peer.up(2)
    assert peer.ends() == [("unavailable", "c-1")]
    assert peer.sent() == [(CALL, 2)]
    peer.channel.killed()
    peer.call()
    peer.update("dead")
    assert peer.ends()[1:] == [("died", "c-2"), ("died", "c-3")]


def test_errors_of_the_users_code_are_tried_again_where_that_is_wanted(peer: Peer) -> None:
    peer.up()
    peer.call(retries=1, may_retry=lambda failure: failure == b"again")
    peer.sent()
    peer.channel.received([int(ActorKind.FAILURE), 1, b"again", True, 0])
    assert peer.sent() == [(CALL, 1)]
    peer.channel.received([int(ActorKind.FAILURE), 1, b"again", True, 0])
    assert peer.told.log == [("failed", "c-1", b"again")]
    peer.call(retries=1, may_retry=lambda failure: failure == b"again")
    peer.channel.received([int(ActorKind.FAILURE), 2, b"other", True, 0])
    assert peer.told.log[1:] == [("failed", "c-2", b"other")]


def test_a_repeated_stream_shows_no_gap_and_no_repeat(peer: Peer) -> None:
    peer.up()
    call = peer.call(num_returns=STREAMING, retries=1)
    item = int(ActorKind.ITEM)
    for index in range(2):
        peer.channel.received([item, 1, index, b"%d" % index, 0])
    peer.update("restarting")
    peer.up(2)
    for index in range(3):
        peer.channel.received([item, 1, index, b"again", 0])
    peer.channel.received([int(ActorKind.RESULT), 1, [], 0])
    items = [entry[2:] for entry in peer.told.log if entry[0] == "item"]
    assert items == [(0, b"0"), (1, b"1"), (2, b"again")]
    assert peer.ends()[-1] == ("answered", "c-1")
    assert call.items == 3
    peer.call(num_returns=STREAMING)
    with pytest.raises(ProtocolViolationError, match="item 1"):
        peer.channel.received([item, 2, 1, b"", 0])


def test_streams_are_read_and_closed(peer: Peer) -> None:
    early = peer.call(num_returns=STREAMING)
    peer.channel.close_stream(early)
    assert peer.ends() == [("cancelled", "c-1")]
    peer.up()
    call = peer.call(num_returns=STREAMING)
    peer.sent()
    peer.channel.read(call, 3)
    peer.channel.close_stream(call)
    assert peer.sent() == [(int(ActorKind.READ), 2), (int(ActorKind.CLOSE_STREAM), 2)]


def test_registered_answers_are_told_also_when_nobody_waits(peer: Peer) -> None:
    peer.up()
    peer.call()
    peer.sent()
    for _ in range(2):
        peer.channel.received([int(ActorKind.RESULT), 1, [b"v"], REGISTERED])
    assert peer.told.log == [("answered", "c-1", [b"v"], True), ("registered", 1), ("registered", 1)]
    peer.channel.released(1)
    assert peer.sent() == [(int(ActorKind.RELEASED), 1)]


def test_nonsense_is_refused(peer: Peer) -> None:
    peer.up()
    peer.call()
    for frame in ([int(ActorKind.HELLO), 1, b"", "", 1], [int(ActorKind.WELCOME)], [int(ActorKind.RESULT), 1, [], 0]):
        with pytest.raises(ProtocolViolationError):
            peer.channel.received(frame)
    assert not peer.channel.received([int(ActorKind.REFUSED), "no"])


def test_every_state_can_come_to_its_end() -> None:
    for state, targets in TRANSITIONS.items():
        assert (ChannelState.DEAD in targets) == (state is not ChannelState.DEAD)
