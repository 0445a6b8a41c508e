"""The agent's decisions, one script at a time."""

from __future__ import annotations

from typing import Any

from runner.core.values import FailureKind
from runner.worker.agent import events as ev
from runner.worker.agent.events import Attempt, Environment, ExitCause, Signal, StopReason
from runner.worker.agent.machine import KILL_AFTER_S, RETURN_AFTER_S, TERM_AFTER_S, AgentMachine, AgentSettings

BASE: frozenset[str] = frozenset()
KILLED = ExitCause(signal_number=9, signal_name="SIGKILL")


class Script:
    """Feeds events at a time that the script moves, and keeps all commands."""

    def __init__(self, **settings: Any) -> None:
        self.machine = AgentMachine(AgentSettings("m-1", **settings))
        self.now_s = 1000.0
        self.commands: list[ev.Command] = []

    def __call__(self, event: ev.Event, after_s: float = 0.0) -> list[ev.Command]:
        self.now_s += after_s
        commands = self.machine.handle(event, self.now_s)
        self.machine.check()
        self.commands += commands
        return commands

    def registered(self) -> Script:
        """One idle executor, number 1."""
        assert [type(each) for each in self(ev.Registered())] == [ev.SpawnExecutor]
        assert self(ev.ExecutorReady(1, 4711)) == []
        return self


def attempt(name: str, slot: int = 1, **fields: Any) -> Attempt:
    return Attempt(
        (name, 1), slot, fields.pop("environment", Environment()), "f", f"task {name} (f) attempt 1", **fields
    )


def kinds(commands: list[ev.Command]) -> list[str]:
    return [type(each).__name__ for each in commands]


def test_an_attempt_runs_at_once_on_an_idle_executor() -> None:
    script = Script().registered()
    run, started = script(ev.AttemptAssigned(attempt("a")))
    assert run == ev.RunAttempt(1, 1, attempt("a"))
    assert started == ev.ReportStarted(("a", 1), 1, is_run=False)
    (ended,) = script(ev.ExecutorEnded(1, 1, b"result"), after_s=2.0)
    assert ended == ev.ReportEnded(("a", 1), 1, b"result", None, 2.0)


def test_an_assignment_that_comes_twice_counts_once() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    assert script(ev.AttemptAssigned(attempt("a"))) == []


def test_the_next_of_a_slot_follows_in_the_same_executor() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    assert script(ev.AttemptAssigned(attempt("b"))) == []
    ended, run, started = script(ev.ExecutorEnded(1, 1, b""))
    assert isinstance(ended, ev.ReportEnded)
    assert run == ev.RunAttempt(1, 2, attempt("b"))
    assert isinstance(started, ev.ReportStarted)


def test_a_chained_attempt_is_given_back_when_the_head_takes_too_long() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.AttemptAssigned(attempt("b")), after_s=0.01)
    assert script.machine.next_wakeup_s() == script.now_s + RETURN_AFTER_S
    assert script(ev.Ticked(), after_s=RETURN_AFTER_S - 0.001) == []
    (returned,) = script(ev.Ticked(), after_s=0.002)
    assert isinstance(returned, ev.ReportReturned)
    assert returned.key == ("b", 1)


def test_a_chain_behind_quick_heads_stays() -> None:
    script = Script().registered()
    for name in "abcdef":
        script(ev.AttemptAssigned(attempt(name)))
    for serial in range(1, 6):
        commands = script(ev.ExecutorEnded(1, serial, b""), after_s=0.05)
        assert kinds(commands) == ["ReportEnded", "RunAttempt", "ReportStarted"]


def test_a_head_that_blocks_gives_its_chain_back_and_takes_no_more() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.AttemptAssigned(attempt("b")))
    returned, blocked = script(ev.ExecutorBlocked(1, 1))
    assert isinstance(returned, ev.ReportReturned)
    assert blocked == ev.ReportBlocked(("a", 1))
    assert kinds(script(ev.AttemptAssigned(attempt("c")))) == ["ReportReturned"]
    assert script(ev.ExecutorUnblocked(1, 1)) == [ev.ReportUnblocked(("a", 1))]
    assert script(ev.AttemptResumed(("a", 1))) == [ev.ResumeExecutor(1, 1)]
    assert script(ev.AttemptResumed(("a", 1))) == []


def test_a_stop_escalates() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    assert script(ev.StopRequested(("a", 1), StopReason.CANCELLED)) == [ev.InterruptExecutor(1, 1)]
    assert script(ev.StopRequested(("a", 1), StopReason.CANCELLED)) == []
    assert script(ev.Ticked(), after_s=TERM_AFTER_S) == [ev.SignalGroup(1, Signal.TERM)]
    assert script(ev.Ticked(), after_s=KILL_AFTER_S) == [ev.SignalGroup(1, Signal.KILL)]
    ended, gone = script(ev.ExecutorExited(1, KILLED))
    assert isinstance(ended, ev.ReportEnded)
    assert ended.fault is not None
    assert ended.fault.kind is FailureKind.CANCELLED
    assert gone == ev.ReportExecutorGone(1)


def test_a_forced_stop_kills_at_once() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    assert script(ev.StopRequested(("a", 1), StopReason.CANCELLED, force=True)) == [ev.SignalGroup(1, Signal.KILL)]


def test_an_attempt_that_was_interrupted_is_reported_when_its_executor_is_gone() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.StopRequested(("a", 1), StopReason.CANCELLED))
    assert script(ev.ExecutorEnded(1, 1, b"", was_interrupted=True)) == [ev.RetireExecutor(1)]
    ended, _gone = script(ev.ExecutorExited(1, ExitCause(exit_code=0)))
    assert isinstance(ended, ev.ReportEnded)
    assert ended.outcome is None
    assert ended.fault is not None
    assert ended.fault.message == "task a (f) attempt 1 on m-1 was cancelled"


def test_a_result_that_was_faster_than_the_stop_counts() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.StopRequested(("a", 1), StopReason.CANCELLED))
    (ended,) = script(ev.ExecutorEnded(1, 1, b"result"))
    assert isinstance(ended, ev.ReportEnded)
    assert ended.outcome == b"result"


def test_a_timeout() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a", timeout_s=3.0)))
    assert script(ev.Ticked(), after_s=3.0) == [ev.InterruptExecutor(1, 1)]
    script(ev.ExecutorEnded(1, 1, b"", was_interrupted=True))
    ended, _ = script(ev.ExecutorExited(1, ExitCause(exit_code=0)))
    assert isinstance(ended, ev.ReportEnded)
    assert ended.fault is not None
    assert ended.fault.kind is FailureKind.TIMEOUT


def test_a_timeout_of_an_attempt_that_is_over_means_nothing() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a", timeout_s=3.0)))
    script(ev.ExecutorEnded(1, 1, b""), after_s=1.0)
    script(ev.AttemptAssigned(attempt("a2")))
    assert script(ev.Ticked(), after_s=5.0) == []


def test_a_fenced_attempt_is_killed_and_not_reported() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    assert script(ev.StopRequested(("a", 1), StopReason.FENCED)) == [ev.SignalGroup(1, Signal.KILL)]
    assert script(ev.ExecutorExited(1, KILLED)) == [ev.ReportExecutorGone(1)]
    assert script(ev.StopRequested(("a", 1), StopReason.FENCED)) == []


def test_a_fenced_attempt_is_not_reported_when_the_lease_ends_as_well() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.StopRequested(("a", 1), StopReason.FENCED))
    script(ev.Ticked(), after_s=70.0)
    assert script(ev.ExecutorExited(1, KILLED)) == [ev.ReportExecutorGone(1)]


def test_a_stop_of_an_unknown_attempt_gives_it_back() -> None:
    script = Script().registered()
    assert kinds(script(ev.StopRequested(("x", 1), StopReason.CANCELLED))) == ["ReportReturned"]


def test_a_stop_before_the_start_is_reported_at_once() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.AttemptAssigned(attempt("b")))
    (ended,) = script(ev.StopRequested(("b", 1), StopReason.CANCELLED))
    assert isinstance(ended, ev.ReportEnded)
    assert ended.fault is not None
    assert ended.fault.kind is FailureKind.CANCELLED
    script(ev.AttemptAssigned(attempt("c")))
    assert kinds(script(ev.StopRequested(("c", 1), StopReason.DRAIN))) == ["ReportReturned"]


def test_an_executor_that_dies_fails_its_attempt_with_the_cause() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    ended, gone = script(ev.ExecutorExited(1, KILLED))
    assert isinstance(ended, ev.ReportEnded)
    assert ended.fault is not None
    assert ended.fault.kind is FailureKind.WORKER_CRASHED
    assert "task a (f) attempt 1: executor 4711 on m-1 was killed by signal 9 (SIGKILL)" in ended.fault.message
    assert gone == ev.ReportExecutorGone(1)


def test_a_kill_for_memory_by_the_kernel() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    ended, _ = script(ev.ExecutorExited(1, KILLED, was_oom=True))
    assert isinstance(ended, ev.ReportEnded)
    assert ended.fault is not None
    assert ended.fault.kind is FailureKind.OUT_OF_MEMORY


def test_a_kill_for_memory_by_us() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a", memory_bytes=1 << 20)))
    assert script(ev.MemoryExceeded(1, 1, 5 << 20)) == [ev.SignalGroup(1, Signal.KILL)]
    assert script(ev.MemoryExceeded(1, 1, 6 << 20)) == []
    ended, _ = script(ev.ExecutorExited(1, KILLED))
    assert isinstance(ended, ev.ReportEnded)
    assert ended.fault is not None
    assert "5 MiB, more than its memory=1048576 (1 MiB)" in ended.fault.message


def test_children_left_behind_cost_the_executor_and_delay_the_report() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.AttemptAssigned(attempt("b")))
    assert script(ev.ExecutorEnded(1, 1, b"result", left_children=True)) == [ev.SignalGroup(1, Signal.KILL)]
    ended, gone, spawn = script(ev.ExecutorExited(1, KILLED))
    assert isinstance(ended, ev.ReportEnded)
    assert ended.outcome == b"result"
    assert (gone, type(spawn)) == (ev.ReportExecutorGone(1), ev.SpawnExecutor)
    assert kinds(script(ev.ExecutorReady(2, 1))) == ["RunAttempt", "ReportStarted"]


def test_a_blank_executor_suits_any_environment() -> None:
    script = Script().registered()
    other = Environment(env_vars=(("A", "1"),), threads=2)
    assert kinds(script(ev.AttemptAssigned(attempt("a", environment=other)))) == ["RunAttempt", "ReportStarted"]


def test_environments_do_not_share_executors() -> None:
    script = Script().registered()
    other = Environment(env_vars=(("A", "1"),))
    script(ev.AttemptAssigned(attempt("first")))
    script(ev.ExecutorEnded(1, 1, b""))
    (spawn,) = script(ev.AttemptAssigned(attempt("a", environment=other)))
    assert spawn == ev.SpawnExecutor(2, BASE)
    assert kinds(script(ev.ExecutorReady(2, 1))) == ["RunAttempt", "ReportStarted"]


def test_heads_that_wait_get_an_executor_each_and_no_more() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a", slot=1)))
    assert kinds(script(ev.AttemptAssigned(attempt("b", slot=2)))) == ["SpawnExecutor"]
    # The idle one serves the head that waits; the one on its way is kept for later.
    assert kinds(script(ev.ExecutorEnded(1, 1, b""))) == ["ReportEnded", "RunAttempt", "ReportStarted"]
    assert script(ev.ExecutorReady(2, 1)) == []
    assert kinds(script(ev.AttemptAssigned(attempt("c", slot=3)))) == ["RunAttempt", "ReportStarted"]


def test_an_executor_that_cannot_be_forked_fails_one_attempt() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("head", slot=1)))
    script(ev.AttemptAssigned(attempt("a", slot=2)))
    (ended,) = script(ev.SpawnFailed(2, "Cannot allocate memory"))
    assert isinstance(ended, ev.ReportEnded)
    assert ended.fault is not None
    assert "no executor could be started on m-1: Cannot allocate memory" in ended.fault.message


def test_a_layer_is_loaded_once_and_waited_for() -> None:
    script = Script().registered()
    torch = Environment(layer=frozenset({"torch"}))
    assert script(ev.AttemptAssigned(attempt("a", slot=1, environment=torch))) == [ev.LoadLayer(torch.layer)]
    assert script(ev.AttemptAssigned(attempt("b", slot=2, environment=torch))) == []
    spawns = script(ev.LayerReady(torch.layer))
    assert spawns == [ev.SpawnExecutor(number, torch.layer) for number in (2, 3)]


def test_a_larger_layer_serves_too() -> None:
    script = Script().registered()
    both = frozenset({"torch", "mine"})
    assert script(ev.LayerWanted(both)) == [ev.LoadLayer(both)]
    script(ev.LayerReady(both))
    torch = Environment(layer=frozenset({"torch"}))
    assert script(ev.AttemptAssigned(attempt("a", environment=torch))) == [ev.SpawnExecutor(2, both)]


def test_without_its_layer_an_executor_imports_for_itself() -> None:
    script = Script().registered()
    torch = Environment(layer=frozenset({"torch"}))
    script(ev.AttemptAssigned(attempt("other")))
    script(ev.AttemptAssigned(attempt("a", slot=2, environment=torch)))
    assert script(ev.LayerFailed(torch.layer)) == [ev.SpawnExecutor(2, BASE)]


def test_max_calls() -> None:
    script = Script().registered()
    for serial in (1, 2):
        script(ev.AttemptAssigned(attempt(str(serial), max_calls=2)))
        commands = script(ev.ExecutorEnded(1, serial, b""))
    assert commands == [ev.RetireExecutor(1)]
    assert script(ev.Ticked(), after_s=2.0) == [ev.SignalGroup(1, Signal.KILL)]


def test_idle_executors_end_down_to_the_number_at_the_beginning() -> None:
    script = Script(is_leased=False).registered()
    script(ev.AttemptAssigned(attempt("a", slot=1)))
    script(ev.AttemptAssigned(attempt("b", slot=2)))
    script(ev.ExecutorReady(2, 1))
    script(ev.ExecutorEnded(2, 2, b""))
    script(ev.ExecutorEnded(1, 1, b""), after_s=10.0)
    assert script(ev.Ticked(), after_s=49.0) == []
    assert script(ev.Ticked(), after_s=1.0) == [ev.RetireExecutor(2)]
    assert script(ev.Ticked(), after_s=2.0) == [ev.SignalGroup(2, Signal.KILL)]
    assert script(ev.Ticked(), after_s=600.0) == []


def test_when_the_lease_ends_everything_stops_and_then_the_machine() -> None:
    script = Script(lost_after_s=60, destroy_after_s=120).registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.AttemptAssigned(attempt("b")))
    script(ev.HeartbeatAcked(script.now_s), after_s=5.0)
    lost = script(ev.Ticked(), after_s=56.0)
    assert ev.SignalGroup(1, Signal.KILL) in lost
    assert [each.key for each in script.commands if isinstance(each, ev.ReportReturned)] == [("b", 1)]
    assert kinds(script(ev.AttemptAssigned(attempt("c")))) == ["ReportReturned"]
    assert kinds(script(ev.ExecutorExited(1, KILLED))) == ["ReportReturned", "ReportExecutorGone"]
    (end,) = script(ev.Ticked(), after_s=60.0)
    assert isinstance(end, ev.ExitAgent)


def test_an_embedded_machine_has_no_lease() -> None:
    script = Script(is_leased=False).registered()
    assert script.machine.next_wakeup_s() is not None  # the timer of the executor's start
    script(ev.AttemptAssigned(attempt("a")))
    assert script(ev.Ticked(), after_s=1e6) == []


def test_after_a_gap_nothing_starts_until_a_fresh_round_trip() -> None:
    script = Script().registered()
    script(ev.ClockGapSeen())
    gap_s = script.now_s
    assert script(ev.AttemptAssigned(attempt("a"))) == []
    assert script(ev.HeartbeatAcked(gap_s - 1.0)) == []
    assert kinds(script(ev.HeartbeatAcked(gap_s + 0.1), after_s=0.2)) == ["RunAttempt", "ReportStarted"]


def test_a_drained_machine_finishes_what_runs_and_exits() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.AttemptAssigned(attempt("b")))
    assert kinds(script(ev.DrainRequested("scale in"))) == ["ReportReturned"]
    assert kinds(script(ev.AttemptAssigned(attempt("c")))) == ["ReportReturned"]
    assert script(ev.ExecutorEnded(1, 1, b""))[-1] == ev.ExitAgent("drained")


def test_a_machine_that_has_to_go_gives_back_what_runs_and_exits() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.AttemptAssigned(attempt("b")))
    assert kinds(script(ev.DrainRequested("SIGTERM", stop_running=True))) == ["ReportReturned", "InterruptExecutor"]
    assert kinds(script(ev.Ticked(), after_s=TERM_AFTER_S)) == ["SignalGroup"]
    commands = script(ev.ExecutorExited(1, KILLED))
    assert commands[0] == ev.ReportReturned(("a", 1), "stopped (drain)")
    assert commands[-1] == ev.ExitAgent("drained")


def test_late_words_of_an_executor_change_nothing() -> None:
    script = Script().registered()
    script(ev.AttemptAssigned(attempt("a")))
    script(ev.ExecutorEnded(1, 1, b""))
    for event in (
        ev.ExecutorEnded(1, 1, b""),
        ev.ExecutorBlocked(1, 1),
        ev.ExecutorUnblocked(1, 1),
        ev.ExecutorEnded(9, 1, b""),
    ):
        assert script(event) == []
    assert script(ev.ExecutorExited(9, KILLED)) == []
