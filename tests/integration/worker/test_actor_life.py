"""Generators of an actor, callers that do not read, and how an actor ends."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import Any

import pytest

import runner
from runner.rpc.actor_frames import ActorKind
from runner.rpc.gen import types_pb2
from runner.worker.frames import Kind
from tests.integration.helpers import wait_until
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
        frames = [deaf.frame("blob") for _ in range(1000)]
        deaf.send(b"".join(frame for frame, _ in frames))  # the actor has all of them at once
        wait_until(lambda: caller.get("add", 0) > 100, 10, "the first blob is made")
        made = [caller.get("add", 0) - 100 for _ in range(50)][-1]  # as many as there is room for
        assert [caller.get("add", 0) - 100 for _ in range(50)] == [made] * 50  # the others wait for the deaf one
        assert made < 50
        assert [len(deaf.result(seq)) for _, seq in frames] == [90_000] * 1000
        deaf.close()


def test_a_caller_that_does_not_read_is_not_read(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        deaf = Caller(agent, [0, 0, caller.address, caller.secret], "c-deaf").welcome()
        frames = [deaf.frame("value_of", b"x" * 50_000) for _ in range(400)]
        data, sent = b"".join(frame for frame, _ in frames), 0
        assert deaf.sock is not None
        deaf.sock.setblocking(False)
        while sent < len(data) and select.select([], [deaf.sock], [], 0.2)[1]:
            sent += deaf.sock.send(data[sent : sent + 65536])
        assert sent < len(data) / 2
        deaf.sock.settimeout(15)
        thread = threading.Thread(target=deaf.sock.sendall, args=(data[sent:],))
        thread.start()
        assert [len(deaf.result(seq)) for _, seq in frames] == [50_000] * 400
        thread.join()
        deaf.close()


# ---- the end ----
@pytest.mark.parametrize("how", ["leave", "sys_exit", "asked", "sigterm"])
def test_an_actor_that_ends_well_runs_its_exit_hooks(forker: Forker, tmp_path: Any, how: str) -> None:
    flag = tmp_path / "flag"
    with called(forker, Counter, 0, str(flag)) as (agent, caller):
        assert caller.get("add") == 101
        if how == "asked":
            agent.send(Kind.ACTOR_EXIT, 7)
        elif how == "sigterm":
            caller.call("wait_deaf", str(tmp_path / "began"), str(tmp_path / "never"))
            wait_until((tmp_path / "began").exists, 10, "the method runs")
            os.kill(agent.pid, signal.SIGTERM)
        else:
            caller.call(how, *([0] if how == "sys_exit" else []))
        ended = agent.ended()
        assert ended.WhichOneof("outcome") == "returns", ended
        assert flag.read_text() == "exit "
        assert caller.next() == []  # the call is not answered: its caller learns from the actor's end


def test_the_last_answers_arrive(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        frames = [caller.frame("blob") for _ in range(8)]  # more than a socket holds
        caller.send(b"".join(frame for frame, _ in frames) + caller.frame("leave")[0])
        assert [len(caller.result(seq)) for _, seq in frames] == [90_000] * 8
        assert caller.next() == []
        assert agent.ended().WhichOneof("outcome") == "returns"


def test_exit_hooks_run_in_the_opposite_order(forker: Forker, tmp_path: Any) -> None:
    class Base:
        def __init__(self, path: str) -> None:
            self.path = path

        @runner.exit
        def first(self) -> None:
            self.note("first")

        @runner.exit
        def second(self) -> None:
            self.note("second")

        def note(self, text: str) -> None:
            with open(self.path, "a") as file:
                file.write(f"{text} ")

    class Derived(Base):
        @runner.exit
        def third(self) -> None:
            self.note("third")

        def second(self) -> None:
            """Not marked: no hook any more."""

    with called(forker, Derived, str(tmp_path / "flag")) as (agent, _):
        agent.send(Kind.ACTOR_EXIT, 7)
        agent.ended()
        assert (tmp_path / "flag").read_text() == "third first "


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
