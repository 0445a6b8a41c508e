"""Listings, stories, replay, and the journal form of every fact."""

from __future__ import annotations

import ast
import pathlib
import typing

import pytest

from runner.core import facts as f
from runner.core import suspend_facts as s
from runner.core import task
from runner.core.cluster import EVENTS
from runner.core.events import ClientConnected, Event
from runner.core.journal_form import decode, encode
from runner.core.turn import APPLY
from runner.core.values import (
    FailureKind,
    FailureRecord,
    GroupRecord,
    PoolRecord,
    SegmentRecord,
    TaskRecord,
    ValueRecord,
)
from runner.ids import ClientId, ExecutorId, FunctionId, MachineId, TaskId
from tests.unit.core.script import M1, M2, T1, A, Script, X, as_lists, checkpoint, cpus, crash, oid

VALUE = ValueRecord(b"v", (oid("a"),), SegmentRecord("h", "/p", 3, M1))
FAILURE = FailureRecord(FailureKind.USER, "m", b"p", T1, "n", 2, M1, ("line",))
RECORD = TaskRecord(
    T1, A, FunctionId("f"), b"p", cpus(2), "n", (oid("a"),), (oid("b"),), 2, 5, True, True, True, 1, (T1, 3), 9.0
)
FACTS: list[f.Fact] = [
    f.ClientSeen(A, X),
    f.ClientLeased(A, None),
    f.ClientGone(A),
    f.FrameDone(A, 7),
    f.FunctionAdded(A, FunctionId("f"), "n", b"p", (oid("a"),), ("p-1",)),
    f.PackageAdded("p-1", b"zip"),
    f.ObjectStored(A, oid("a"), VALUE),
    f.ObjectStored(A, oid("a"), ValueRecord(b"v")),
    f.RefsTaken(A, (oid("a"),)),
    f.RefsDropped(A, (oid("a"),)),
    f.ObjectsAwaited(A, (oid("a"),)),
    f.ObjectLost(oid("a"), "why", None),
    f.ObjectLost(oid("a"), "why", FAILURE),
    f.ObjectMoved(oid("a"), VALUE),
    f.TaskRerun(T1),
    f.InputsMissed(T1),
    f.TaskAdded(RECORD, True),
    f.TaskAdded(TaskRecord(T1, A, FunctionId("f"), b""), False),
    f.CancelMarked(T1, True, False),
    f.TaskSettled(T1, True, FAILURE, 1.0),
    f.BackoffEnded(T1),
    f.AttemptAssigned(T1, 2, M1, 5, (0, 3)),
    f.AttemptBegan(T1, X, 1.0),
    f.AttemptDone(T1, (VALUE, VALUE), 0.5, 1.0),
    f.AttemptRetried(T1, "line", True, False, None),
    f.AttemptGivenBack(T1, True),
    f.AttemptPaused(T1),
    f.AttemptAwoke(T1),
    f.AttemptResumed(T1),
    f.TaskReshaped(T1, cpus(1)),
    f.GroupAdded(GroupRecord("g", A, (cpus(1), ()), "SPREAD", "n", 2.0, True, (T1, 1)), 1.0),
    f.GroupPlaced("g", ((0, M1, (0, 1)), (1, M2, ())), 2.0),
    f.BundlesLost("g", (0,), 3.0),
    f.GroupEnded("g", 4, FailureRecord(FailureKind.GROUP_REMOVED, "gone")),
    f.CheckpointCommitted(T1, checkpoint(1)),
    f.MachineAdded(M1, cpus(2), "fake", 1.0),
    f.MachineNamed(M1, "pid"),
    f.MachineMoved(M1, 4, "r"),
    f.MachineJoined(M1, "i", 1, cpus(2), "h", {"x": 1.0}, 2.0),
    f.PromisesMade(A, (oid("a"),)),
    f.PromiseEnded(A, oid("a"), VALUE, None),
    f.PromiseEnded(A, oid("a"), None, FAILURE),
    f.ActorWatched(A, T1),
    f.ActorUp(T1, "name", b"secret"),
    f.ActorReleased(T1),
    f.ActorShot(T1),
    f.ItemsStored(T1, (VALUE, VALUE)),
    f.ItemsTaken(T1, 3),
    f.StreamEnded(T1, 2),
    s.SuspendBegan(M1, 2, "idle", True),
    s.SuspendAdvanced(M1, 4, "r"),
    s.SuspendCalledOff(M1, "r"),
    s.SnapshotSaved(M1, 1.0),
    s.SnapshotUsed(M1, "r", 2.0),
    s.SnapshotDropped(M1, "r", 3.0),
    s.MachineAwoke(M1, ""),
    s.ResumeWanted(M1),
    f.PoolsSet((PoolRecord("default", cpus(2), 1, 4, 2, 30.0, True), PoolRecord("big", cpus(8), 0, 1)), True),
]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_facts_come_back_from_the_journal(fact: f.Fact) -> None:
    back = decode(as_lists(encode(fact)))
    assert back == fact
    assert type(back) is type(fact)
    assert repr(back) == repr(fact)


def test_a_journal_from_before_fields_came_or_went_can_be_read() -> None:
    added = f.MachineAdded(M1, cpus(2), "fake", 1.0)
    assert decode(as_lists(encode(added))[:5]) == added
    settled = f.TaskSettled(T1, True, FAILURE, 1.0)
    assert decode([*encode(settled), "x-1", ["o-1"]]) == settled


def test_every_fact_and_event_has_its_place() -> None:
    assert set(typing.get_args(f.Fact)) == set(APPLY) == {type(fact) for fact in FACTS}
    assert set(typing.get_args(Event)) == set(EVENTS)


def test_replay_needs_no_decisions() -> None:
    s = Script(m_1=cpus(1), m_2=cpus(2))
    for i in range(5):
        s.submit(f"t-{i}", is_run=i == 0)
    s.fail("t-0", crash())
    s.succeed("t-1")
    copy = s.replayed()
    assert copy.snapshot() == s.cluster.snapshot()
    copy.check()


# ---- questions ----
def test_tasks_are_listed_in_pages_and_by_filter() -> None:
    s = Script(m_1=cpus(1))
    for i in range(5):
        s.submit(f"t-{i}", is_run=i % 2 == 0, name=f"n-{i}")
    seen, token = [], ""
    while True:
        page, token = s.cluster.tasks(after=token, limit=2)
        seen += [view.task_id for view in page]
        if not token:
            break
    assert seen == [f"t-{i}" for i in range(5)]
    assert [v.task_id for v in s.cluster.tasks(runs_only=True)[0]] == ["t-0", "t-2", "t-4"]
    assert [v.task_id for v in s.cluster.tasks(name="n-3")[0]] == ["t-3"]
    assert [(v.task_id, v.machine_id, v.function_name) for v in s.cluster.tasks(state="assigned")[0]] == [
        ("t-0", "m-1", "train")
    ]
    assert s.cluster.task_counts() == {"assigned": 1, "queued": 4}
    assert s.cluster.unfinished_tasks() == 5
    assert s.cluster.unfinished_tasks(ClientId("c-none")) == 0
    assert s.cluster.task(TaskId("t-none")) is None


def test_machines_are_listed_in_pages() -> None:
    s = Script(m_1=cpus(1), m_2=cpus(2), m_3=cpus(3))
    s.request("m-4", cpus(1))
    first, token = s.cluster.machines(limit=3)
    rest, end = s.cluster.machines(after=token, limit=3)
    assert [view.machine_id for view in first + rest] == ["m-1", "m-2", "m-3", "m-4"]
    assert end == ""
    assert s.cluster.machine_counts() == {"ready": 3, "creating": 1}
    assert s.cluster.machine(MachineId("m-9")) is None
    assert s.cluster.generation_of(MachineId("m-9")) == 0
    assert not s.cluster.is_machine_live(MachineId("m-9"), 0)


def test_stories_and_reasons() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", name="fit", max_retries=0)
    s.submit("t-2", dependencies=tuple(oid("t-1") for _ in range(4)))
    assert s.cluster.why_waiting(TaskId("t-2")) == "waits for its arguments t-1.0, t-1.0, t-1.0 and 1 more"
    s.start("t-1")
    assert s.cluster.why_waiting(T1) == ""
    assert s.cluster.why_waiting(TaskId("t-none")) == ""
    s.fail("t-1", crash())
    assert s.cluster.story("t-1") == (
        "task t-1 (fit) of c-a: waiting -> queued -> assigned -> running -> failed\n"
        "worker_crashed: executor killed by signal 9 (SIGKILL)"
    )
    assert s.cluster.story("m-1").startswith("machine m-1 (fake) generation 1: requested")
    assert s.cluster.story("t-1.0") == "object t-1.0: failed, made by t-1, 1 holders, 0 pins"
    assert s.cluster.story("nobody") == "nobody is not known"
    assert s.cluster.object_count() == 2
    assert s.cluster.client_count() == 1


def test_a_settled_state_has_no_way_out() -> None:
    for state in task.TaskState:
        ways = task.TRANSITIONS[state]
        if state is task.TaskState.SUCCEEDED:  # its result may be lost, and it runs again
            assert ways == {task.TaskState.WAITING}
        else:
            assert bool(ways) == (state < task.TaskState.SUCCEEDED)


# ---- purity ----
ALLOWED = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "fractions",
    "functools",
    "heapq",
    "itertools",
    "math",
    "operator",
    "typing",
    "zlib",  # checksums
}


def test_the_core_imports_nothing_that_could_surprise() -> None:
    core = pathlib.Path(task.__file__).parent
    for path in sorted(core.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                is_ours = name in ("runner.errors", "runner.ids") or name.startswith("runner.core")
                assert is_ours or name.partition(".")[0] in ALLOWED, f"{path.name} imports {name}"


def test_a_session_of_an_executor_is_no_client() -> None:
    s = Script()
    s.feed(ClientConnected(ClientId("x-9"), ExecutorId("x-9")))
    assert s.cluster.client_count() == 1
