"""A suspend on the agent's side, one script at a time."""

from __future__ import annotations

from typing import Any

import pytest

from runner.worker.agent import events as ev
from runner.worker.agent import suspend_words as words
from runner.worker.agent.attempt_flow import IDLE_AFTER_S
from runner.worker.agent.events import ExitCause, StopReason
from runner.worker.agent.machine import ACTOR_QUIET_S
from runner.worker.agent.suspending import TRANSITIONS, Stage
from tests.unit.worker.test_agent_machine import KILLED, Script, attempt, kinds

HOOKS_S = 10.0


def suspended(script: Script, *, snapshot: int = 1) -> Script:
    """Every hook has run, and the agent has hung up."""
    script(words.SuspendAsked(snapshot))
    prepared = script(words.PrepareAsked(snapshot, HOOKS_S))
    for command in prepared:
        if isinstance(command, words.RunHooks):
            script(words.HooksRun(command.number, snapshot, is_after=False))
    assert script.commands[-1] == words.HangUp(snapshot)
    script(words.HungUp())
    return script


def run_actor(script: Script) -> int:
    """An actor on executor 1; its serial."""
    run, *_ = script(ev.AttemptAssigned(attempt("actor", slot=5, grace_s=10.0)))
    assert isinstance(run, ev.RunAttempt)
    return run.serial


def test_an_idle_machine_is_quiet_at_once_and_runs_hooks_when_it_may() -> None:
    script = Script().registered()
    assert script(words.SuspendAsked(1)) == [words.TellQuiet(1), words.ReportQuiet(1)]
    assert script(words.PrepareAsked(1, HOOKS_S)) == [words.RunHooks(1, 1, is_after=False)]
    assert script(words.HooksRun(1, 1, is_after=False)) == [words.HangUp(1)]
    assert script(words.HungUp()) == []
    assert script(words.Awoke(5.0, HOOKS_S)) == [words.RunHooks(1, 1, is_after=True)]
    assert script(words.HooksRun(1, 1, is_after=True)) == [words.ReportAwake(1, ""), words.TellGoOn(1)]
    assert kinds(script(ev.AttemptAssigned(attempt("a")))) == ["RunAttempt", "ReportStarted"]


def test_a_machine_without_executors_has_no_hooks_to_wait_for() -> None:
    script = Script()
    assert script(words.SuspendAsked(1)) == [words.TellQuiet(1), words.ReportQuiet(1)]
    assert script(words.PrepareAsked(1, HOOKS_S)) == [words.HangUp(1)]
    script(words.HungUp())
    assert script(words.Awoke(5.0, HOOKS_S)) == [words.ReportAwake(1, ""), words.TellGoOn(1)]


def test_what_has_not_begun_goes_back_and_what_runs_is_waited_for() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("runs")))
    script(ev.AttemptAssigned(attempt("chained")))
    script(ev.AttemptAssigned(attempt("waits", slot=2)))
    told = script(words.SuspendAsked(1))
    returned = {each.key[0] for each in told if isinstance(each, ev.ReportReturned)}
    assert returned == {"chained", "waits"} and "ReportQuiet" not in kinds(told)
    assert kinds(script(ev.AttemptAssigned(attempt("crossed", slot=3)))) == ["ReportReturned"]
    # The executor that was forked for "waits" must be there, too: it has hooks to run.
    assert "ReportQuiet" not in kinds(script(ev.ExecutorEnded(1, 1, b"result")))
    assert kinds(script(ev.ExecutorReady(2, 4712))) == ["ReportQuiet"]


def test_with_interrupts_tasks_are_stopped_uncharged_and_actors_only_when_they_stay_busy() -> None:
    script = Script(cpus=2)
    script(ev.Registered())
    script(ev.ExecutorReady(1, 1))
    script(ev.ExecutorReady(2, 2))
    script(ev.AttemptAssigned(attempt("task")))
    script(ev.AttemptAssigned(attempt("actor", slot=2, grace_s=10.0)))
    assert ev.InterruptExecutor(2, 1) in script(words.SuspendAsked(1, interrupts=True))
    assert not any(isinstance(each, ev.EndActor) for each in script.commands)
    script(ev.ExecutorEnded(2, 1, b"failure", was_interrupted=True))
    assert ev.ReportReturned(("task", 1), "stopped (drain)") in script(ev.ExecutorExited(2, ExitCause(0)))
    assert ev.EndActor(1, 2) in script(ev.Ticked(), after_s=ACTOR_QUIET_S)


def test_an_actor_that_says_it_is_parked_is_not_ended() -> None:
    script = Script().registered()
    serial = run_actor(script)
    script(words.SuspendAsked(1, interrupts=True))
    assert script(words.ExecutorParked(1, serial, 1)) == [words.ReportQuiet(1)]
    assert script(ev.Ticked(), after_s=ACTOR_QUIET_S) == []


def test_a_word_of_another_run_or_another_suspend_parks_nothing() -> None:
    script = Script().registered()
    serial = run_actor(script)
    assert script(words.ExecutorParked(1, serial, 0)) == []
    script(words.SuspendAsked(2))
    assert script(words.ExecutorParked(1, serial, 1)) == []
    assert script(words.ExecutorParked(1, serial + 1, 2)) == []
    assert script(words.ExecutorParked(1, serial, 2)) == [words.ReportQuiet(2)]


def test_a_suspend_that_is_called_off_leaves_nothing_behind() -> None:
    script = Script().registered()
    serial = run_actor(script)
    script(words.SuspendAsked(1))
    script(words.ExecutorParked(1, serial, 1))
    assert script(words.SuspendCalledOff(1)) == [words.TellGoOn(1)]
    # The actor is at work again: the next suspend waits for it anew.
    assert script(words.SuspendAsked(2)) == [words.TellQuiet(2)]


@pytest.mark.parametrize(
    "late",
    [
        words.SuspendAsked(1),
        words.SuspendAsked(0),
        words.PrepareAsked(2, HOOKS_S),
        words.SuspendCalledOff(2),
        words.HooksRun(1, 1, is_after=False),
        words.HungUp(),
        words.Awoke(1.0, HOOKS_S),
    ],
)
def test_what_comes_twice_late_or_of_another_snapshot_changes_nothing(late: Any) -> None:
    script = Script().registered()
    script(words.SuspendAsked(1))
    assert script(late) == []
    assert script(words.PrepareAsked(1, HOOKS_S)) == [words.RunHooks(1, 1, is_after=False)]
    assert script(words.PrepareAsked(1, HOOKS_S)) == script(words.SuspendCalledOff(1)) == []


def test_a_hook_that_fails_has_all_undone_before_the_refusal_is_told() -> None:
    script = Script(cpus=2)
    script(ev.Registered())
    script(ev.ExecutorReady(1, 1))
    script(ev.ExecutorReady(2, 2))
    script(words.SuspendAsked(1))
    script(words.PrepareAsked(1, HOOKS_S))
    assert script(words.HooksRun(2, 1, is_after=False, failure="it burns")) == []
    undone = script(words.HooksRun(1, 1, is_after=False))
    assert undone == [words.RunHooks(1, 1, is_after=True), words.RunHooks(2, 1, is_after=True)]
    assert script(words.HooksRun(1, 1, is_after=True)) == []
    assert script(words.HooksRun(2, 1, is_after=True)) == [words.ReportRefused(1, "it burns"), words.TellGoOn(1)]
    assert kinds(script(ev.AttemptAssigned(attempt("a")))) == ["RunAttempt", "ReportStarted"]


def test_hooks_that_take_too_long_refuse_and_who_cannot_undo_is_killed() -> None:
    script = Script().registered()
    serial = run_actor(script)
    script(words.SuspendAsked(1))
    script(words.ExecutorParked(1, serial, 1))
    script(words.PrepareAsked(1, HOOKS_S))
    assert script(ev.Ticked(), after_s=HOOKS_S) == [words.RunHooks(1, 1, is_after=True)]
    killed, refused, go_on = script(ev.Ticked(), after_s=HOOKS_S)
    assert killed == ev.SignalGroup(1, ev.Signal.KILL) and go_on == words.TellGoOn(1)
    assert isinstance(refused, words.ReportRefused) and "took longer than 10 s" in refused.reason
    ended = script(ev.ExecutorExited(1, KILLED))[0]
    assert isinstance(ended, ev.ReportEnded) and ended.fault is not None
    assert "after_resume hooks took longer" in ended.fault.message


def test_a_slow_hook_that_ends_while_all_is_undone_costs_nobody_his_process() -> None:
    script = Script().registered()
    script(words.SuspendAsked(1))
    script(words.PrepareAsked(1, HOOKS_S))
    script(ev.Ticked(), after_s=HOOKS_S)
    assert script(words.HooksRun(1, 1, is_after=False)) == []  # late: its after_resume hooks come next
    assert kinds(script(words.HooksRun(1, 1, is_after=True))) == ["ReportRefused", "TellGoOn"]


def test_an_executor_that_dies_in_its_hooks_refuses_the_suspend() -> None:
    script = Script().registered()
    script(words.SuspendAsked(1))
    script(words.PrepareAsked(1, HOOKS_S))
    told = script(ev.ExecutorExited(1, KILLED))
    refused = next(each for each in told if isinstance(each, words.ReportRefused))
    assert "4711 ended while its hooks ran" in refused.reason


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_hooks_that_fail_after_a_resume_are_told_and_nothing_starts(how: str) -> None:
    script = suspended(Script().registered())
    script(words.Awoke(5.0, HOOKS_S))
    if how == "fails":
        (told,) = script(words.HooksRun(1, 1, is_after=True, failure="no GPU"))
        assert told == words.ReportAwake(1, "no GPU")
    else:
        (told,) = script(ev.Ticked(), after_s=HOOKS_S)
        assert isinstance(told, words.ReportAwake) and "took longer than 10 s" in told.failure
    assert kinds(script(ev.AttemptAssigned(attempt("a")))) == ["ReportReturned"]


def test_while_it_is_away_no_lease_runs_no_timeout_fires_and_a_gap_means_nothing() -> None:
    script = Script(lost_after_s=60, destroy_after_s=120).registered()
    run, *_ = script(ev.AttemptAssigned(attempt("parked", timeout_s=30.0)))
    assert isinstance(run, ev.RunAttempt)
    script(words.SuspendAsked(1))
    script(words.ExecutorParked(1, run.serial, 1))
    script(words.PrepareAsked(1, HOOKS_S))
    script(words.HooksRun(1, 1, is_after=False))
    script(words.HungUp())
    assert script.machine.next_wakeup_s() is None
    assert script(ev.Ticked(), after_s=100_000.0) == script(ev.ClockGapSeen()) == []
    script(words.Awoke(100_000.0, HOOKS_S))
    assert kinds(script(words.HooksRun(1, 1, is_after=True))) == ["ReportAwake", "TellGoOn"]
    # What was left of its time is left still, and the lease begins anew.
    assert script(ev.Ticked(), after_s=29.0) == []
    assert ev.InterruptExecutor(1, run.serial) in script(ev.Ticked(), after_s=1.0)
    assert "ExitAgent" in kinds(script(ev.Ticked(), after_s=121.0))


def test_what_the_coordinator_has_forgotten_ends_without_a_word_and_new_work_gets_new_processes() -> None:
    script = Script().registered()
    serial = run_actor(script)
    script(words.SuspendAsked(1))
    script(words.ExecutorParked(1, serial, 1))
    script(words.PrepareAsked(1, HOOKS_S))
    script(words.HooksRun(1, 1, is_after=False))
    script(words.HungUp())
    told = script(words.Awoke(5.0, HOOKS_S, ends_executors=True))
    assert set(told) == {ev.SignalGroup(1, ev.Signal.KILL), words.ReportAwake(1, ""), words.TellGoOn(1)}
    assert script(ev.ExecutorExited(1, KILLED)) == [ev.ReportExecutorGone(1)]
    assert ev.SpawnExecutor(2, frozenset()) in script(ev.AttemptAssigned(attempt("a")))


def test_a_parked_attempt_can_be_cancelled() -> None:
    script = Script().registered()
    run, *_ = script(ev.AttemptAssigned(attempt("parked")))
    assert isinstance(run, ev.RunAttempt)
    script(words.SuspendAsked(1))
    script(words.ExecutorParked(1, run.serial, 1))
    assert script(ev.StopRequested(("parked", 1), StopReason.CANCELLED)) == [ev.InterruptExecutor(1, run.serial)]
    script(ev.ExecutorEnded(1, run.serial, b"", was_interrupted=True))
    # Its process is on its way out: the hooks wait for the end of that.
    assert script(words.PrepareAsked(1, HOOKS_S)) == []
    assert script(ev.ExecutorExited(1, ExitCause(0)))[-1] == words.HangUp(1)


def test_no_idle_executor_is_retired_while_it_has_hooks_to_run() -> None:
    script = Script(cpus=3, is_leased=False)
    script(ev.Registered())
    for number in (1, 2, 3):
        script(ev.AttemptAssigned(attempt(f"t-{number}", slot=number)))
        script(ev.ExecutorReady(number, number))
    for number in (1, 2, 3):
        script(ev.ExecutorEnded(number, number, b"result"))
    script(words.SuspendAsked(1))
    assert script(ev.Ticked(), after_s=IDLE_AFTER_S) == []
    script(words.SuspendCalledOff(1))
    assert script(ev.Ticked(), after_s=IDLE_AFTER_S) == [ev.RetireExecutor(1)]


def test_every_stage_is_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Stage)
