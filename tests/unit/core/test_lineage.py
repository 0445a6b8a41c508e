"""Values that only one machine has: lost with it, made again when somebody needs them, handed over when it ends."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core import facts as f
from runner.core.values import FailureKind, FailureRecord, SegmentRecord, TaskRecord, ValueRecord
from runner.ids import MachineId, ObjectId, TaskId
from tests.unit.core.script import (
    M1,
    M2,
    VALUE,
    A,
    B,
    F,
    Script,
    cpus,
    crash,
    held_by,
    of,
    oid,
    segment,
    started,
    user_error,
)


def two_machines() -> Script:
    return Script(m_1=cpus(1), m_2=cpus(1))


def make(s: Script, name: str, **options: Any) -> str:
    """Run a task whose large result stays on its machine; returns the machine."""
    s.submit(name, **options)
    machine_id, _, _, attempt = s.fence(name)
    s.succeed(name, held_by(machine_id, f"{name}-{attempt}"))
    return machine_id


def kill(s: Script, machine_id: str) -> list[c.Command]:
    return s.feed(e.MachineExited(MachineId(machine_id), "killed"))


def lost(s: Script, name: str | ObjectId) -> FailureRecord:
    outcome = s.cluster.object_outcome(ObjectId(name) if "." in name else oid(name))
    assert isinstance(outcome, FailureRecord)
    assert outcome.kind is FailureKind.OBJECT_LOST
    return outcome


def test_a_lost_result_is_made_again_when_somebody_asks_for_it() -> None:
    s = two_machines()
    machine_id = make(s, "t-1")
    assert not started(kill(s, machine_id)), "nobody needs it yet"
    assert s.cluster.object_state(oid("t-1")) == "evicted"
    [again] = started(s.feed(e.ObjectsResolved(A, (oid("t-1"),))))
    assert again[:2] == ("t-1", 2)
    other = held_by(again[2], "second")
    told = s.succeed("t-1", other)
    assert of(c.NotifyReady, told) == [c.NotifyReady(A, oid("t-1"), other, None)]
    assert c.NoteObject(oid("t-1")) in told
    assert other.segment is not None
    assert of(c.FreeSegment, s.release(oid("t-1"))) == [c.FreeSegment(oid("t-1"), other.segment)]
    assert s.cluster.object_count() == 0
    assert s.state("t-1") == "forgotten"


def test_a_reader_alone_has_it_made_again_too() -> None:
    s = two_machines()
    kill(s, make(s, "t-1"))
    assert started(s.feed(e.ObjectWanted(oid("t-1"))))[0][0] == "t-1"
    assert s.feed(e.ObjectWanted(oid("t-1"))) == []


def test_copies_of_a_lost_value_go() -> None:
    s = two_machines()
    machine_id = make(s, "t-1")
    value = held_by(machine_id, "t-1-1")
    assert value.segment is not None
    assert c.FreeSegment(oid("t-1"), value.segment) in kill(s, machine_id)


@pytest.mark.parametrize(
    ("options", "why"),
    [({"max_retries": 0}, "max_retries=0"), ({"is_run": True}, "runs are not run again")],
)
def test_what_may_not_run_again_is_lost_with_the_reason(options: dict[str, Any], why: str) -> None:
    s = two_machines()
    machine_id = make(s, "t-1", **options)
    kill(s, machine_id)
    message = lost(s, "t-1").message
    assert f"machine {machine_id}, which alone had it, was lost (killed)" in message
    assert why in message


def test_a_put_is_lost_with_the_reason() -> None:
    s = two_machines()
    s.feed(e.ObjectPut(A, oid("put"), held_by("m-1", "put")))
    kill(s, "m-1")
    assert "it was put, not returned by a task" in lost(s, "put").message
    s.release(oid("put"))
    assert s.cluster.object_count() == 0


def test_a_value_of_a_machine_that_is_gone_by_now_is_lost_at_once() -> None:
    s = two_machines()
    kill(s, "m-1")
    s.feed(e.ObjectPut(A, oid("put"), held_by("m-1", "put")))
    assert "was gone when it was told" in lost(s, "put").message
    s.feed(e.ObjectsPromised(A, (oid("own"),)))
    s.feed(e.PromiseFulfilled(A, oid("own"), held_by("m-1", "own"), None))
    assert "was gone when it was told" in lost(s, "own").message


def test_a_new_agent_on_a_machine_has_nothing_of_the_old_ones() -> None:
    s = two_machines()
    machine_id = make(s, "t-1")
    s.register(machine_id, cpus(1), "agent-2")
    assert s.cluster.object_state(oid("t-1")) == "evicted"


def test_retries_are_used_up_by_making_it_again() -> None:
    s = Script(m_1=cpus(1))
    make(s, "t-1", max_retries=1)
    kill(s, "m-1")
    s.boot("m-2", cpus(1))
    s.feed(e.ObjectWanted(oid("t-1")))
    s.succeed("t-1", held_by("m-2", "again"))
    assert s.cluster._state.tasks[TaskId("t-1")].function is None, "it cannot run a third time: nothing is kept for it"
    kill(s, "m-2")
    assert "the 1 retries of its task are used up" in lost(s, "t-1").message


def test_a_chain_is_made_again_from_its_beginning() -> None:
    s = Script(m_1=cpus(1))
    make(s, "t-0")
    count = 2000
    cluster = s.cluster
    for i in range(1, count):
        record = TaskRecord(TaskId(f"t-{i}"), A, F, b"spec", dependencies=(oid(f"t-{i - 1}"),))
        cluster.handle(e.TaskSubmitted(A, record, False), 0.0)
        cluster.handle(e.RefsReleased(A, (oid(f"t-{i - 1}"),)), 0.0)
        cluster.handle(e.AttemptSucceeded(*s.fence(f"t-{i}"), (held_by("m-1", f"s-{i}"),), 1.0), 0.0)
    assert cluster.object_count() == count
    kill(s, "m-1")
    s.boot("m-2", cpus(1))
    assert [each[0] for each in started(s.feed(e.ObjectsResolved(A, (oid(f"t-{count - 1}"),))))] == ["t-0"]
    for i in range(count):
        cluster.handle(e.AttemptSucceeded(*s.fence(f"t-{i}"), (held_by("m-2", f"again-{i}"),), 1.0), 0.0)
    cluster.check()
    assert cluster.object_state(oid(f"t-{count - 1}")) == "ready"
    s.release(oid(f"t-{count - 1}"))
    assert cluster.object_count() == 0
    assert cluster.task_counts() == {}


def test_lineage_keeps_the_record_of_an_argument_but_no_segment() -> None:
    s = two_machines()
    large, small = segment("large"), oid("small")
    s.feed(e.ObjectPut(A, oid("large"), large))
    s.feed(e.ObjectPut(A, small, VALUE))
    make(s, "t-1", dependencies=(oid("large"), small))
    assert large.segment is not None
    assert of(c.FreeSegment, s.release(oid("large"), small)) == [c.FreeSegment(oid("large"), large.segment)]
    assert s.cluster.object_state(oid("large")) == "evicted"
    assert s.cluster.object_outcome(small) == VALUE
    s.release(oid("t-1"))
    assert s.cluster.object_count() == 0


def test_without_its_arguments_it_cannot_be_made_again() -> None:
    s = two_machines()
    s.feed(e.ObjectPut(A, oid("large"), segment("large")))
    machine_id = make(s, "t-1", dependencies=(oid("large"),))
    s.release(oid("large"))
    kill(s, machine_id)
    [told] = of(c.NotifyReady, s.feed(e.ObjectsResolved(A, (oid("t-1"),))))
    assert "object large.0 is lost: nobody held it any more" in told.failure.message


def test_only_what_is_missing_is_made_again() -> None:
    s = two_machines()
    s.submit("t-1", num_returns=3)
    machine_id, other = s.fence("t-1")[0], segment("kept")
    s.succeed("t-1", held_by(machine_id, "a"), other, held_by(machine_id, "c"))
    s.release(oid("t-1", 2))
    kill(s, machine_id)
    s.feed(e.ObjectWanted(oid("t-1")))
    new = [held_by(s.fence("t-1")[0], f"new-{i}") for i in range(3)]
    freed = {command.segment.path for command in of(c.FreeSegment, s.succeed("t-1", *new))}
    assert freed == {"/dev/shm/new-1", "/dev/shm/new-2"}
    assert s.cluster.object_outcome(oid("t-1")) == new[0]
    assert s.cluster.object_outcome(oid("t-1", 1)) == other


def test_a_task_that_waits_for_room_waits_for_the_lost_argument_again() -> None:
    s = two_machines()
    machine_id = make(s, "t-1")
    s.submit("busy-1", max_retries=-1)
    s.submit("busy-2", max_retries=-1)
    s.submit("t-2", dependencies=(oid("t-1"),))
    assert s.state("t-2") == "queued"
    kill(s, machine_id)
    assert (s.state("t-2"), s.state("t-1")) == ("waiting", "queued")
    left = next(name for name in ("busy-1", "busy-2") if s.state(name) == "assigned")
    s.succeed(left)
    for _ in range(3):
        name = next(name for name in ("t-1", "t-2", "busy-1", "busy-2") if s.state(name) == "assigned")
        s.succeed(name)
    assert s.state("t-2") == "succeeded"


def test_a_task_fails_when_its_argument_is_lost_for_good() -> None:
    s = two_machines()
    s.feed(e.ObjectPut(A, oid("put"), held_by("m-2", "put")))
    s.submit("busy-1")
    s.submit("busy-2")
    s.submit("t-2", dependencies=(oid("put"),), subscribe=True)
    [told] = of(c.NotifyReady, kill(s, "m-2"))
    assert told.failure.kind is FailureKind.OBJECT_LOST
    assert s.state("t-2") == "failed"


def test_an_attempt_that_lost_its_argument_is_not_charged() -> None:
    s = Script(m_1=cpus(1), m_2=cpus(2))
    s.submit("busy")
    s.succeed("busy")
    machine_id = make(s, "t-1")
    others = {M1, M2} - {machine_id}
    s.submit("t-2", max_retries=0, dependencies=(oid("t-1"),), shape=cpus(1))
    if s.fence("t-2")[0] == machine_id:  # placed where its argument is: it goes too
        return
    s.start("t-2")
    kill(s, machine_id)
    s.fail("t-2", FailureRecord(FailureKind.OBJECT_LOST, "it is gone"))
    assert s.state("t-2") == "waiting"
    assert s.fence("t-1")[0] in others
    s.succeed("t-1", held_by(s.fence("t-1")[0], "again"))
    assert s.fence("t-2")[3] == 2


def test_a_failure_when_it_runs_again_reaches_those_who_wait() -> None:
    s = two_machines()
    kill(s, make(s, "t-1"))
    s.submit("t-2", dependencies=(oid("t-1"),), subscribe=True)
    assert (s.state("t-1"), s.state("t-2")) == ("assigned", "waiting")
    [told] = of(c.NotifyReady, s.fail("t-1", user_error(b"pickled")))
    assert told.failure.payload == b"pickled"
    assert s.state("t-2") == "failed"


def test_a_crash_when_it_runs_again_uses_the_same_retries() -> None:
    s = two_machines()
    kill(s, make(s, "t-1", max_retries=2))
    s.feed(e.ObjectWanted(oid("t-1")))
    s.fail("t-1", crash())
    s.after(1.0)
    assert s.state("t-1") == "assigned"
    s.fail("t-1", crash())
    assert s.state("t-1") == "failed"


def test_the_end_of_its_submitter_does_not_stop_it() -> None:
    s = two_machines()
    s.feed(e.ClientConnected(B))
    machine_id = make(s, "t-1")
    s.feed(e.RefsAdded(B, (oid("t-1"),)))
    kill(s, machine_id)
    s.feed(e.ObjectsResolved(B, (oid("t-1"),)))
    s.feed(e.ClientClosed(A))
    [told] = of(c.NotifyReady, s.succeed("t-1", held_by(s.fence("t-1")[0], "again")))
    assert told.client_id == B


def test_a_restart_loses_what_machines_had() -> None:
    s = two_machines()
    make(s, "t-1")
    s.feed(e.ObjectPut(A, oid("put"), held_by("m-1", "put")))
    copy = s.replayed()
    assert copy.snapshot() == s.cluster.snapshot()
    copy.handle(e.CoordinatorRestarted(), 0.0)
    copy.check()
    assert copy.object_state(oid("t-1")) == "evicted"
    assert copy.object_state(oid("put")) == "failed"


# ---- machines that end ----
def brought(s: Script, object_id: ObjectId) -> list[c.Command]:
    outcome = s.cluster.object_outcome(object_id)
    assert isinstance(outcome, ValueRecord)
    assert outcome.segment is not None
    here = ValueRecord(b"here", (), SegmentRecord("host", f"/dev/shm/here-{object_id}", 1 << 20))
    return s.feed(e.ObjectBrought(object_id, outcome.segment.path, here))


def test_a_machine_ends_when_it_has_handed_over_what_only_it_has() -> None:
    s = Script(m_1=cpus(1))
    inner = oid("inner")
    s.feed(e.ObjectPut(A, inner, VALUE))
    s.submit("t-1")
    s.succeed("t-1", held_by("m-1", "a", (inner,)))
    s.feed(e.ObjectPut(A, oid("put"), held_by("m-1", "put")))
    s.release(inner)
    commands = s.feed(e.MachineRemovalRequested(M1, force=False))
    assert of(c.BringObjects, commands) == [c.BringObjects(M1, 1, (oid("t-1"), oid("put")))]
    assert s.cluster.machine_counts() == {"draining": 1}
    assert c.NoteObject(oid("t-1")) in brought(s, oid("t-1"))
    assert s.cluster.machine_counts() == {"draining": 1}
    brought(s, oid("put"))
    assert s.cluster.machine_counts() == {"stopping": 1}
    outcome = s.cluster.object_outcome(oid("t-1"))
    assert isinstance(outcome, ValueRecord)
    assert (outcome.payload, outcome.contained) == (b"here", (inner,))
    assert s.cluster.object_outcome(inner) == VALUE, "what is in it stays pinned"


def test_a_machine_does_not_wait_for_a_value_that_is_freed() -> None:
    s = Script(m_1=cpus(1))
    make(s, "t-1")
    s.feed(e.MachineRemovalRequested(M1, force=False))
    s.release(oid("t-1"))
    assert s.cluster.machine_counts() == {"stopping": 1}


def test_what_cannot_be_handed_over_counts_as_lost() -> None:
    s = Script(m_1=cpus(1))
    make(s, "t-1")
    s.feed(e.ObjectPut(A, oid("put"), held_by("m-1", "put")))
    s.feed(e.ObjectBrought(oid("put"), "/dev/shm/put", None, "no room"))
    assert s.cluster.object_state(oid("put")) == "ready", "the machine stays, and so does the value"
    s.feed(e.MachineRemovalRequested(M1, force=False))
    s.feed(e.ObjectBrought(oid("put"), "/dev/shm/put", None, "no room"))
    assert "could not hand it over: no room" in lost(s, "put").message
    s.feed(e.ObjectBrought(oid("t-1"), "/dev/shm/t-1-1", None, "no room"))
    assert s.cluster.object_state(oid("t-1")) == "evicted"
    assert s.cluster.machine_counts() == {"stopping": 1}


def test_what_comes_late_to_a_machine_that_ends_is_asked_for_too() -> None:
    s = Script(m_1=cpus(1))
    make(s, "t-1")
    s.feed(e.MachineRemovalRequested(M1, force=False))
    late = s.feed(e.ObjectPut(A, oid("put"), held_by("m-1", "put")))
    assert of(c.BringObjects, late) == [c.BringObjects(M1, 1, (oid("put"),))]


def test_a_value_that_moved_survives_its_machine_and_one_that_comes_too_late_is_freed() -> None:
    s = two_machines()
    machine_id = make(s, "t-1")
    brought(s, oid("t-1"))
    kill(s, machine_id)
    assert s.cluster.object_state(oid("t-1")) == "ready"
    late = segment("late")
    assert late.segment is not None
    freed = s.feed(e.ObjectBrought(oid("t-1"), "/dev/shm/t-1-1", late))
    assert freed == [c.FreeSegment(oid("t-1"), late.segment)]


def test_what_an_attempt_kept_and_nobody_names_may_go() -> None:
    s = two_machines()
    machine_id = make(s, "t-1")
    named = SegmentRecord(machine_id, "/dev/shm/t-1-1", 1, MachineId(machine_id))
    other = named._replace(path="/dev/shm/other")
    kept = e.ValuesKept(MachineId(machine_id), ((oid("t-1"), named), (oid("t-1"), other), (oid("gone"), other)))
    assert s.feed(kept) == [c.FreeSegment(oid("t-1"), other), c.FreeSegment(oid("gone"), other)]


def test_lineage_facts_replay() -> None:
    s = two_machines()
    s.feed(e.ObjectPut(A, oid("arg"), segment("arg")))
    machine_id = make(s, "t-1", dependencies=(oid("arg"),))
    s.submit("t-2", dependencies=(oid("t-1"),), num_returns=2)
    kill(s, machine_id)
    s.feed(e.ObjectWanted(oid("t-1")))
    assert any(isinstance(fact, f.TaskRerun) for fact in s.facts)
    assert s.replayed().snapshot() == s.cluster.snapshot()
