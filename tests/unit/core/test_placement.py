"""Which machine and which slot: resources, GPUs, turns, chaining, blocking, feasibility."""

from __future__ import annotations

from runner.core import commands as c
from runner.core import events as e
from runner.core.resources import Resources, describe, missing
from runner.core.values import CPU, GPU, MEMORY, UNIT, CoreConfig, FailureKind, TaskRecord, make_shape
from runner.ids import TaskId
from tests.unit.core.script import M1, M2, T1, A, B, F, Script, cpus, crash, of, oid, started

HALF_GPU = make_shape({CPU: UNIT, GPU: UNIT // 2})
QUICK_S = 0.001


def learn(s: Script, duration_s: float = QUICK_S) -> None:
    """Let the core know how long F takes."""
    s.submit("t-learn")
    s.succeed("t-learn", duration_s=duration_s)
    s.release(oid("t-learn"))


# ---- machines ----
def test_the_least_loaded_machine_gets_the_task() -> None:
    s = Script(m_1=cpus(2), m_2=cpus(4))
    placed = [started(s.submit(f"t-{i}"))[0][2] for i in range(6)]
    assert placed == ["m-1", "m-2", "m-2", "m-1", "m-2", "m-2"]
    assert started(s.submit("t-6")) == []
    assert s.cluster.why_waiting(TaskId("t-6")).startswith("needs CPU 1; all 2 machines that can hold it are busy")


def test_tasks_without_gpu_avoid_gpu_machines() -> None:
    s = Script(m_1=cpus(4, GPU=UNIT), m_2=cpus(2))
    assert [started(s.submit(f"t-{i}"))[0][2] for i in range(3)] == ["m-2", "m-2", "m-1"]


def test_gpu_ids_are_whole_or_shared_tightly() -> None:
    s = Script(m_1=cpus(8, GPU=4 * UNIT))
    gpus = [of(c.StartAttempt, s.submit(f"t-{i}", shape=HALF_GPU))[0].gpu_ids for i in range(3)]
    assert gpus == [(0,), (0,), (1,)]
    assert of(c.StartAttempt, s.submit("t-3", shape=make_shape({GPU: 2 * UNIT})))[0].gpu_ids == (2, 3)
    # 0.5 + nothing whole is left: one whole GPU does not fit, another half does.
    assert not started(s.submit("t-4", shape=make_shape({GPU: UNIT})))
    assert of(c.StartAttempt, s.submit("t-5", shape=HALF_GPU))[0].gpu_ids == (1,)
    s.succeed("t-0")
    assert of(c.StartAttempt, s.succeed("t-1"))[0].gpu_ids == (0,)


def test_memory_and_custom_resources_bound_placement_too() -> None:
    s = Script(m_1=make_shape({CPU: 8 * UNIT, MEMORY: 100, "disk": UNIT}))
    assert started(s.submit("t-1", shape=make_shape({MEMORY: 60})))
    assert not started(s.submit("t-2", shape=make_shape({MEMORY: 60})))
    assert started(s.submit("t-3", shape=make_shape({"disk": UNIT})))
    assert not started(s.submit("t-4", shape=make_shape({"disk": 1})))
    assert s.cluster.resources() == (
        {CPU: 8 * UNIT, MEMORY: 100, "disk": UNIT},
        {CPU: 8 * UNIT, MEMORY: 40, "disk": 0},
    )


def test_resources_in_words() -> None:
    assert describe(make_shape({})) == "nothing"
    assert describe(make_shape({CPU: UNIT // 2, MEMORY: 3 << 29})) == "CPU 0.5, memory 1.5 GiB"
    assert missing(make_shape({GPU: 3 * UNIT // 2}), {GPU: 4 * UNIT}) == [
        "GPU 1.5 (more than one GPU must be a whole number)"
    ]
    empty = Resources(make_shape({}))
    assert empty.load(make_shape({})) == 1.0
    assert empty.pick_gpus(0) == ()


def test_many_shapes_do_not_pile_up() -> None:
    s = Script(m_1=make_shape({CPU: UNIT, MEMORY: 10_000}))
    for i in range(1, 80):
        assert started(s.submit(f"t-{i}", shape=make_shape({CPU: UNIT, MEMORY: i})))
        s.succeed(f"t-{i}")
    assert len(s.cluster._scheduler._machines._heaps) <= 32
    for i in range(2000):
        s.cluster.handle(e.RefsReleased(A, (oid(f"t-{i}"),)), 0.0)
        s.submit(f"u-{i}")
        s.succeed(f"u-{i}", duration_s=QUICK_S)
        s.release(oid(f"u-{i}"))
    assert all(len(heap) <= 66 for heap in s.cluster._scheduler._machines._heaps.values())
    assert all(len(heap) <= 65 for heap in s.cluster._scheduler._slots._heaps.values())


# ---- turns ----
def test_clients_take_turns_and_priority_goes_first() -> None:
    s = Script(m_1=cpus(1))
    s.feed(e.ClientConnected(B))
    s.submit("t-0")
    for i in range(3):
        s.submit(f"a-{i}")
    for i in range(2):
        s.submit(f"b-{i}", client=B)
    s.submit("a-urgent", priority=1)
    order = ["t-0"]
    for _ in range(6):
        order.append(started(s.succeed(order[-1]))[0][0])
    assert order == ["t-0", "a-urgent", "a-0", "b-0", "a-1", "b-1", "a-2"]


def test_clients_take_turns_over_shapes_too() -> None:
    s = Script(m_1=cpus(2))
    s.feed(e.ClientConnected(B))
    s.submit("t-0", shape=cpus(2))
    s.submit("a-0", shape=cpus(2))
    s.submit("a-1", shape=cpus(2))
    s.submit("b-0", client=B, shape=cpus(1.5))
    assert started(s.succeed("t-0"))[0][0] == "b-0"
    assert started(s.succeed("b-0"))[0][0] == "a-0"


def test_a_shape_that_does_not_fit_does_not_hold_up_another() -> None:
    s = Script(m_1=cpus(2))
    s.submit("t-0")
    s.submit("t-1")
    s.submit("big", shape=cpus(2))
    s.submit("t-2")
    s.submit("t-3")
    assert started(s.succeed("t-0"))[0][0] == "t-2"
    assert s.state("big") == "queued"


def test_a_journal_may_have_taken_another_than_the_head() -> None:
    s = Script()
    for i in range(3):
        s.submit(f"t-{i}")
    queues = s.cluster._state.queues
    for name, left in (("t-1", ["t-0", "t-2"]), ("t-0", ["t-2"]), ("t-2", [])):
        queues.take(s.cluster._state.tasks[TaskId(name)])
        assert [task.task_id for queue in queues.by_key.values() for task in queue.tasks()] == left


def test_cancelled_entries_are_skipped() -> None:
    s = Script(m_1=cpus(1))
    for i in range(4):
        s.submit(f"t-{i}")
    s.cancel("t-1")
    s.cancel("t-2")
    assert started(s.succeed("t-0"))[0][0] == "t-3"


# ---- chaining ----
def test_short_tasks_are_chained_when_nothing_is_free() -> None:
    s = Script(m_1=cpus(1))
    learn(s)
    assert started(s.submit("t-1")) == [("t-1", 1, "m-1", 2)]
    assert started(s.submit("t-2")) == [("t-2", 1, "m-1", 2)]
    assert s.cluster.why_waiting(TaskId("t-2")) == "next on m-1 after task t-1"
    assert s.cluster.why_waiting(T1) == "sent to m-1, which has not started it yet"
    s.succeed("t-1", duration_s=QUICK_S)
    s.succeed("t-2", duration_s=QUICK_S)
    assert s.cluster.resources()[1] == {CPU: UNIT}


def test_chains_end_at_the_depth_and_at_the_expected_wait() -> None:
    s = Script(CoreConfig(chain_depth_max=2), m_1=cpus(1))
    learn(s)
    placed = [bool(started(s.submit(f"t-{i}"))) for i in range(5)]
    assert placed == [True, True, True, False, False]
    slow = Script(CoreConfig(chain_target_s=0.02), m_1=cpus(1))
    learn(slow, 0.008)
    placed = [bool(started(slow.submit(f"t-{i}"))) for i in range(4)]
    assert placed == [True, True, False, False]


def test_chains_are_of_equal_shapes_wherever_they_were_made() -> None:
    s = Script(CoreConfig(chain_depth_max=1), m_1=cpus(1))
    learn(s)
    placed = [bool(started(s.submit(f"t-{i}", shape=cpus(1)))) for i in range(4)]
    assert placed == [True, True, False, False]
    assert started(s.succeed("t-0", duration_s=QUICK_S))
    assert started(s.succeed("t-1", duration_s=QUICK_S))


def test_nothing_waits_behind_a_task_of_unknown_length() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    assert not started(s.submit("t-2"))


def test_tasks_with_gpu_or_memory_are_never_chained() -> None:
    s = Script(m_1=make_shape({CPU: UNIT, MEMORY: 10}))
    learn(s)
    shape = make_shape({CPU: UNIT, MEMORY: 10})
    assert started(s.submit("t-1", shape=shape))
    assert not started(s.submit("t-2", shape=shape))


def test_a_slot_that_gave_an_attempt_back_gets_no_more_until_its_head_ends() -> None:
    s = Script(m_1=cpus(1))
    learn(s)
    s.submit("t-1")
    s.submit("t-2")
    assert started(s.feed(e.AttemptReturned(*s.fence("t-2")))) == []
    assert s.state("t-2") == "queued"
    assert started(s.succeed("t-1", duration_s=QUICK_S)) == [("t-2", 2, "m-1", 3)]


def test_the_shortest_slot_is_chained_to() -> None:
    s = Script(m_1=cpus(2))
    learn(s)
    slots = [started(s.submit(f"t-{i}"))[0][3] for i in range(6)]
    assert slots == [2, 3, 2, 3, 2, 3]


# ---- blocking ----
def test_a_blocked_attempt_lends_its_cpus_and_takes_them_back_before_queued_work() -> None:
    s = Script(m_1=cpus(1, GPU=UNIT))
    s.submit("t-1", shape=cpus(1, GPU=UNIT))
    s.start("t-1")
    s.submit("t-2")
    s.submit("t-3")
    assert started(s.feed(e.AttemptBlocked(*s.fence("t-1"))))[0][0] == "t-2"
    assert s.cluster.resources()[1] == {CPU: 0, GPU: 0}
    assert s.feed(e.AttemptBlocked(*s.fence("t-1"))) == []
    assert s.feed(e.AttemptUnblocked(*s.fence("t-1"))) == []
    assert s.feed(e.AttemptUnblocked(*s.fence("t-1"))) == []
    assert s.succeed("t-2") == [c.ResumeAttempt(M1, 1, T1, 1)]
    assert s.state("t-3") == "queued"
    assert started(s.succeed("t-1"))[0][0] == "t-3"


def test_an_unblocked_attempt_goes_on_at_once_when_its_cpus_are_free() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    fence = s.fence("t-1")
    s.feed(e.AttemptBlocked(*fence))
    assert s.state("t-1") == "running"
    assert s.feed(e.AttemptUnblocked(*fence)) == [c.ResumeAttempt(M1, 1, T1, 1)]
    # A repeat, or one whose block never came: it must not wait for ever.
    assert s.feed(e.AttemptUnblocked(*fence)) == [c.ResumeAttempt(M1, 1, T1, 1)]


def test_those_unblocked_go_on_in_order_and_one_that_ends_makes_way() -> None:
    s = Script(m_1=cpus(2))
    for name in ("t-1", "t-2"):
        s.submit(name, shape=cpus(2))
        s.feed(e.AttemptBlocked(*s.fence(name)))
    s.submit("t-3", shape=cpus(2))
    for name in ("t-1", "t-2"):
        s.feed(e.AttemptUnblocked(*s.fence(name)))
    assert s.fail("t-1", crash())[-1] != c.ResumeAttempt(*s.fence("t-2"))
    assert s.succeed("t-3")[0] == c.ResumeAttempt(*s.fence("t-2"))


def test_what_is_chained_behind_a_blocked_attempt_goes_elsewhere() -> None:
    s = Script(m_1=cpus(1))
    learn(s)
    for name in ("t-1", "t-2", "t-3"):
        s.submit(name)
    s.cancel("t-3")
    stale = s.fence("t-2")
    commands = s.feed(e.AttemptBlocked(*s.fence("t-1")))
    assert c.StopAttempt(*stale, "fenced") in commands
    assert started(commands) == [("t-2", 2, "m-1", 3)]
    assert s.state("t-3") == "cancelled"
    assert s.feed(e.AttemptReturned(*stale)) == []


def test_only_the_head_of_a_slot_can_block() -> None:
    s = Script(m_1=cpus(1))
    learn(s)
    s.submit("t-1")
    s.submit("t-2")
    assert s.feed(e.AttemptBlocked(*s.fence("t-2"))) == []


def test_nothing_is_chained_where_an_attempt_waits_to_go_on() -> None:
    s = Script(m_1=cpus(1))
    learn(s)
    s.submit("t-1")
    s.feed(e.AttemptBlocked(*s.fence("t-1")))
    s.submit("t-2")
    s.feed(e.AttemptUnblocked(*s.fence("t-1")))
    assert not started(s.submit("t-3"))
    assert s.succeed("t-2", duration_s=QUICK_S)[0] == c.ResumeAttempt(*s.fence("t-1"))


# ---- feasibility ----
def test_what_no_machine_can_ever_hold_fails_at_once_and_says_why() -> None:
    s = Script(m_1=cpus(4))
    s.request("m-2", cpus(8))
    [ready] = of(c.NotifyReady, s.submit("t-1", shape=cpus(2, GPU=UNIT), subscribe=True))
    assert ready.failure.kind is FailureKind.UNSCHEDULABLE
    assert "missing: GPU 1 (has GPU 0); the cluster has 1 x (CPU 4); 1 x (CPU 8)" in ready.failure.message
    s.submit("t-2", shape=cpus(8))
    assert s.cluster.why_waiting(TaskId("t-2")) == "needs CPU 8; 1 machines that can hold it are booting"


def test_tasks_fail_when_the_last_machine_that_could_hold_them_is_gone() -> None:
    s = Script(m_1=cpus(1), m_2=cpus(4))
    s.submit("t-1", shape=cpus(4))
    s.submit("t-2", shape=cpus(4))
    s.submit("t-3", shape=cpus(4), dependencies=(oid("t-2"),))
    s.feed(e.MachineExited(M2, "killed"))
    assert [s.state(name) for name in ("t-1", "t-2", "t-3")] == ["failed"] * 3
    s.feed(e.MachineExited(M1, "killed"))
    [ready] = of(c.NotifyReady, s.submit("t-4", subscribe=True))
    assert "it has no machines left" in ready.failure.message


def test_before_the_first_machine_is_requested_tasks_wait() -> None:
    s = Script()
    s.submit("t-1")
    assert s.cluster.why_waiting(T1) == "needs CPU 1; no machine that can hold it has been requested yet"
    s.feed(e.PoolsConfigured((), {}, "fake"))
    assert s.state("t-1") == "failed"


def test_verdicts_do_not_pile_up() -> None:
    s = Script(m_1=cpus(1))
    for i in range(1100):
        record = TaskRecord(TaskId(f"t-{i}"), A, F, b"", make_shape({MEMORY: i + 1}))
        s.cluster.handle(e.TaskSubmitted(A, record, False), 0.0)
    assert len(s.cluster._state.verdicts) <= 1024
