"""CUDA memory around a suspend, as the agent decides about it."""

from __future__ import annotations

import pytest

from runner.worker.agent import events as ev
from runner.worker.agent import suspend_words as words
from tests.unit.worker.test_agent_machine import KILLED, Script, attempt, kinds
from tests.unit.worker.test_suspending import HOOKS_S, run_actor

OUT = words.MoveCuda(1, (1,), is_after=False)
BACK = words.MoveCuda(1, (1,), is_after=True)


def moving() -> Script:
    """The hooks of executor 1 have run, and its memory is to be moved."""
    script = Script(moves_cuda=True).registered()
    script(words.SuspendAsked(1))
    assert script(words.PrepareAsked(1, HOOKS_S)) == [words.RunHooks(1, 1, is_after=False)]
    assert script(words.HooksRun(1, 1, is_after=False)) == [OUT]
    return script


def asleep() -> Script:
    script = moving()
    assert script(words.CudaMoved(1, is_after=False)) == [words.HangUp(1)]
    script(words.HungUp())
    return script


def test_memory_moves_after_the_hooks_and_back_before_them() -> None:
    script = asleep()
    assert script(words.Awoke(5.0, HOOKS_S)) == [BACK]
    assert script(words.CudaMoved(1, is_after=True)) == [words.RunHooks(1, 1, is_after=True)]
    assert script(words.HooksRun(1, 1, is_after=True)) == [words.ReportAwake(1, ""), words.TellGoOn(1)]


def test_a_machine_without_executors_has_no_memory_to_move() -> None:
    script = Script(moves_cuda=True)
    script(words.SuspendAsked(1))
    assert script(words.PrepareAsked(1, HOOKS_S)) == [words.HangUp(1)]
    script(words.HungUp())
    assert script(words.Awoke(5.0, HOOKS_S)) == [words.ReportAwake(1, ""), words.TellGoOn(1)]


def test_hooks_that_fail_refuse_before_anything_is_moved() -> None:
    script = Script(moves_cuda=True).registered()
    script(words.SuspendAsked(1))
    script(words.PrepareAsked(1, HOOKS_S))
    assert script(words.HooksRun(1, 1, is_after=False, failure="it burns")) == [words.RunHooks(1, 1, is_after=True)]


def test_a_failure_before_refuses_once_the_hooks_have_undone_theirs() -> None:
    script = moving()
    assert script(words.CudaMoved(1, is_after=False, failure="no room")) == [words.RunHooks(1, 1, is_after=True)]
    assert script(words.HooksRun(1, 1, is_after=True)) == [words.ReportRefused(1, "no room"), words.TellGoOn(1)]
    assert kinds(script(ev.AttemptAssigned(attempt("a")))) == ["RunAttempt", "ReportStarted"]


def test_who_is_stuck_is_killed_and_not_asked_to_run_hooks() -> None:
    script = Script(moves_cuda=True).registered()
    serial = run_actor(script)
    script(words.SuspendAsked(1))
    script(words.ExecutorParked(1, serial, 1))
    script(words.PrepareAsked(1, HOOKS_S))
    script(words.HooksRun(1, 1, is_after=False))
    assert script(words.CudaMoved(1, is_after=False, failure="no end", stuck=(1,))) == [
        ev.SignalGroup(1, ev.Signal.KILL),
        words.ReportRefused(1, "no end"),
        words.TellGoOn(1),
    ]
    ended = script(ev.ExecutorExited(1, KILLED))[0]
    assert isinstance(ended, ev.ReportEnded) and ended.fault is not None
    assert "nobody knows what state it is in: no end" in ended.fault.message


def test_a_failure_after_is_told_and_no_hook_runs() -> None:
    script = asleep()
    script(words.Awoke(5.0, HOOKS_S))
    assert script(words.CudaMoved(1, is_after=True, failure="no GPU")) == [words.ReportAwake(1, "no GPU")]
    assert kinds(script(ev.AttemptAssigned(attempt("a")))) == ["ReportReturned"]


def test_executors_that_the_coordinator_has_forgotten_are_not_moved_back() -> None:
    told = asleep()(words.Awoke(5.0, HOOKS_S, ends_executors=True))
    assert set(told) == {ev.SignalGroup(1, ev.Signal.KILL), words.ReportAwake(1, ""), words.TellGoOn(1)}


def test_an_executor_that_dies_while_memory_moves_has_no_hooks_any_more() -> None:
    script = moving()
    script(ev.ExecutorExited(1, KILLED))
    assert script(words.CudaMoved(1, is_after=False, failure="no room")) == [
        words.ReportRefused(1, "no room"),
        words.TellGoOn(1),
    ]


def test_no_hook_time_limit_runs_while_memory_moves() -> None:
    script = moving()
    assert script(ev.Ticked(), after_s=2 * HOOKS_S) == []
    assert script(words.CudaMoved(1, is_after=False)) == [words.HangUp(1)]


@pytest.mark.parametrize("late", [words.CudaMoved(1, is_after=True), words.CudaMoved(0, is_after=False)])
def test_what_was_not_asked_for_changes_nothing(late: words.CudaMoved) -> None:
    assert moving()(late) == []
