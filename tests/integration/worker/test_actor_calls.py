"""Calls of an actor in a real executor, over its socket."""

from __future__ import annotations

import socket
from typing import Any

import pytest

import runner
from runner.objects.arguments import Slot
from runner.objects.serialization import deserialize, serialize
from runner.objects.store import open_segment
from runner.rpc import actor_frames
from runner.rpc.actor_frames import REGISTERED, ActorKind
from runner.rpc.gen import types_pb2
from runner.worker.frames import Kind
from tests.integration.helpers import wait_until
from tests.integration.worker.actor_classes import Counter
from tests.integration.worker.actor_harness import Agent, Caller, Forker, actor, called, decode, packed


def test_calls_run_in_order_and_hooks_before_them(forker: Forker) -> None:
    with called(forker, Counter, 5) as (_, caller):
        seqs = [caller.call("add", n) for n in range(50)]
        assert [caller.result(seq) for seq in seqs] == [105 + sum(range(n + 1)) for n in range(50)]


def test_many_calls_in_one_piece_and_pieces_of_one_call(forker: Forker) -> None:
    with called(forker, Counter) as (_, caller):
        frames = [caller.frame("add") for _ in range(300)]
        data = b"".join(frame for frame, _ in frames)
        caller.send(data[:5])
        caller.send(data[5:])
        assert [caller.result(seq) for _, seq in frames] == list(range(101, 401))


def test_num_returns(forker: Forker) -> None:
    with called(forker, Counter) as (_, caller):
        caller.call("pair", num_returns=2)
        _, _, values, flags = caller.expect(ActorKind.RESULT)
        assert ([decode(each) for each in values], flags) == ([1, 2], 0)
        caller.call("pair", num_returns=0)
        assert caller.expect(ActorKind.RESULT)[2] == []
        seq = caller.call("pair", num_returns=3)
        assert "returned 2 values but num_returns=3" in caller.failure(seq).message


def test_what_a_method_raises_is_told_and_the_actor_goes_on(forker: Forker) -> None:
    with called(forker, Counter) as (_, caller):
        failure = caller.failure(caller.call("fail"))
        assert failure.exception_type == "builtins.ValueError"
        assert failure.task_name == "Counter.fail"
        assert "_outcome" not in failure.traceback
        assert "as asked" in failure.traceback
        assert "AttributeError" in caller.failure(caller.call("nothing")).exception_type
        assert caller.failure(caller.call("add@other")).exception_type == "runner.errors.BadOptionsError"
        assert caller.get("add") == 101


def test_a_constructor_that_raises_fails_the_creation(forker: Forker) -> None:
    class Broken:
        def __init__(self) -> None:
            raise ValueError("no such thing")

    class BrokenHook:
        @runner.enter
        def begin(self) -> None:
            raise ValueError("no such hook")

    for cls, words in ((Broken, "no such thing"), (BrokenHook, "no such hook")):
        agent = Agent(forker)
        agent.create(cls)
        failure = agent.ended().failure
        assert (failure.kind, failure.message) == (types_pb2.FAILURE_KIND_USER, words)
        agent.close()


# ---- who may call ----
@pytest.mark.parametrize(
    ("hello", "words"),
    [
        ({"secret": b"guess"}, "secret"),
        ({"protocol": 99}, "protocol"),
        ({"incarnation": 2}, "incarnation 1"),
    ],
)
def test_strangers_are_refused(forker: Forker, hello: dict[str, Any], words: str) -> None:
    with actor(forker, Counter) as (agent, ready):
        caller = Caller(agent, ready, **hello)
        kind, text = caller.next()
        assert (kind, words in text) == (ActorKind.REFUSED, True), text
        assert caller.next() == []
        caller.close()
        rude = Caller(agent, ready).welcome()
        rude.send(actor_frames.encode(ActorKind.WELCOME))
        assert rude.next()[0] == ActorKind.REFUSED
        rude.close()
        caller = Caller(agent, ready).welcome()
        assert caller.get("add") == 101
        caller.close()


def test_callers_on_the_same_host_and_elsewhere(forker: Forker) -> None:
    with called(forker, Counter) as (agent, near):
        far = Caller(agent, [0, 0, "", near.secret], "c-far", relayed=True).welcome()
        assert far.get("add") == 101
        assert near.get("add") == 102
        seqs = [far.call("add") for _ in range(20)]
        assert [far.result(seq) for seq in seqs] == list(range(103, 123))
        assert len(deserialize(types_pb2.Value.FromString(far_large(far)).inline)) == 90_000
        guess = Caller(agent, [0, 0, "", b"guess"], "c-guess", relayed=True)
        assert guess.next()[0] == ActorKind.REFUSED


def test_an_actor_without_descriptors_turns_callers_away_and_goes_on(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        caller.get("use_up_descriptors")
        with socket.socket(socket.AF_UNIX) as late:
            late.settimeout(10)
            late.connect(caller.address)
            assert late.recv(1) == b""  # it hangs up
        far = Caller(agent, [0, 0, caller.address, caller.secret], "c-3", relayed=True).welcome()
        assert far.get("add") == caller.get("add") - 1


def test_a_relayed_caller_that_begins_again_or_goes(forker: Forker) -> None:
    with called(forker, Counter) as (agent, near):
        ready = [0, 0, "", near.secret]
        far = Caller(agent, ready, "c-far", relayed=True).welcome()
        seq = far.call("large")
        far.expect(ActorKind.RESULT)
        far = Caller(agent, ready, "c-far", relayed=True).welcome()  # what was held for the first is not any more
        agent.told("release_refs", f"c-far-{seq}.0")
        seq = far.stream("numbers", 1000, backpressure=1)
        far.item(seq)
        far.send(b"")  # the agent's word that the caller is gone
        assert near.get("add", 0) == -1


def far_large(caller: Caller) -> bytes:
    seq = caller.call("value_of", b"x" * 90_000)
    _, answered, values, _ = caller.expect(ActorKind.RESULT)
    assert answered == seq
    return values[0]


# ---- large values and refs ----
def test_a_large_result_is_known_to_the_coordinator_and_held_until_it_is_released(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        agent.withhold()
        seq = caller.call("large")
        agent.told("put", f"c-1-{seq}.0")
        assert caller.is_silent(0.05)
        agent.acknowledge()
        _, _, values, flags = caller.expect(ActorKind.RESULT)
        assert flags == REGISTERED
        segment = types_pb2.Value.FromString(values[0]).segment
        assert deserialize(open_segment(segment.path, segment.size_bytes)) == bytes(300_000)
        caller.get("add")
        assert not agent._has("release_refs", f"c-1-{seq}.0")
        caller.tell(ActorKind.RELEASED, seq)
        agent.told("release_refs", f"c-1-{seq}.0")
        # And when the caller goes without a word.
        seq = caller.call("large")
        caller.expect(ActorKind.RESULT)
        caller.close()
        agent.told("release_refs", f"c-1-{seq}.0")


def test_refs_that_the_actor_keeps_are_acknowledged_before_the_answer(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        seq = caller.call("look_at", packed=packed("o-a", "o-b"))
        assert caller.result(seq) == 2
        agent.told("release_refs", "o-a")
        agent.withhold()
        seq = caller.call("look_at", packed=packed("o-c"))
        assert caller.result(seq) == 1  # nothing was kept: nothing is waited for
        seq = caller.call("keep", packed=packed("o-d"))
        agent.told("add_refs", "o-d")
        assert caller.is_silent(0.05)
        agent.acknowledge()
        assert caller.result(seq) == 1
        # A result with refs is an object of the cluster, which pins them.
        caller.call("give")
        _, _, values, flags = caller.expect(ActorKind.RESULT)
        assert (list(types_pb2.Value.FromString(values[0]).contained_refs), flags) == (["o-d"], REGISTERED)
        # What is in it lives here until the caller has it.
        seq = caller.call("give_away")
        caller.expect(ActorKind.RESULT)
        caller.call("large")
        caller.expect(ActorKind.RESULT)
        assert not agent._has("release_refs", "o-d")
        caller.tell(ActorKind.RELEASED, seq - 1)
        caller.tell(ActorKind.RELEASED, seq)
        agent.told("release_refs", "o-d")


def test_arguments_that_did_not_come_along_are_asked_for(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        agent.objects["o-1"] = types_pb2.Value(inline=serialize("asked").to_bytes()).SerializeToString()
        along = types_pb2.Value(inline=serialize("along").to_bytes()).SerializeToString()
        slot = types_pb2.Value(inline=serialize(((Slot(0),), {})).to_bytes())
        assert caller.get("value_of", packed=slot, dependencies=(("o-1", b""),)) == "asked"
        assert caller.get("value_of", packed=slot, dependencies=(("o-2", along),)) == "along"
        agent.told("release_refs", "o-1")


# ---- context, cancelling ----
def test_a_call_knows_where_it_runs(forker: Forker) -> None:
    with called(forker, Counter, name="it") as (_, caller):
        seq = caller.call("who")
        assert caller.result(seq) == (f"c-1-{seq}", "t-1", "it", "Counter.who")


def test_what_a_call_reports_belongs_to_the_actor(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        caller.get("report", num_returns=1)
        assert agent.next(Kind.METRICS)[1:3] == [7, 3]


def test_cancelling(forker: Forker, tmp_path: Any) -> None:
    with called(forker, Counter) as (_, caller):
        running = caller.call("wait_for", str(tmp_path / "never"))
        queued = caller.call("add", 1000)
        after = caller.call("add")
        caller.tell(ActorKind.CANCEL, queued, False)
        assert caller.failure(queued).kind == types_pb2.FAILURE_KIND_CANCELLED
        caller.tell(ActorKind.CANCEL, running, True)
        assert caller.failure(running).kind == types_pb2.FAILURE_KIND_CANCELLED
        assert caller.result(after) == 101
        caller.tell(ActorKind.CANCEL, running, True)  # it is over: nothing happens
        assert caller.get("add") == 102


@pytest.mark.parametrize("recursive", [True, False])
def test_children_of_a_call_are_cancelled_with_it(forker: Forker, *, recursive: bool) -> None:
    with called(forker, Counter) as (agent, caller):
        seq = caller.call("submit_and_wait")
        wait_until(lambda: "submit" in agent.kinds(), 10, "the call has submitted a task")
        caller.tell(ActorKind.CANCEL, seq, recursive)
        assert caller.failure(seq).kind == types_pb2.FAILURE_KIND_CANCELLED
        task_id = next(each.submit.task_id for each in agent.operations if each.WhichOneof("op") == "submit")
        caller.call("large")
        caller.expect(ActorKind.RESULT)  # all that was told before is known
        cancelled = [each.cancel.task_id for each in agent.operations if each.WhichOneof("op") == "cancel"]
        assert cancelled == ([task_id] if recursive else [])


def test_what_was_cancelled_meanwhile_does_not_run(forker: Forker, tmp_path: Any) -> None:
    with called(forker, Counter) as (_, caller):
        began, there = tmp_path / "began", tmp_path / "there"
        running, slow = caller.frame("wait_deaf", str(began), str(there))
        behind, queued = caller.frame("add", 1000)
        last, after = caller.frame("add")
        caller.send(running + behind + last)
        wait_until(began.exists, 10, "the first call has begun")
        caller.tell(ActorKind.CANCEL, queued, False)
        there.touch()
        assert caller.result(slow) is None
        assert caller.failure(queued).kind == types_pb2.FAILURE_KIND_CANCELLED
        assert caller.result(after) == 101


def test_an_answer_does_not_wait_for_a_slow_call_behind_it(forker: Forker, tmp_path: Any) -> None:
    with called(forker, Counter) as (_, caller):
        (tmp_path / "there").touch()
        assert caller.get("wait_deaf", str(tmp_path / "began"), str(tmp_path / "there")) is None  # it was quick so far
        caller.get("add")
        first, quick = caller.frame("add")
        second, slow = caller.frame("wait_deaf", str(tmp_path / "began"), str(tmp_path / "later"))
        caller.send(first + second)
        assert caller.result(quick) == 102
        (tmp_path / "later").touch()
        assert caller.result(slow) is None
