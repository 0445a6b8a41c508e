"""Actors whose calls run beside each other: in threads, and as coroutines."""

from __future__ import annotations

from typing import Any

import pytest

from runner.objects.arguments import Slot
from runner.objects.serialization import serialize
from runner.rpc.actor_frames import REGISTERED, STREAMING, ActorKind, encode
from runner.rpc.gen import types_pb2
from runner.worker import frames
from runner.worker.frames import Kind
from tests.integration.helpers import wait_until
from tests.integration.worker.actor_classes import Coroutines, Threads
from tests.integration.worker.actor_harness import SERIAL, Caller, Forker, called, decode, packed


def results(caller: Caller, count: int) -> dict[int, Any]:
    """Values by seq, in the order in which they come."""
    frames = [caller.expect(ActorKind.RESULT) for _ in range(count)]
    return {seq: decode(values[0]) for _, seq, values, _ in frames}


# ---- threads ----
def test_calls_run_beside_each_other_in_threads(forker: Forker) -> None:
    with called(forker, Threads, max_concurrency=2) as (_, caller):
        seqs = [caller.call("meet") for _ in range(4)]
        assert results(caller, 4) == {seq: f"c-1-{seq}" for seq in seqs}


def test_concurrency_groups_have_threads_of_their_own(forker: Forker) -> None:
    with called(forker, Threads, concurrency_groups={"io": 1}) as (_, caller):
        held = caller.call("hold@io")
        behind = caller.call("quick@io")
        assert caller.result(caller.call("quick")) == "runner-default-1"
        caller.tell(ActorKind.CANCEL, behind, False)
        assert caller.failure(behind).kind == types_pb2.FAILURE_KIND_CANCELLED
        let = caller.call("let")
        assert results(caller, 2) == {held: True, let: None}
        assert caller.get("quick@io") == "runner-io-1"


def test_a_call_in_a_thread_sees_that_it_is_cancelled(forker: Forker) -> None:
    with called(forker, Threads, max_concurrency=3) as (_, caller):
        first = caller.call("until_cancelled")
        wait_until(lambda: caller.get("meets") == 1, 10, "the first call has begun")
        second = caller.call("until_cancelled")
        wait_until(lambda: caller.get("meets") == 0, 10, "the second call has begun")
        for seq in (second, first):
            caller.tell(ActorKind.CANCEL, seq, False)
            assert caller.failure(seq).kind == types_pb2.FAILURE_KIND_CANCELLED


def test_generators_in_threads(forker: Forker) -> None:
    with called(forker, Threads, max_concurrency=2) as (_, caller):
        slow = caller.stream("numbers", 3, backpressure=1)
        assert caller.item(slow) == (0, 0)
        quick = caller.stream("numbers", 2)
        assert [caller.item(quick) for _ in range(2)] == [(0, 0), (1, 1)]
        assert caller.expect(ActorKind.RESULT)[1] == quick
        caller.tell(ActorKind.READ, slow, 1)
        assert caller.item(slow) == (1, 1)
        caller.tell(ActorKind.CANCEL, slow, False)
        assert caller.failure(slow).kind == types_pb2.FAILURE_KIND_CANCELLED


# ---- coroutines ----
def test_coroutines_run_beside_each_other_and_begin_in_order(forker: Forker) -> None:
    with called(forker, Coroutines) as (_, caller):
        waiting = [caller.call("wait") for _ in range(50)]
        notes = [caller.call("note", n) for n in range(5)]
        assert results(caller, 5)[notes[-1]] == ["entered", 0, 1, 2, 3, 4]
        let = caller.call("let")
        got = results(caller, 51)
        assert got.pop(let) is True
        assert got == {seq: f"c-1-{seq}" for seq in waiting}


def test_so_many_coroutines_at_a_time(forker: Forker) -> None:
    with called(forker, Coroutines, max_concurrency=2, concurrency_groups={"other": 1}) as (_, caller):
        waiting = [caller.call("wait"), caller.call("wait")]
        behind = [caller.call("note", 1), caller.call("note", 2)]
        let = caller.call("let@other")
        assert caller.result(let) is True
        assert list(results(caller, 4)) == [*waiting, *behind]


def test_cancelling_coroutines(forker: Forker) -> None:
    with called(forker, Coroutines, max_concurrency=1) as (_, caller):
        running, behind, after = caller.call("for_ever"), caller.call("note", 1), caller.call("note", 2)
        for seq in (behind, running):
            caller.tell(ActorKind.CANCEL, seq, False)
            assert caller.failure(seq).kind == types_pb2.FAILURE_KIND_CANCELLED
        assert caller.result(after) == ["entered", "cancelled", 2]


@pytest.mark.parametrize("relayed", [False, True])
def test_a_cancel_that_comes_with_the_call(forker: Forker, *, relayed: bool) -> None:
    with called(forker, Coroutines) as (agent, near):
        caller = Caller(agent, [0, 0, near.address, near.secret], "c-2", relayed=relayed).welcome()
        frame, seq = caller.frame("note", 1)
        cancel = encode(ActorKind.CANCEL, seq, False)
        if relayed:  # two pieces at once
            pieces = [frames.encode(Kind.ACTOR_IN, SERIAL, "relayed/c-2", each) for each in (frame, cancel)]
            agent.sock.sendall(b"".join(pieces))
        else:
            caller.send(frame + cancel)
        answer = caller.next()
        if relayed and answer[0] == ActorKind.RESULT:  # the call was quicker than the second piece
            assert near.get("note", 2) == ["entered", 1, 2]
        else:
            assert types_pb2.Failure.FromString(answer[2]).kind == types_pb2.FAILURE_KIND_CANCELLED
            assert near.get("note", 2) == ["entered", 2]
        caller.close()


@pytest.mark.parametrize("method", ["numbers", "plain_numbers"])
def test_generators_on_the_loop(forker: Forker, method: str) -> None:
    with called(forker, Coroutines) as (_, caller):
        seq = caller.stream(method, 3, backpressure=1)
        for index in range(3):
            assert caller.item(seq) == (index, index)
            assert caller.get("value_of", "meanwhile") == "meanwhile"
            caller.tell(ActorKind.READ, seq, index + 1)
        assert caller.expect(ActorKind.RESULT)[1:3] == [seq, []]


def test_nobody_reads_an_async_generator_on(forker: Forker) -> None:
    with called(forker, Coroutines) as (_, caller):
        waits = caller.stream("numbers", 1000, backpressure=1)
        caller.item(waits)
        caller.tell(ActorKind.CLOSE_STREAM, waits)
        assert caller.expect(ActorKind.RESULT)[1:3] == [waits, []]
        makes = caller.stream("one_and_wait")
        caller.item(makes)
        caller.tell(ActorKind.CLOSE_STREAM, makes)
        assert caller.expect(ActorKind.RESULT)[1:3] == [makes, []]
        assert caller.get("note", 0) == ["entered", "closed", "ended", 0]


def test_arguments_and_refs_of_coroutines(forker: Forker) -> None:
    with called(forker, Coroutines) as (agent, caller):
        agent.objects["o-1"] = types_pb2.Value(inline=serialize("asked").to_bytes()).SerializeToString()
        slot = types_pb2.Value(inline=serialize(((Slot(0),), {})).to_bytes())
        assert caller.get("value_of", packed=slot, dependencies=(("o-1", b""),)) == "asked"
        agent.withhold()
        large, kept = caller.call("large"), caller.call("keep", packed=packed("o-2"))
        agent.told("add_refs", "o-2")
        assert caller.get("value_of", "meanwhile") == "meanwhile"
        agent.acknowledge()
        answers = {frame[1]: frame[3] for frame in (caller.expect(ActorKind.RESULT), caller.expect(ActorKind.RESULT))}
        assert answers == {large: REGISTERED, kept: 0}


def test_a_cancel_that_comes_when_the_answer_is_made_changes_nothing(forker: Forker) -> None:
    with called(forker, Coroutines) as (agent, caller):
        agent.withhold()
        large = caller.call("large")
        agent.told("put", f"c-1-{large}.0")
        caller.tell(ActorKind.CANCEL, large, False)
        assert caller.get("value_of", "meanwhile") == "meanwhile"
        agent.acknowledge()
        assert caller.expect(ActorKind.RESULT)[1] == large


def test_get_on_the_loop_warns_once_and_works(forker: Forker) -> None:
    with called(forker, Coroutines) as (agent, caller):
        for object_id in ("o-1", "o-2"):
            agent.objects[object_id] = types_pb2.Value(inline=serialize(object_id).to_bytes()).SerializeToString()
            assert caller.get("blocking_get", packed=packed(object_id)) == object_id
        assert agent.stderr().count("`await ref`") == 1


@pytest.mark.parametrize("how", ["leave", "asked"])
def test_an_actor_with_coroutines_ends(forker: Forker, tmp_path: Any, how: str) -> None:
    flag = tmp_path / "flag"
    with called(forker, Coroutines, str(flag), grace_s=0.4) as (agent, caller):
        caller.call("for_ever")
        caller.get("note", 1)
        if how == "leave":
            caller.call("leave", num_returns=STREAMING)
        else:
            agent.send(Kind.ACTOR_EXIT, 7)
        assert agent.ended().WhichOneof("outcome") == "returns"
        assert flag.read_text() == "['entered', 1, 'cancelled']"
        assert caller.next() == []
