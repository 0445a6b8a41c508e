"""Starts of attempts that have a time limit."""

from __future__ import annotations

from runner.core.values import FailureKind
from runner.worker.agent import events as ev
from runner.worker.agent.events import Environment, Signal
from tests.unit.worker.test_agent_machine import KILLED, Script, attempt, kinds


def slow_start(commands: list[ev.Command]) -> str:
    ended = next(each for each in commands if isinstance(each, ev.ReportEnded))
    assert ended.fault is not None
    assert ended.fault.kind is FailureKind.SETUP
    return ended.fault.message


def test_a_start_with_a_time_limit_says_what_it_was_at() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a", startup_timeout_s=5)))
    script(ev.StageReached(1, 1, "loading its arguments"), after_s=3)
    assert script(ev.Ticked(), after_s=1.9) == []
    assert script(ev.Ticked(), after_s=0.2) == [ev.SignalGroup(1, Signal.KILL)]
    said = slow_start(script(ev.ExecutorExited(1, KILLED)))
    assert "not running after its startup_timeout_s=5: it was still loading its arguments;" in said


def test_a_start_that_is_over_in_time_has_no_limit_any_more() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a", startup_timeout_s=5)))
    script(ev.StageReached(1, 1, ""), after_s=4)
    assert script(ev.Ticked(), after_s=10) == []
    assert kinds(script(ev.ExecutorEnded(1, 1, b"result"))) == ["ReportEnded"]


def test_a_start_that_waits_for_its_worker_process_is_given_up_alone() -> None:
    script = Script().registered()
    torch = Environment(layer=frozenset({"torch"}))
    script(ev.AttemptAssigned(attempt("a", environment=torch, startup_timeout_s=5)))
    script(ev.AttemptAssigned(attempt("b", slot=2, environment=torch)))
    said = slow_start(script(ev.Ticked(), after_s=6))
    assert "it was still waiting for a worker process that has imported torch" in said
    spawned = [each for each in script(ev.LayerReady(frozenset({"torch"}))) if isinstance(each, ev.SpawnExecutor)]
    assert len(spawned) == 1


def test_the_limit_of_a_start_begins_when_it_is_its_turn() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.AttemptAssigned(attempt("b", startup_timeout_s=5)), after_s=0.05)
    assert kinds(script(ev.ExecutorEnded(1, 1, b""), after_s=0.01)) == ["ReportEnded", "RunAttempt", "ReportStarted"]
    assert script(ev.Ticked(), after_s=4.9) == []
    assert script(ev.Ticked(), after_s=0.2) == [ev.SignalGroup(1, Signal.KILL)]
    assert "unpacking its runtime_env" in slow_start(script(ev.ExecutorExited(1, KILLED)))
