"""What keeps objects alive, who is told when they are final, and dependencies between tasks."""

from __future__ import annotations

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core.objects import Object, ObjectState
from runner.core.values import CoreConfig, FailureKind, FailureRecord, TaskRecord, ValueRecord
from runner.errors import IllegalTransitionError
from runner.ids import ClientId, FunctionId, ObjectId, TaskId
from tests.unit.core.script import T1, T2, VALUE, A, B, F, Script, cpus, crash, of, oid, segment, started, user_error


def outcome_kind(s: Script, object_id: ObjectId) -> FailureKind | None:
    outcome = s.cluster.object_outcome(object_id)
    return outcome.kind if isinstance(outcome, FailureRecord) else None


def test_a_put_lives_until_its_last_holder_lets_go() -> None:
    s = Script()
    s.feed(e.ClientConnected(B))
    value = segment("put")
    s.feed(e.ObjectPut(A, oid("put"), value))
    assert s.feed(e.ObjectPut(A, oid("put"), VALUE)) == []
    s.feed(e.RefsAdded(B, (oid("put"), oid("unknown"))))
    assert s.release(oid("put")) == []
    assert s.release(oid("put")) == []
    assert value.segment is not None
    assert s.release(oid("put"), client=B) == [c.FreeSegment(oid("put"), value.segment)]
    assert outcome_kind(s, oid("put")) is FailureKind.OBJECT_LOST


def test_a_container_keeps_what_is_in_it_at_any_depth() -> None:
    s = Script()
    names = [oid(f"put{i}") for i in range(5000)]
    s.feed(e.ObjectPut(A, names[0], VALUE))
    cluster = s.cluster
    for inner, outer in zip(names, names[1:], strict=False):
        cluster.handle(e.ObjectPut(A, outer, ValueRecord(b"v", (inner,))), 0.0)
        cluster.handle(e.RefsReleased(A, (inner,)), 0.0)
    assert cluster.object_count() == 5000
    s.release(names[-1])
    assert cluster.object_count() == 0


def test_a_result_that_nobody_wants_is_dropped_at_the_end() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    assert s.release(oid("t-1")) == []
    value = segment("t-1")
    assert value.segment is not None
    assert s.succeed("t-1", value) == [c.FreeSegment(oid("t-1"), value.segment), c.ForgetTask(T1)]


def test_arguments_are_pinned_until_the_task_settles() -> None:
    s = Script(m_1=cpus(1))
    s.feed(e.ObjectPut(A, oid("put"), VALUE))
    s.submit("t-1", dependencies=(oid("put"),), contained=(oid("put"),))
    s.release(oid("put"))
    assert s.cluster.object_outcome(oid("put")) == VALUE
    s.succeed("t-1")
    assert outcome_kind(s, oid("put")) is FailureKind.OBJECT_LOST


def test_a_function_pins_its_refs_while_a_session_or_a_task_needs_it() -> None:
    s = Script(m_1=cpus(1))
    s.feed(e.ClientConnected(B))
    s.feed(e.ObjectPut(B, oid("put"), VALUE))
    g = FunctionId("g")
    for _ in range(2):
        s.feed(e.FunctionRegistered(B, g, "g", b"g", (oid("put"),)))
    s.submit("t-1", client=B, function_id=g, detached=True)
    s.feed(e.ClientClosed(B))
    assert s.cluster.object_outcome(oid("put")) == VALUE
    s.succeed("t-1")
    assert outcome_kind(s, oid("put")) is FailureKind.OBJECT_LOST


def test_a_dependant_waits_and_gets_the_values_in_its_order() -> None:
    s = Script(m_1=cpus(2))
    s.submit("t-1")
    s.feed(e.ObjectPut(A, oid("put"), VALUE))
    assert s.submit("t-2", dependencies=(oid("put"), oid("t-1"))) == []
    assert s.state("t-2") == "waiting"
    assert s.cluster.why_waiting(T2) == "waits for its arguments t-1.0"
    result = ValueRecord(b"result")
    [start] = of(c.StartAttempt, s.succeed("t-1", result))
    assert start.dependencies == ((oid("put"), VALUE), (oid("t-1"), result))


def test_a_failure_reaches_all_that_wait_for_it_unchanged() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-0")
    count = 3000
    cluster = s.cluster
    for i in range(1, count):
        record = TaskRecord(TaskId(f"t-{i}"), A, F, b"spec", dependencies=(oid(f"t-{i - 1}"),))
        cluster.handle(e.TaskSubmitted(A, record, i == count - 1), 0.0)
    failure = user_error(b"exception")
    [ready] = of(c.NotifyReady, s.fail("t-0", failure))
    assert ready.object_id == oid(f"t-{count - 1}")
    assert (ready.failure.payload, ready.failure.task_id) == (b"exception", "t-0")
    assert s.cluster.task_counts() == {"failed": count}


def test_a_task_with_a_failed_or_unknown_argument_fails_at_once() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    s.fail("t-1", user_error(b"exception"))
    [ready] = of(c.NotifyReady, s.submit("t-2", dependencies=(oid("t-1"),), subscribe=True))
    assert ready.failure.payload == b"exception"
    [ready] = of(c.NotifyReady, s.submit("t-3", dependencies=(oid("gone"),), subscribe=True))
    assert ready.failure.kind is FailureKind.OBJECT_LOST
    assert "gone.0" in ready.failure.message


def test_cancelling_an_input_fails_the_dependant() -> None:
    s = Script()
    s.submit("t-1")
    s.submit("t-2", dependencies=(oid("t-1"),))
    s.submit("t-3", dependencies=(oid("t-1"), oid("t-1")))
    s.cancel("t-1")
    assert [s.state(t) for t in ("t-1", "t-2", "t-3")] == ["cancelled", "failed", "failed"]


def test_resolve_answers_now_or_when_ready() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    s.feed(e.ObjectPut(A, oid("put"), VALUE))
    ready, lost = s.feed(e.ObjectsResolved(A, (oid("put"), oid("t-1"), oid("gone"))))
    assert ready == c.NotifyReady(A, oid("put"), VALUE, None)
    assert isinstance(lost, c.NotifyReady)
    assert lost.failure is not None
    assert lost.failure.kind is FailureKind.OBJECT_LOST
    assert s.feed(e.ObjectsResolved(A, (oid("t-1"),))) == []
    s.feed(e.ClientConnected(B))
    assert s.feed(e.ObjectsResolved(B, (oid("t-1"),))) == []
    told = of(c.NotifyReady, s.succeed("t-1"))
    assert [note.client_id for note in told] == [A, B]


# ---- sessions ----
def test_a_session_that_stays_away_loses_its_work_and_its_refs() -> None:
    s = Script(CoreConfig(client_lost_after_s=10.0), m_1=cpus(1))
    s.submit("t-1")
    s.submit("t-2")
    s.submit("t-3", detached=True)
    s.feed(e.ClientDisconnected(A))
    assert s.feed(e.ClientDisconnected(A)) == []
    assert s.cluster.client_count() == 0
    assert s.after(9.0) == []
    stopped = s.after(2.0)
    assert c.StopAttempt(*s.fence("t-1"), "cancelled") in stopped
    assert (s.state("t-2"), s.state("t-3")) == ("forgotten", "queued")
    assert not s.cluster.has_client(A)
    s.succeed("t-1")
    s.succeed("t-3")
    assert s.cluster.object_count() == 0
    assert s.cluster.task_counts() == {}


def test_a_session_that_comes_back_in_time_keeps_everything() -> None:
    s = Script(CoreConfig(client_lost_after_s=10.0))
    s.submit("t-1")
    s.feed(e.ClientDisconnected(A))
    s.now_s = 9.0
    s.feed(e.ClientConnected(A))
    s.feed(e.ClientConnected(A))
    assert s.after(20.0) == []
    assert s.state("t-1") == "queued"
    assert s.cluster.unfinished_tasks(A) == s.cluster.unfinished_tasks() == 1


def test_frames_are_counted_once_and_upwards() -> None:
    s = Script()
    for seq in (1, 2, 2, 1):
        s.feed(e.FrameApplied(A, seq))
    assert s.cluster.frame_seq(A) == 2
    s.feed(e.FrameApplied(B, 1))
    assert s.cluster.frame_seq(B) == 0


def test_an_unknown_session_changes_nothing() -> None:
    s = Script(m_1=cpus(1))
    before = s.cluster.snapshot()
    ghost = ClientId("c-ghost")
    assert s.submit("t-1", client=ghost) == []
    for event in (
        e.ClientDisconnected(ghost),
        e.ClientClosed(ghost),
        e.FunctionRegistered(ghost, FunctionId("g"), "g", b"g"),
        e.ObjectPut(ghost, oid("put"), VALUE),
        e.RefsAdded(ghost, (oid("put"),)),
        e.RefsReleased(ghost, (oid("put"),)),
        e.ObjectsResolved(ghost, (oid("put"),)),
    ):
        assert s.feed(event) == []
    value = segment("put")
    assert value.segment is not None
    assert s.feed(e.ObjectPut(ghost, oid("put"), value)) == [c.FreeSegment(oid("put"), value.segment)]
    assert s.cluster.snapshot() == before


def test_a_result_that_comes_too_late_leaves_no_segment() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    fence = s.fence("t-1")
    s.fail("t-1", crash())
    late, good = segment("late"), segment("good")
    assert late.segment is not None
    freed = [c.FreeSegment(oid("t-1"), late.segment)]
    assert s.feed(e.AttemptSucceeded(*fence, (late,), 1.0)) == freed
    fence = s.fence("t-1")
    s.succeed("t-1", good)
    assert s.feed(e.AttemptSucceeded(*fence, (good,), 1.0)) == []
    assert s.feed(e.AttemptSucceeded(*fence, (late,), 1.0)) == freed


def test_a_put_that_was_refused_leaves_no_segment() -> None:
    s = Script()
    value = segment("put")
    assert value.segment is not None
    assert s.feed(e.PutRefused(oid("put"), value)) == [c.FreeSegment(oid("put"), value.segment)]
    assert s.feed(e.PutRefused(oid("put"), VALUE)) == []


def test_the_same_history_gives_the_same_commands() -> None:
    def history() -> list[c.Command]:
        s = Script(m_1=cpus(1))
        for i in range(20):
            s.feed(e.ObjectPut(A, oid(f"p{i}"), segment(f"p{i}")))
        return s.feed(e.ClientClosed(A))

    assert history() == history()
    freed = [command.object_id for command in of(c.FreeSegment, history())]
    assert freed == sorted(freed, reverse=True)


def test_an_illegal_move_of_an_object_carries_its_story() -> None:
    obj = Object(oid("put"), None)
    with pytest.raises(IllegalTransitionError, match="PENDING -> FREED\nobject put.0: pending, put, 0 holders, 0 pins"):
        obj.move(ObjectState.FREED)


def test_placement_starts_nothing_for_a_waiting_task() -> None:
    s = Script(m_1=cpus(4))
    s.submit("t-1")
    assert not started(s.submit("t-2", dependencies=(oid("t-1"),)))
