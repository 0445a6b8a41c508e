"""One task from submission to its end: success, retries, fences, checkpoints."""

from __future__ import annotations

from collections import Counter

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core.settle import backoff_until_s
from runner.core.values import CoreConfig, FailureKind, FailureRecord
from runner.errors import IllegalTransitionError
from runner.ids import ExecutorId, FunctionId, MachineId, TaskId
from tests.unit.core.script import (
    M1,
    T1,
    T2,
    VALUE,
    A,
    F,
    Script,
    X,
    checkpoint,
    cpus,
    crash,
    of,
    oid,
    segment,
    started,
    user_error,
)


def test_a_task_from_submission_to_forgotten() -> None:
    s = Script(m_1=cpus(2))
    assert s.submit("t-1", subscribe=True) == [
        c.SendFunction(M1, 1, F, b"pickled function"),
        c.StartAttempt(M1, 1, T1, 1, 1, b"spec", A),
    ]
    assert s.start("t-1") == []
    assert s.succeed("t-1") == [c.NotifyReady(A, oid("t-1"), VALUE, None)]
    assert s.release(oid("t-1")) == [c.ForgetTask(T1)]
    assert s.state("t-1") == "forgotten"
    assert s.cluster.object_count() == 0


def test_a_function_is_sent_once_per_generation() -> None:
    s = Script(m_1=cpus(1))
    assert of(c.SendFunction, s.submit("t-1"))
    s.succeed("t-1")
    assert not of(c.SendFunction, s.submit("t-2"))
    s.succeed("t-2")
    s.register("m-1", cpus(1), "agent-2")
    assert of(c.SendFunction, s.submit("t-3")) == [c.SendFunction(M1, 2, F, b"pickled function")]


def test_packages_go_before_the_function_that_needs_them() -> None:
    s = Script(m_1=cpus(4))
    s.feed(e.PackageRegistered("p-1", b"zip"))
    for name in ("f-2", "f-3"):
        s.feed(e.FunctionRegistered(A, FunctionId(name), "g", b"g", (), ("p-1", "p-gone")))
    sent = s.submit("t-1", function_id=FunctionId("f-2"))
    assert [type(command) for command in sent] == [c.SendPackage, c.SendFunction, c.StartAttempt]
    assert not of(c.SendPackage, s.submit("t-2", function_id=FunctionId("f-3")))
    s.feed(e.PackageRegistered("p-1", b"zip"))


def test_a_run_tells_its_watchers_every_state_and_is_kept() -> None:
    s = Script(m_1=cpus(1))
    notes = of(c.NoteTaskState, s.submit("t-1", is_run=True, name="lr=1"))
    notes += of(c.NoteTaskState, s.start("t-1"))
    notes += of(c.NoteTaskState, s.succeed("t-1"))
    assert [(n.state, n.attempt, n.machine_id) for n in notes] == [
        ("queued", 0, None),
        ("running", 1, M1),
        ("succeeded", 1, M1),
    ]
    assert notes[1].resumed_from_step == -1
    assert s.release(oid("t-1")) == []
    assert s.state("t-1") == "succeeded"


def test_what_a_run_came_to_is_kept_with_its_record_unless_it_is_large() -> None:
    s = Script(m_1=cpus(3))
    for name in ("t-1", "t-2", "t-3"):
        s.submit(name, is_run=True, name="fit", detached=name == "t-3")
    s.submit("t-4")
    s.succeed("t-1")
    s.succeed("t-2", segment("large"))
    s.succeed("t-3", segment("detached"))
    s.fail("t-4", user_error())
    s.release(*(oid(name) for name in ("t-1", "t-2", "t-3", "t-4")))
    assert s.cluster.object_outcome(oid("t-1")) == VALUE
    assert s.cluster.object_outcome(oid("t-3")) == segment("detached")
    for gone in ("t-2", "t-4"):
        assert isinstance(s.cluster.object_outcome(oid(gone)), FailureRecord)
    s.feed(e.ClientClosed(A))
    assert s.cluster.object_outcome(oid("t-1")) == VALUE
    assert s.replayed().object_outcome(oid("t-1")) == VALUE


def test_a_repeated_submission_is_a_no_op() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    assert s.submit("t-1") == []


def test_a_task_of_an_unknown_function_fails() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", function_id=FunctionId("f-none"))
    view = s.cluster.task(T1)
    assert view is not None
    assert view.failure is not None
    assert view.failure.kind is FailureKind.SETUP


def test_what_a_stale_fence_says_changes_nothing() -> None:
    s = Script(m_1=cpus(1), m_2=cpus(1))
    s.submit("t-1")
    machine_id, generation, task_id, attempt = s.fence("t-1")
    before = s.cluster.snapshot()
    for fence in (
        (machine_id, generation, task_id, attempt + 1),
        (machine_id, generation + 1, task_id, attempt),
        (MachineId("m-2"), generation, task_id, attempt),
    ):
        assert not s.cluster.is_current(*fence)
        assert s.feed(e.AttemptStarted(*fence, X)) == []
        assert s.feed(e.AttemptSucceeded(*fence, (VALUE,), 1.0)) == []
        assert s.feed(e.AttemptFailed(*fence, crash(), True)) == []
        assert s.feed(e.AttemptReturned(*fence)) == []
        assert s.feed(e.AttemptBlocked(*fence)) == []
        assert s.feed(e.AttemptUnblocked(*fence)) == []
        [reply] = s.feed(e.CheckpointSaved(*fence, checkpoint(1)))
        assert isinstance(reply, c.ReplyCheckpoint)
        assert not reply.accepted
    assert s.cluster.snapshot() == before
    assert s.cluster.is_current(machine_id, generation, task_id, attempt)


def test_a_repeated_start_or_end_is_a_no_op() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", is_run=True)
    fence = s.fence("t-1")
    s.start("t-1")
    assert s.start("t-1") == []
    s.succeed("t-1")
    assert s.feed(e.AttemptSucceeded(*fence, (VALUE,), 1.0)) == []
    assert s.feed(e.AttemptFailed(*fence, crash(), False)) == []


# ---- retries ----
def test_the_first_system_fault_is_retried_at_once_and_later_ones_wait_longer() -> None:
    s = Script(CoreConfig(backoff_first_s=1.0, backoff_max_s=3.0, poison_after=100), m_1=cpus(1))
    s.submit("t-1", max_retries=5)
    commands = s.fail("t-1", crash())
    assert of(c.NoteTaskState, commands)[0].state == "queued"
    assert started(commands) == [("t-1", 2, "m-1", 2)]
    for whole_s in (1.0, 2.0, 3.0):
        commands = s.fail("t-1", crash())
        assert of(c.NoteTaskState, commands)[0].state == "backoff"
        assert s.cluster.next_wakeup_s() is not None
        assert "waits before another try; attempt" in s.cluster.why_waiting(T1)
        assert not started(s.after(whole_s / 2 - 0.01))
        assert len(started(s.after(whole_s / 2 + 0.02))) == 1


def test_tasks_that_failed_together_do_not_come_back_together_and_replays_wait_as_long() -> None:
    config = CoreConfig(backoff_first_s=1.0, backoff_max_s=100.0)
    waits = [backoff_until_s(config, TaskId(f"t-{number}"), 2, 0.0) for number in range(1000)]
    assert waits == [backoff_until_s(config, TaskId(f"t-{number}"), 2, 0.0) for number in range(1000)]
    assert all(wait_s is not None and 1.0 <= wait_s <= 2.0 for wait_s in waits)
    quarters = Counter(int((wait_s or 0) * 4) for wait_s in waits)
    assert set(quarters) == {4, 5, 6, 7}
    assert min(quarters.values()) > 150
    assert len({backoff_until_s(config, T1, 2, 0.0), backoff_until_s(config, T2, 2, 0.0)}) == 2


def test_a_task_out_of_retries_fails_with_its_history() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", max_retries=1, subscribe=True, name="fit")
    s.fail("t-1", crash("executor killed by signal 9 (SIGKILL)\nmore"))
    [ready] = of(c.NotifyReady, s.fail("t-1", crash("executor exited with 3")))
    assert ready.failure.history == (
        "attempt 1 on m-1: executor killed by signal 9 (SIGKILL)",
        "attempt 2 on m-1: executor exited with 3",
    )
    assert (ready.failure.task_id, ready.failure.task_name, ready.failure.attempt) == ("t-1", "fit", 2)


def test_no_retries_means_one_attempt() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", max_retries=0)
    assert not started(s.fail("t-1", crash()))
    assert s.state("t-1") == "failed"


def test_retries_without_limit_end_at_poison() -> None:
    s = Script(CoreConfig(poison_after=2), m_1=cpus(1))
    s.submit("t-1", max_retries=-1)
    s.fail("t-1", crash())
    s.fail("t-1", FailureRecord(FailureKind.OUT_OF_MEMORY, "killed for memory"))
    view = s.cluster.task(T1)
    assert view is not None
    assert view.failure is not None
    assert view.failure.history[-1] == "it has killed 2 executors and is not tried again"


@pytest.mark.parametrize(
    ("asked", "retryable", "state"),
    [(True, True, "assigned"), (True, False, "failed"), (False, True, "failed")],
)
def test_user_errors_are_retried_only_when_asked_for(asked: bool, retryable: bool, state: str) -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", retry_user_errors=asked)
    s.fail("t-1", user_error(), retryable=retryable)
    assert s.state("t-1") == state


@pytest.mark.parametrize(
    "kind", [FailureKind.SETUP, FailureKind.TIMEOUT, FailureKind.STORE_FULL, FailureKind.OBJECT_LOST]
)
def test_other_failures_are_final(kind: FailureKind) -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    s.fail("t-1", FailureRecord(kind, "no"))
    assert s.state("t-1") == "failed"


def test_the_payload_of_a_user_error_is_passed_on_unchanged() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", subscribe=True)
    [ready] = of(c.NotifyReady, s.fail("t-1", user_error(b"exception")))
    assert ready.failure.payload == b"exception"
    assert ready.failure.history == ()


def test_a_long_message_is_one_short_line_of_the_history() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", max_retries=0, subscribe=True)
    s.start("t-1")
    (ready,) = of(c.NotifyReady, s.fail("t-1", crash("it crashed " + "x" * 100_000)))
    assert ready.failure.history[0].startswith("attempt 1 on m-1: it crashed x")
    assert len(ready.failure.history[0]) < 600


def test_history_and_trail_stay_small() -> None:
    s = Script(CoreConfig(poison_after=10_000, use_leases=False), m_1=cpus(1))
    s.submit("t-1", max_retries=-1)
    for _ in range(200):
        s.fail("t-1", crash())
        s.after(30.0)
    task = s.cluster._state.tasks[T1]
    assert len(task.lines) == 20
    assert len(task.trail) <= 256


def test_a_returned_attempt_costs_nothing_and_goes_first() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", max_retries=0)
    s.submit("t-2")
    assert started(s.feed(e.AttemptReturned(*s.fence("t-1")))) == [("t-1", 2, "m-1", 2)]


def test_a_returned_run_says_that_it_is_queued_again() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", is_run=True)
    [note] = s.only(c.NoteTaskState, e.AttemptReturned(*s.fence("t-1")))
    assert note.state == "queued"


def test_too_few_values_are_a_failure_of_the_missing_ones() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", num_returns=2, subscribe=True)
    first, second = of(c.NotifyReady, s.succeed("t-1"))
    assert first.value == VALUE
    assert second.failure.kind is FailureKind.OBJECT_LOST


def test_a_task_without_returns_is_forgotten_at_its_end() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", num_returns=0)
    assert s.succeed("t-1") == [c.ForgetTask(T1)]


def test_large_arguments_are_dropped_at_the_end() -> None:
    s = Script(m_1=cpus(1))
    record = s.cluster
    s.submit("t-1", is_run=True)
    task = record._state.tasks[T1]
    object.__setattr__(task.record, "payload", b"x" * 5000)
    s.succeed("t-1")
    assert task.record.payload == b""


# ---- checkpoints ----
def test_a_retried_attempt_gets_the_last_checkpoint() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", is_run=True, name="fit")
    s.start("t-1")
    saved = s.feed(e.CheckpointSaved(*s.fence("t-1"), checkpoint(0)))
    assert saved == [c.ReplyCheckpoint(M1, 1, T1, 1, 0, True), c.NoteCheckpoint(T1, "fit", A, 1, 0)]
    saved = s.feed(e.CheckpointSaved(*s.fence("t-1"), checkpoint(1)))
    assert saved[0] == c.DropCheckpoint(T1, checkpoint(0))
    # A repeat is acknowledged again, and commits nothing.
    assert s.feed(e.CheckpointSaved(*s.fence("t-1"), checkpoint(1))) == [c.ReplyCheckpoint(M1, 1, T1, 1, 1, True)]
    [start] = of(c.StartAttempt, s.fail("t-1", crash()))
    assert start.checkpoint == checkpoint(1)
    [note] = of(c.NoteTaskState, s.start("t-1"))
    assert note.resumed_from_step == 1


def test_a_backoff_of_a_run_that_ends_says_so() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", is_run=True)
    s.fail("t-1", crash())
    s.fail("t-1", crash())
    assert [note.state for note in of(c.NoteTaskState, s.after(1.0))] == ["queued"]


def test_an_illegal_move_carries_the_story() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", name="fit")
    task = s.cluster._state.tasks[T1]
    with pytest.raises(
        IllegalTransitionError,
        match=r"task t-1: assigned -> waiting\n.*waiting -> queued -> assigned\nattempt 1 on m-1",
    ):
        task.move(type(task.state)(1))


def test_refs_that_an_executor_added_outlive_the_attempt() -> None:
    s = Script(m_1=cpus(2))
    session = type(A)("x-1")
    s.feed(e.ObjectPut(A, oid("put"), VALUE))
    s.submit("t-1", contained=(oid("put"),))
    s.feed(e.ClientConnected(session, ExecutorId("x-1")))
    s.release(oid("put"))
    s.feed(e.RefsAdded(session, (oid("put"),)))
    s.succeed("t-1")
    assert s.cluster.object_outcome(oid("put")) == VALUE
    s.feed(e.ClientClosed(session))
    outcome = s.cluster.object_outcome(oid("put"))
    assert isinstance(outcome, FailureRecord)
    assert outcome.kind is FailureKind.OBJECT_LOST


def test_who_waits_for_a_value_that_is_missing_fails() -> None:
    s = Script(m_1=cpus(4))
    s.submit("t-1", num_returns=2)
    s.submit("t-2", dependencies=(oid("t-1", 1),))
    s.submit("t-3", dependencies=(oid("t-1", 0),))
    s.submit("t-4", dependencies=(oid("t-2"),))
    s.succeed("t-1", VALUE)
    assert [s.state(name) for name in ("t-2", "t-3", "t-4")] == ["failed", "assigned", "failed"]
