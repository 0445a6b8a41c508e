"""An actor in a real executor around a suspend: which calls count, which wait, when its hooks run. The test plays the agent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import runner
from runner.hooks import ResumeContext
from runner.rpc.actor_frames import ActorKind
from runner.rpc.gen import types_pb2
from runner.worker.frames import Frame, Kind
from tests.integration.helpers import wait_until
from tests.integration.worker.actor_classes import Counter, Threads, Waiting
from tests.integration.worker.actor_harness import SERIAL, WAIT_S, Agent, Forker, called

cloudpickle.register_pickle_by_value(sys.modules[__name__])

RESUMED = ResumeContext("resumed", slept_s=7.5, generation=2, snapshot=1)


class Plain:
    """With hooks, and a word on each of its calls."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @runner.before_suspend
    def before(self) -> None:
        self.seen.append("before")

    @runner.after_resume
    def after(self, context: ResumeContext) -> None:
        self.seen.append(context.kind)

    def note(self, text: str) -> list[str]:
        self.seen.append(text)
        return self.seen

    def park(self) -> Any:
        context = runner.ready_to_snapshot()
        return None if context is None else context.kind

    def park_when_asked(self) -> Any:
        while (context := runner.ready_to_snapshot()) is None:
            pass
        return context.kind, list(self.seen)


class WithCoroutines(Plain):
    """The same on a loop."""

    async def wait(self) -> None:
        """Makes it one."""

    async def try_to_park(self) -> str:
        try:
            runner.ready_to_snapshot()
        except runner.errors.UsageError as error:
            return str(error)
        return ""


def hooks(agent: Agent, *, is_after: bool) -> str:
    """Have them run; what has failed."""
    if is_after:
        agent.send(Kind.RESUMED, 1, RESUMED.to_dict())
    else:
        agent.send(Kind.SUSPEND, 1)
    frame = agent.next(Kind.HOOKS_RUN)
    assert frame[1:3] == [1, is_after]
    return str(frame[3])


def parked(agent: Agent) -> Frame:
    frame = agent.next(Kind.PARKED)
    assert frame == [Kind.PARKED, SERIAL, 1]
    return frame


@pytest.mark.parametrize("cls", [Plain, WithCoroutines, Threads])
@pytest.mark.parametrize("options", [{}, {"max_concurrency": 4}])
def test_an_idle_actor_parks_runs_its_hooks_and_then_the_calls_that_came(
    forker: Forker, cls: type, options: dict[str, Any]
) -> None:
    with called(forker, cls, **options) as (agent, caller):
        first = "quick" if cls is Threads else "note"
        args = () if cls is Threads else ("first",)
        caller.get(first, *args)
        agent.send(Kind.QUIET, 1)
        parked(agent)
        seq = caller.call(first, *(args and ("held",)))
        assert hooks(agent, is_after=False) == hooks(agent, is_after=True) == ""
        assert caller.is_silent(0.05), "a call begins before all of the machine is awake"
        agent.send(Kind.GO_ON, 1)
        result = caller.result(seq)
        if cls is not Threads:
            assert result == ["first", "before", "resumed", "held"]


@pytest.mark.parametrize(("cls", "concurrency"), [(Counter, 1), (Counter, 2), (Waiting, 1)])
def test_a_call_that_runs_or_waits_is_let_end_before_the_actor_parks(
    forker: Forker, tmp_path: Path, cls: type, concurrency: int
) -> None:
    began, gate = tmp_path / "began", tmp_path / "gate"
    with called(forker, cls, max_concurrency=concurrency) as (agent, caller):
        calls = [caller.call("wait_deaf", str(began), str(gate)) for _ in range(concurrency + 1)]
        wait_until(began.exists, WAIT_S, "a call to begin")
        agent.send(Kind.QUIET, 1)
        assert caller.is_silent(0.05)
        assert agent.frames.empty(), "it parks while a call runs"
        gate.touch()
        assert {caller.expect(ActorKind.RESULT)[1] for _ in calls} == set(calls)
        parked(agent)


def test_a_stream_whose_reader_pauses_can_still_be_read_to_its_end(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        seq = caller.stream("numbers", 3, backpressure=1)
        assert caller.item(seq) == (0, 0)
        agent.send(Kind.QUIET, 1)
        assert caller.is_silent(0.05)
        for index in (1, 2):
            caller.tell(ActorKind.READ, seq, index)
            assert caller.item(seq) == (index, index)
        caller.tell(ActorKind.READ, seq, 3)
        assert caller.expect(ActorKind.RESULT)[1] == seq
        parked(agent)


def test_a_call_that_waits_for_the_end_of_a_suspend_can_be_cancelled(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        agent.send(Kind.QUIET, 1)
        parked(agent)
        seq = caller.call("add")
        caller.tell(ActorKind.CANCEL, seq, False)
        assert caller.failure(seq).kind == types_pb2.FAILURE_KIND_CANCELLED
        agent.send(Kind.GO_ON, 1)
        assert caller.get("add") == 101


def test_a_suspend_that_is_called_off_lets_the_calls_begin_and_the_next_one_waits_anew(forker: Forker) -> None:
    with called(forker, Counter) as (agent, caller):
        agent.send(Kind.QUIET, 1)
        parked(agent)
        seq = caller.call("add")
        agent.send(Kind.GO_ON, 1)
        assert caller.result(seq) == 101
        agent.send(Kind.QUIET, 2)
        assert agent.next(Kind.PARKED)[2] == 2


def test_a_method_that_is_ready_parks_with_its_call_under_way(forker: Forker) -> None:
    with called(forker, Plain) as (agent, caller):
        assert caller.get("park") is None
        seq = caller.call("park_when_asked")
        agent.send(Kind.QUIET, 1)
        parked(agent)
        behind = caller.call("note", "behind")
        assert hooks(agent, is_after=False) == hooks(agent, is_after=True) == ""
        assert caller.is_silent(0.05)
        agent.send(Kind.GO_ON, 1)
        assert caller.result(seq) == ("resumed", ["before", "resumed"])
        assert caller.result(behind) == ["before", "resumed", "behind"]


def test_ready_to_snapshot_says_where_it_cannot_work(forker: Forker) -> None:
    with called(forker, WithCoroutines) as (_, caller):
        assert "event loop" in caller.get("try_to_park")
    with called(forker, Plain, max_concurrency=2) as (_, caller):
        assert "main thread only" in caller.failure(caller.call("park")).message


def test_hooks_of_an_actor_go_with_it(forker: Forker) -> None:
    with called(forker, Plain) as (agent, caller):
        caller.get("note", "alive")
        agent.send(Kind.ACTOR_EXIT, SERIAL)
        agent.ended()
        assert hooks(agent, is_after=False) == ""
