"""Placement groups: all or nothing, where the strategy says, and what becomes of their tasks."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core.group_events import GroupRemovalRequested, GroupRequested
from runner.core.groups import Group, GroupState
from runner.core.values import GPU, UNIT, CoreConfig, FailureKind, FailureRecord, GroupRecord, PoolRecord, Shape
from runner.core.values import WishRecord as Wish
from runner.ids import ClientId, MachineId
from tests.unit.core.script import A, B, Script, X, cpus, oid, started

G = "g-1"


def create(s: Script, *bundles: Shape, name: str = G, client: ClientId = A, **more: Any) -> list[c.Command]:
    record = GroupRecord(name, client, bundles, **more)
    return s.feed(GroupRequested(record))


def group(s: Script, name: str = G) -> Group:
    return s.cluster._state.groups.by_id[name]


def machines(s: Script, name: str = G) -> list[str]:
    return [each.machine.machine_id for each in group(s, name).standing()]


def free_cpus(s: Script) -> float:
    return s.cluster.resources()[1]["CPU"] / UNIT


def failure(s: Script, name: str) -> FailureRecord:
    found = s.cluster.object_outcome(oid(name))
    assert isinstance(found, FailureRecord), s.cluster.story(name)
    return found


def inside(bundle: int = -1, name: str = G) -> Wish:
    return Wish(group_id=name, bundle=bundle)


@pytest.mark.parametrize(
    ("strategy", "places"),
    [
        ("PACK", ["m-1", "m-1"]),
        ("STRICT_PACK", ["m-1", "m-1"]),
        ("SPREAD", ["m-1", "m-2"]),
        ("STRICT_SPREAD", ["m-1", "m-2"]),
    ],
)
def test_bundles_stand_as_the_strategy_says(strategy: str, places: list[str]) -> None:
    s = Script(m_1=cpus(4), m_2=cpus(4))
    create(s, cpus(2), cpus(2), strategy=strategy)
    assert group(s).state is GroupState.CREATED
    assert sorted(machines(s)) == places
    assert free_cpus(s) == 4, "what is reserved is nobody else's"
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_all_or_nothing() -> None:
    s = Script(m_1=cpus(4))
    s.submit("t-1", shape=cpus(2))
    create(s, cpus(2), cpus(2))
    assert group(s).state is GroupState.PENDING
    assert machines(s) == []
    assert free_cpus(s) == 2, "a group that does not stand holds nothing"
    assert started(s.submit("t-2", shape=cpus(2))), "and nobody waits behind it"
    s.start("t-1")
    s.succeed("t-1")
    s.start("t-2")
    s.succeed("t-2")
    s.after(0.1)
    assert group(s).state is GroupState.CREATED


def test_tasks_of_a_group_run_in_it_and_nowhere_else() -> None:
    s = Script(m_1=cpus(4), m_2=cpus(4))
    create(s, cpus(1), cpus(1), strategy="STRICT_SPREAD")
    assert started(s.submit("t-1", wishes=inside(1)))[0][2] == machines(s)[1]
    assert started(s.submit("t-2", wishes=inside(1))) == [], "the bundle is full, and the machine is not"
    assert started(s.submit("t-3", wishes=inside()))[0][2] == machines(s)[0], "-1 is any that has room"
    s.start("t-1")
    assert started(s.succeed("t-1"))[0][0] == "t-2"
    assert free_cpus(s) == 6, "what its tasks have ended with goes back to the bundle"


def test_gpus_of_a_bundle_are_its_tasks_gpus() -> None:
    s = Script(m_1=cpus(8, GPU=4 * UNIT))
    s.submit("t-0", shape=cpus(1, GPU=UNIT))
    create(s, cpus(1, GPU=2 * UNIT), cpus(1, GPU=UNIT // 2))
    starts = s.submit("t-1", shape=cpus(1, GPU=2 * UNIT), wishes=inside(0))
    assert [each.gpu_ids for each in starts if isinstance(each, c.StartAttempt)] == [(1, 2)]
    for name in ("t-2", "t-3"):
        starts = s.submit(name, shape=((GPU, UNIT // 4),), wishes=inside(1))
        assert [each.gpu_ids for each in starts if isinstance(each, c.StartAttempt)] == [(3,)]
    assert started(s.submit("t-4", shape=((GPU, UNIT // 4),), wishes=inside(1))) == []
    assert started(s.submit("t-5", shape=((GPU, UNIT // 2),))), "the other half of that GPU is free"
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_a_blocked_task_lends_its_cpus_within_the_bundle() -> None:
    s = Script(m_1=cpus(1))
    create(s, cpus(1))
    s.submit("t-1", wishes=inside())
    s.start("t-1")
    s.submit("t-2", wishes=inside())
    s.submit("t-3")
    assert started(s.feed(e.AttemptBlocked(*s.fence("t-1"))))[0][0] == "t-2", "not to t-3, which is outside"
    s.feed(e.AttemptUnblocked(*s.fence("t-1")))
    s.start("t-2")
    resumed = [each for each in s.succeed("t-2") if isinstance(each, c.ResumeAttempt)]
    assert [each.task_id for each in resumed] == ["t-1"]


def test_a_group_takes_no_cpus_that_somebody_comes_back_for() -> None:
    s = Script(m_1=cpus(2))
    s.submit("t-1", shape=cpus(2))
    s.start("t-1")
    s.feed(e.AttemptBlocked(*s.fence("t-1")))
    create(s, cpus(1))
    assert group(s).state is GroupState.PENDING
    assert started(s.submit("t-2")), "a task may: it ends"
    s.feed(e.AttemptUnblocked(*s.fence("t-1")))
    s.start("t-2")
    s.succeed("t-2")
    s.succeed("t-1")
    s.after(0.1)
    assert group(s).state is GroupState.CREATED


def test_removal_ends_its_tasks_and_gives_the_room_back() -> None:
    s = Script(m_1=cpus(2))
    create(s, cpus(1), cpus(1), name=G)
    s.submit("t-1", wishes=inside(0), max_retries=5)
    s.start("t-1")
    s.submit("t-2", wishes=inside(0))
    s.submit("t-4", dependencies=(oid("t-1"),), wishes=inside(1))
    commands = s.feed(GroupRemovalRequested(G))
    assert [(each.task_id, each.force) for each in commands if isinstance(each, c.StopAttempt)] == [("t-1", True)]
    assert [failure(s, name).kind for name in ("t-2", "t-4")] == [FailureKind.GROUP_REMOVED] * 2
    assert free_cpus(s) == 1, "the room of a process that has not ended is not free"
    s.fail("t-1", FailureRecord(FailureKind.CANCELLED, "killed"))
    assert failure(s, "t-1").kind is FailureKind.GROUP_REMOVED
    assert failure(s, "t-1").message == "task t-1 cannot go on: placement group g-1 was removed"
    assert free_cpus(s) == 2
    s.submit("t-3", wishes=inside())
    assert failure(s, "t-3").kind is FailureKind.GROUP_REMOVED
    s.submit("t-5", wishes=inside(name="g-never"))
    assert "g-never, which is not known" in failure(s, "t-5").message
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_a_group_ends_with_its_session_unless_it_is_detached() -> None:
    s = Script(m_1=cpus(4))
    s.feed(e.ClientConnected(B))
    create(s, cpus(1), client=B)
    create(s, cpus(1), client=B, name="g-2", detached=True)
    s.feed(e.ClientClosed(B))
    assert (group(s).state, group(s, "g-2").state) == (GroupState.REMOVED, GroupState.CREATED)
    assert free_cpus(s) == 3


def test_a_group_made_by_a_task_ends_with_the_client_for_whom_it_works() -> None:
    s = Script(m_1=cpus(4))
    s.submit("t-1")
    s.start("t-1")
    session = ClientId("x-1")
    s.feed(e.ClientConnected(session, X))
    create(s, cpus(1), client=session, parent=("t-1", 1))
    s.feed(e.ClientClosed(session))
    assert group(s).state is GroupState.CREATED
    s.feed(e.ClientClosed(A))
    assert group(s).state is GroupState.REMOVED


def test_bundles_of_a_lost_machine_stand_again_elsewhere() -> None:
    s = Script(m_1=cpus(2), m_2=cpus(2), m_3=cpus(2))
    create(s, cpus(2), cpus(2), strategy="STRICT_SPREAD")
    s.submit("t-1", shape=cpus(2), wishes=inside(0))
    s.submit("t-2", shape=cpus(2), wishes=inside(1))
    lost, kept = machines(s)
    commands = s.feed(e.MachineExited(MachineId(lost), "killed"))
    assert group(s).state is GroupState.CREATED
    assert group(s).attempt == 2, "one number for all its bundles"
    assert machines(s) == ["m-3", kept]
    assert started(commands) == [("t-1", 2, "m-3", 3)]
    assert s.state("t-2") == "assigned", "the others go on"
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_a_draining_machine_loses_its_bundles_and_finishes_its_tasks() -> None:
    s = Script(m_1=cpus(2))
    create(s, cpus(2))
    s.submit("t-1", shape=cpus(2), wishes=inside())
    s.start("t-1")
    s.request("m-2", cpus(2))
    s.feed(e.MachineRemovalRequested(MachineId("m-1"), force=False))
    assert group(s).state is GroupState.RESCHEDULING
    s.submit("t-2", wishes=inside())
    assert s.state("t-2") == "queued"
    s.after(0.1)
    assert started(s.register("m-2", cpus(2)) + s.after(0.1))[0][0] == "t-2"
    s.succeed("t-1")
    assert s.cluster.machine(MachineId("m-1")).state == "stopping"


def test_an_agent_that_started_anew_holds_nothing_of_before() -> None:
    s = Script(m_1=cpus(2))
    create(s, cpus(2))
    s.submit("t-1", shape=cpus(2), wishes=inside())
    s.register("m-1", cpus(2), "agent-2")
    s.after(1.0)
    assert group(s).attempt == 2
    assert s.state("t-1") == "assigned"


@pytest.mark.parametrize(
    ("bundles", "strategy", "says"),
    [
        ((cpus(8),), "PACK", "bundle 0 needs CPU 8, which no machine of this cluster can ever hold"),
        ((cpus(4), cpus(4)), "STRICT_PACK", "needs 2 bundles (CPU 4; CPU 4) on one machine"),
        ((cpus(1),) * 3, "STRICT_SPREAD", "each on a machine of its own, which this cluster can never hold"),
        ((cpus(3),) * 3, "SPREAD", "needs 3 bundles (CPU 3; CPU 3; CPU 3) at once"),
    ],
)
def test_what_can_never_stand_fails_at_once(bundles: tuple[Shape, ...], strategy: str, says: str) -> None:
    s = Script(m_1=cpus(4), m_2=cpus(4))
    create(s, *bundles, strategy=strategy)
    s.submit("t-1", shape=(), wishes=inside())
    assert failure(s, "t-1").kind is FailureKind.UNSCHEDULABLE
    assert says in failure(s, "t-1").message


def test_a_task_that_no_bundle_can_hold_says_so() -> None:
    s = Script(m_1=cpus(4))
    create(s, cpus(2), cpus(1))
    for name, shape, bundle, says in (
        ("t-1", cpus(2), 1, "in bundle 1 of placement group g-1, which has CPU 1"),
        ("t-2", cpus(3), -1, "of which no bundle can hold that: they have CPU 1; CPU 2"),
        ("t-3", cpus(1), 7, "which has the bundles 0 to 1"),
    ):
        s.submit(name, shape=shape, wishes=inside(bundle))
        assert says in failure(s, name).message


def test_a_group_that_does_not_stand_by_its_deadline_fails() -> None:
    s = Script(m_1=cpus(2))
    s.submit("t-0", shape=cpus(2))
    create(s, cpus(1), cpus(1), deadline_s=5.0)
    s.submit("t-1", wishes=inside())
    s.after(4.9)
    assert s.state("t-1") == "queued"
    s.after(0.2)
    assert "did not stand within its deadline of 5 s: there was no room for" in failure(s, "t-1").message
    assert group(s).state is GroupState.FAILED
    s.start("t-0")
    s.succeed("t-0")
    s.after(1.0)
    assert free_cpus(s) == 2


def test_a_pool_grows_for_the_bundles_that_have_no_room() -> None:
    s = Script(CoreConfig(use_leases=False))
    s.feed(e.PoolsConfigured((PoolRecord("p", cpus(2), 1, 4),), {"p": 1}, "fake"))
    s.register("m-1", cpus(2))
    s.after(1.0)
    asked = [*create(s, cpus(1), cpus(1), cpus(1), strategy="STRICT_SPREAD"), *s.after(0.1)]
    assert len([each for each in asked if isinstance(each, c.CreateMachine)]) == 2, "one has room already"
    s.after(1.0)
    for name in ("m-2", "m-3"):
        s.register(name, cpus(2))
    s.after(0.1)
    assert group(s).state is GroupState.CREATED
    assert not [each for each in s.after(40.0) if isinstance(each, c.DestroyMachine)], "what is reserved is not idle"
    s.feed(GroupRemovalRequested(G))
    s.after(31.0)
    assert s.cluster.machine_counts() == {"ready": 1, "stopping": 2}


def test_groups_outlive_the_coordinator() -> None:
    s = Script(m_1=cpus(2))
    create(s, cpus(2))
    s.submit("t-1", wishes=inside())
    s.cluster = s.replayed()
    s.feed(e.CoordinatorRestarted())
    assert group(s).state is GroupState.RESCHEDULING
    commands = s.boot("m-2", cpus(2)) + s.after(1.0)
    assert started(commands)[0][:3] == ("t-1", 2, "m-2")


def test_why_a_task_of_a_group_waits() -> None:
    s = Script(m_1=cpus(2))
    s.submit("t-0", shape=cpus(2))
    create(s, cpus(1))
    s.submit("t-1", wishes=inside())
    assert s.cluster.why_waiting("t-1") == "waits for placement group g-1, which is pending: no room for CPU 1"  # type: ignore[arg-type]
    s.start("t-0")
    s.succeed("t-0")
    s.after(0.1)
    s.submit("t-2", wishes=inside())
    assert "the bundles of placement group g-1 are in use" in s.cluster.why_waiting("t-2")  # type: ignore[arg-type]
