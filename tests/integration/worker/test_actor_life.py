"""Generators of an actor, callers that do not read, and how an actor ends."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

import runner
from runner.rpc.actor_frames import ActorKind
from runner.rpc.gen import types_pb2
from runner.worker.frames import Kind
from tests.integration.worker.actor_classes import Counter
from tests.integration.worker.actor_harness import Caller, Forker, called


# ---- generators ----
def test_a_generator_sends_the_first_item_before_it_makes_the_second(forker: Forker) -> None:
    with called(forker, Counter) as (_, caller):
        seq = caller.stream("numbers", 3)
        assert [caller.item(seq) for _ in range(3)] == [(0, 0), (1, 1), (2, 2)]
        assert caller.expect(ActorKind.RESULT)[1:3] == [seq, []]


def test_backpressure_and_early_close(forker: Forker) -> None:
    with called(forker, Counter) as (_, caller):
        seq = caller.stream("numbers", 1000, backpressure=2)
        caller.item(seq)
        caller.item(seq)
        assert caller.is_silent(0.05)
        caller.tell(ActorKind.READ, seq, 1)
        assert caller.item(seq) == (2, 2)
        assert caller.is_silent(0.05)
        behind = caller.call("add", 0)
        caller.tell(ActorKind.CLOSE_STREAM, seq)
        assert caller.expect(ActorKind.RESULT)[1:3] == [seq, []]
        assert caller.result(behind) == -1  # the generator has seen GeneratorExit


def test_errors_of_generators_come_after_their_items(forker: Forker) -> None:
    with called(forker, Counter) as (_, caller):
        seq = caller.stream("broken")
        assert caller.item(seq) == (0, 0)
        assert caller.failure(seq).message == "after the first"
        assert "num_returns='streaming'" in caller.failure(caller.stream("add")).message
        seq = caller.stream("numbers", 5, backpressure=1)
        caller.item(seq)
        caller.tell(ActorKind.CANCEL, seq, False)
        assert caller.failure(seq).kind == types_pb2.FAILURE_KIND_CANCELLED


def test_a_generator_whose_caller_left_is_closed(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        other = Caller(agent, [0, 0, caller.address, caller.secret], "c-2").welcome()
        seq = other.stream("numbers", 1000, backpressure=1)
        other.item(seq)
        other.close()
        assert caller.get("add", 0) == -1


# ---- callers that do not read ----
def test_a_caller_that_does_not_read_holds_up_nobody(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        deaf = Caller(agent, [0, 0, caller.address, caller.secret], "c-deaf").welcome()
        frames = [deaf.frame("value_of", b"x" * 50_000) for _ in range(400)]
        deaf.sock.setblocking(False)
        data, sent = b"".join(frame for frame, _ in frames), 0
        while sent < len(data):
            try:
                sent += deaf.sock.send(data[sent : sent + 65536])
            except BlockingIOError:
                break
        assert sent < len(data)  # the actor has stopped reading: what it may owe is bounded
        assert [caller.get("add") for _ in range(20)] == list(range(101, 121))
        deaf.sock.settimeout(15)
        assert len(deaf.result(frames[0][1])) == 50_000
        deaf.close()
        assert caller.get("add") == 121


# ---- the end ----
@pytest.mark.parametrize("how", ["leave", "sys_exit", "asked", "sigterm"])
def test_an_actor_that_ends_well_runs_its_exit_hooks(forker: Forker, tmp_path: Any, how: str) -> None:
    flag = tmp_path / "flag"
    with called(forker, Counter, 0, str(flag)) as (agent, caller):
        assert caller.get("add") == 101
        if how == "asked":
            agent.send(Kind.ACTOR_EXIT, 7)
        elif how == "sigterm":
            caller.call("wait_for", str(tmp_path / "never"))
            os.kill(agent.pid, signal.SIGTERM)
        else:
            caller.call(how, *([0] if how == "sys_exit" else []))
        ended = agent.ended()
        assert ended.WhichOneof("outcome") == "returns", ended
        assert flag.read_text() == "exit "
        assert caller.next() == []  # the call is not answered: its caller learns from the actor's end


def test_an_interrupt_ends_an_actor_that_is_idle(forker: Forker, tmp_path: Any) -> None:
    flag = tmp_path / "flag"
    with called(forker, Counter, 0, str(flag)) as (agent, caller):
        caller.get("add")
        agent.page.request(7)
        os.kill(agent.pid, signal.SIGINT)
        assert agent.ended().failure.kind == types_pb2.FAILURE_KIND_CANCELLED
        assert flag.read_text() == "exit "


def test_exit_hooks_have_a_grace_time_together(forker: Forker) -> None:
    class Stuck:
        @runner.exit
        def first(self) -> None:
            raise ValueError("not this one")

        @runner.exit
        def second(self) -> None:
            time.sleep(60)

    with called(forker, Stuck, grace_s=0.2) as (agent, _):
        agent.send(Kind.ACTOR_EXIT, 7)
        assert agent.ended().WhichOneof("outcome") == "returns"
        assert "took longer than its grace time of 0.2 s" in agent.stderr()
