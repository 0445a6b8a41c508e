"""Machines: boot, generations, leases, drains, losses, restarts; and cancellation, which needs them."""

from __future__ import annotations

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core.cluster import Cluster
from runner.core.machine import TRANSITIONS, MachineState
from runner.core.values import CoreConfig, FailureKind, FailureRecord, make_shape
from runner.errors import IllegalTransitionError
from runner.ids import ClientId, ExecutorId, MachineId
from tests.unit.core.script import M1, M2, T1, A, Script, checkpoint, cpus, crash, of, oid, started


def state_of(s: Script, machine_id: MachineId = M1) -> str:
    view = s.cluster.machine(machine_id)
    return "unknown" if view is None else view.state


# ---- boot ----
def test_a_boot_from_request_to_ready() -> None:
    s = Script()
    assert s.request("m-1", cpus(1)) == [
        c.NoteMachineState(M1, "requested", 0),
        c.NoteMachineState(M1, "creating", 0),
        c.CreateMachine(M1, cpus(1), ""),
    ]
    assert s.request("m-1", cpus(1)) == []
    assert s.feed(e.MachineCreated(M1, "pid-7")) == [c.NoteMachineState(M1, "booting", 0)]
    assert s.feed(e.MachineCreated(M1, "pid-7")) == []
    assert s.register("m-1", cpus(2)) == [c.NoteMachineState(M1, "ready", 1)]
    view = s.cluster.machine(M1)
    assert view is not None
    assert (view.total, view.provider_machine_id, view.generation) == (cpus(2), "pid-7", 1)


def test_an_agent_may_be_faster_than_its_provider() -> None:
    s = Script(m_1=cpus(1))
    assert s.feed(e.MachineCreated(M1, "pid-7")) == []
    assert state_of(s) == "ready"


def test_the_same_agent_keeps_its_generation_and_a_new_one_does_not() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    assert s.register("m-1", cpus(1)) == []
    old = s.fence("t-1")
    commands = s.register("m-1", cpus(1), "agent-2")
    assert of(c.FenceAgent, commands) == [c.FenceAgent(M1, 1, "its agent started anew")]
    assert s.cluster.generation_of(M1) == 2
    assert not s.cluster.is_current(*old)
    assert started(commands) == [("t-1", 2, "m-1", 2)]
    assert s.cluster.is_machine_live(M1, 2)
    assert not s.cluster.is_machine_live(M1, 1)


def test_strangers_and_the_dead_are_fenced() -> None:
    s = Script(m_1=cpus(1))
    s.feed(e.MachineExited(M1, "killed"))
    assert s.register("m-1", cpus(1)) == [c.FenceAgent(M1, 1, "this machine is destroying")]
    assert s.register("m-9", cpus(1)) == [c.FenceAgent(MachineId("m-9"), 0, "no such machine")]
    assert s.feed(e.MachineHeard(M1, 1)) == [c.FenceAgent(M1, 1, "this generation is over")]
    assert s.feed(e.MachineHeard(MachineId("m-9"), 1))


@pytest.mark.parametrize("register_first", [True, False])
def test_a_boot_has_a_deadline(register_first: bool) -> None:
    s = Script(CoreConfig(boot_deadline_s=5.0, use_leases=False))
    s.request("m-1", cpus(1))
    if register_first:
        s.register("m-1", cpus(1))
    commands = s.after(5.0)
    reason = "its agent did not register within 5 s"
    failed = [c.NoteMachineState(M1, "boot_failed", 0, reason), c.DestroyMachine(M1, reason)]
    assert commands == ([] if register_first else failed)


def test_a_boot_can_fail_in_every_way() -> None:
    s = Script()
    kinds: list[type[e.MachineBootFailed] | type[e.MachineExited]] = [e.MachineBootFailed, e.MachineExited]
    for i, event in enumerate(kinds):
        machine_id = MachineId(f"m-{i}")
        s.request(machine_id, cpus(1))
        assert c.DestroyMachine(machine_id, "no capacity") in s.feed(event(machine_id, "no capacity"))
        assert s.feed(event(machine_id, "again")) == []
        # The provider answers late: what it made must go.
        assert s.feed(e.MachineCreated(machine_id, "late")) == [c.DestroyMachine(machine_id, "no capacity")]
        s.feed(e.MachineDestroyed(machine_id))
        assert state_of(s, machine_id) == "destroyed"
    s.request("m-5", cpus(1))
    s.feed(e.MachineDestroyed(MachineId("m-5")))
    assert state_of(s, MachineId("m-5")) == "destroyed"
    s.request("m-6", cpus(1))
    assert of(c.DestroyMachine, s.feed(e.MachineRemovalRequested(MachineId("m-6"), False)))
    assert state_of(s, MachineId("m-6")) == "stopping"


def test_events_about_unknown_machines_change_nothing() -> None:
    s = Script()
    for event in (
        e.MachineCreated(M1, "pid"),
        e.MachineBootFailed(M1, "no"),
        e.MachineExited(M1, "no"),
        e.MachineRemovalRequested(M1, True),
        e.MachineDestroyed(M1),
    ):
        assert s.feed(event) == []


# ---- leases ----
def test_a_silent_machine_is_lost_a_little_after_its_agent_gave_up() -> None:
    s = Script(CoreConfig(lost_after_s=10.0), m_1=cpus(1))
    s.submit("t-1")
    s.now_s = 5.0
    s.feed(e.MachineHeard(M1, 1))
    s.now_s = 16.0
    assert s.feed(e.ClockAdvanced()) == []
    wakeup_s = s.cluster.next_wakeup_s()
    assert wakeup_s == pytest.approx(16.1)
    commands = s.after(0.2)
    reason = "no heartbeat for 11.2 s, limit 11.1 s"
    assert c.FenceAgent(M1, 1, reason) in commands
    assert c.DestroyMachine(M1, reason) in commands
    assert state_of(s) == "destroying"


def test_an_attempt_on_a_lost_machine_is_charged_and_moves() -> None:
    s = Script(m_1=cpus(1), m_2=cpus(1))
    s.submit("t-1", max_retries=1, subscribe=True)
    assert started(s.feed(e.MachineExited(M1, "killed")))[0][2] == "m-2"
    s.boot("m-3", cpus(1))
    [ready] = of(c.NotifyReady, s.feed(e.MachineExited(M2, "killed")))
    assert ready.failure.kind is FailureKind.MACHINE_LOST
    assert ready.failure.history == (
        "attempt 1 on m-1: machine m-1 was lost (killed)",
        "attempt 2 on m-2: machine m-2 was lost (killed)",
    )


def test_a_stall_of_the_coordinator_extends_leases() -> None:
    s = Script(CoreConfig(lost_after_s=10.0, client_lost_after_s=10.0), m_1=cpus(1))
    s.feed(e.ClientConnected(ClientId("c-b")))
    s.feed(e.ClientDisconnected(A))
    s.now_s = 30.0
    assert s.feed(e.LoopStalled(25.0)) == []
    assert s.feed(e.ClockAdvanced()) == []
    assert state_of(s) == "ready"
    assert s.cluster.has_client(A)


def test_without_leases_silence_means_nothing() -> None:
    s = Script(CoreConfig(use_leases=False), m_1=cpus(1))
    assert s.after(1e6) == []


def test_a_lease_of_an_older_generation_does_not_fire() -> None:
    s = Script(CoreConfig(lost_after_s=10.0), m_1=cpus(1))
    s.now_s = 8.0
    s.register("m-1", cpus(1), "agent-2")
    s.now_s = 12.0
    assert s.feed(e.ClockAdvanced()) == []
    assert len(s.cluster._state.timers) == 2  # the lease, and the deadline of the boot


# ---- drains ----
def test_a_drained_machine_finishes_gets_nothing_new_and_stops() -> None:
    s = Script(m_1=cpus(2))
    s.submit("t-1")
    s.feed(e.MachineRemovalRequested(M1, False))
    assert state_of(s) == "draining"
    s.request("m-2", cpus(1))
    assert not started(s.submit("t-2"))
    assert s.feed(e.MachineRemovalRequested(M1, False)) == []
    commands = s.succeed("t-1")
    assert c.FenceAgent(M1, 1, "drained") in commands
    assert c.DestroyMachine(M1, "drained") in commands
    assert s.feed(e.MachineExited(M1, "exit 0")) == []
    assert s.feed(e.MachineDestroyed(M1)) == [c.NoteMachineState(M1, "destroyed", 1)]
    assert s.feed(e.MachineDestroyed(M1)) == []


def test_an_idle_machine_is_removed_at_once() -> None:
    s = Script(m_1=cpus(1))
    assert of(c.DestroyMachine, s.feed(e.MachineRemovalRequested(M1, False)))


def test_a_forced_removal_moves_attempts_free_of_charge() -> None:
    s = Script(m_1=cpus(2), m_2=cpus(1))
    s.submit("t-0")
    s.submit("t-1", max_retries=0)
    assert s.fence("t-1")[0] == M2
    s.succeed("t-0")
    assert started(s.feed(e.MachineRemovalRequested(M2, True))) == [("t-1", 2, "m-1", 3)]
    s.cancel("t-1")
    s.feed(e.MachineRemovalRequested(M1, True))
    assert s.state("t-1") == "cancelled"


def test_a_machine_that_the_provider_destroyed_is_lost() -> None:
    s = Script(m_1=cpus(1), m_2=cpus(1))
    s.submit("t-1")
    assert started(s.feed(e.MachineDestroyed(M1)))[0][2] == "m-2"
    assert state_of(s) == "destroyed"


# ---- cancellation ----
def test_queued_tasks_are_cancelled_at_once_and_running_ones_when_they_have_stopped() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", subscribe=True)
    s.submit("t-2", subscribe=True)
    [note, ready] = s.cancel("t-2")
    assert isinstance(note, c.NoteTaskState)
    assert ready.failure.kind is FailureKind.CANCELLED
    assert s.cancel("t-2") == []
    assert s.cancel("t-none") == []
    assert s.cancel("t-1", recursive=False) == [c.StopAttempt(M1, 1, T1, 1, "cancelled")]
    assert s.cancel("t-1", recursive=False) == []
    assert s.cancel("t-1", force=True, recursive=False) == [c.StopAttempt(M1, 1, T1, 1, "cancelled", True)]
    assert s.cancel("t-1", recursive=True) == [c.StopAttempt(M1, 1, T1, 1, "cancelled")]
    assert "cancellation requested" in s.cluster.story("t-1")
    [ready] = of(c.NotifyReady, s.fail("t-1", crash()))
    assert ready.failure.kind is FailureKind.KILLED  # it was forced in the end
    assert s.state("t-1") == "cancelled"


def test_only_what_ran_and_was_forced_was_killed() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", subscribe=True)
    s.submit("t-2", subscribe=True)
    [_, ready] = s.cancel("t-2", force=True)
    assert ready.failure.kind is FailureKind.CANCELLED
    s.cancel("t-1", force=True)
    [ready] = of(c.NotifyReady, s.fail("t-1", FailureRecord(FailureKind.CANCELLED, "t-1 on m-1 was cancelled")))
    assert (ready.failure.kind, ready.failure.message) == (FailureKind.KILLED, "t-1 on m-1 was cancelled")
    s.submit("t-3", subscribe=True)
    s.cancel("t-3")
    [ready] = of(c.NotifyReady, s.fail("t-3", crash()))
    assert ready.failure.kind is FailureKind.CANCELLED


def test_a_cancelled_task_whose_machine_is_lost_or_which_is_returned_is_cancelled() -> None:
    s = Script(m_1=cpus(1), m_2=cpus(1))
    s.submit("t-1")
    s.submit("t-2")
    s.cancel("t-1")
    s.cancel("t-2")
    s.feed(e.MachineExited(M1, "killed"))
    s.feed(e.AttemptReturned(*s.fence("t-2")))
    assert (s.state("t-1"), s.state("t-2")) == ("cancelled", "cancelled")


def test_a_result_that_overtakes_the_cancellation_counts() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    s.cancel("t-1")
    s.succeed("t-1")
    assert s.state("t-1") == "succeeded"


def test_an_agent_that_reports_cancelled_ends_the_task() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", subscribe=True)
    failure = crash()._replace(kind=FailureKind.CANCELLED, payload=b"as reported")
    [ready] = of(c.NotifyReady, s.fail("t-1", failure))
    assert ready.failure.payload == b"as reported"
    assert s.state("t-1") == "cancelled"


# ---- restarts ----
def test_after_a_restart_work_goes_on_without_charge_on_a_new_fleet() -> None:
    s = Script(m_1=cpus(1), m_2=cpus(1))
    session = ClientId("x-1")
    s.feed(e.ClientConnected(session, ExecutorId("x-1")))
    s.submit("t-1", max_retries=0, is_run=True)
    s.feed(e.CheckpointSaved(*s.fence("t-1"), checkpoint(4)))
    s.submit("t-2")
    s.cancel("t-2")
    s.submit("t-3", client=session)
    s.feed(e.MachineExited(M2, "killed"))
    s.cluster = s.replayed()
    commands = s.feed(e.CoordinatorRestarted())
    assert of(c.DestroyMachine, commands) == [
        c.DestroyMachine(M1, "the coordinator restarted"),
        c.DestroyMachine(M2, "killed"),
    ]
    assert [s.state(t) for t in ("t-1", "t-2", "t-3")] == ["queued", "cancelled", "forgotten"]
    assert not s.cluster.has_client(session)
    [start] = of(c.StartAttempt, s.boot("m-3", cpus(1)))
    assert (start.task_id, start.attempt, start.checkpoint) == (T1, 2, checkpoint(4))
    s.feed(e.MachineDestroyed(M1))
    again = s.feed(e.CoordinatorRestarted())
    assert [command.machine_id for command in of(c.DestroyMachine, again)] == ["m-2", "m-3"]
    s.after(1000.0)
    assert not s.cluster.has_client(A)


def test_a_forgotten_task_leaves_no_checkpoint() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    s.feed(e.CheckpointSaved(*s.fence("t-1"), checkpoint(1)))
    s.succeed("t-1")
    assert s.release(oid("t-1")) == [c.DropCheckpoint(T1, checkpoint(1)), c.ForgetTask(T1)]


# ---- the table ----
def test_every_state_of_a_machine_can_end() -> None:
    for state in MachineState:
        seen, todo = {state}, [state]
        while todo:
            for to in TRANSITIONS[todo.pop()] - seen:
                seen.add(to)
                todo.append(to)
        assert MachineState.DESTROYED in seen


def test_an_illegal_move_of_a_machine_carries_its_story() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    machine = s.cluster._state.machines[M1]
    story = r"requested -> creating -> booting -> ready\nruns t-1 attempt 1"
    with pytest.raises(IllegalTransitionError, match=rf"ready -> creating\n.*{story}"):
        machine.move(MachineState.CREATING, "")
    assert make_shape({}) == ()


def test_of_machines_that_are_gone_the_newest_are_remembered() -> None:
    s = Script(CoreConfig(destroyed_kept=2))
    for number in range(5):
        s.boot(f"m-{number}", cpus(1))
        s.feed(e.MachineExited(MachineId(f"m-{number}"), "killed"))
        s.feed(e.MachineDestroyed(MachineId(f"m-{number}")))
    s.boot("m-5", cpus(1))
    first, token = s.cluster.machines(limit=2)
    rest, _ = s.cluster.machines(after=token)
    assert [view.machine_id for view in [*first, *rest]] == ["m-3", "m-4", "m-5"]
    s.now_s += 1000.0  # timers of the forgotten ones
    s.feed(e.MachineHeard(MachineId("m-5"), 1))
    s.feed(e.ClockAdvanced())
    assert s.cluster.machine_counts()["ready"] == 1
    again = Cluster(s.config)
    again.replay(s.facts)
    assert again.snapshot() == s.cluster.snapshot()
