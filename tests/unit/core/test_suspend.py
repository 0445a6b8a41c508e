"""Suspend and resume, step by step: what is journalled before what is asked, who may come back, and what follows from doubts."""

from __future__ import annotations

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core import suspend_events as se
from runner.core import suspend_facts as f
from runner.core.values import ActorRecord, CoreConfig
from runner.ids import TaskId
from tests.unit.core.script import M1, VALUE, A, B, cpus, held_by, of, oid, started
from tests.unit.core.sleeper import Sleeper, sent


def test_to_sleep_and_back() -> None:
    s = Sleeper()
    assert sent(s.ask()) == ["quiet"]
    assert s.where == "suspending/quieting"
    assert sent(s.say(se.AgentIsQuiet)) == ["prepare"]
    assert of(c.SuspendMachine, s.say(se.AgentPrepared)) == [c.SuspendMachine(M1, 1)]
    assert not s.cluster.is_machine_live(M1, 1), "who has hung up does not speak"
    s.feed(se.MachineSuspended(M1, 1))
    assert s.where == "suspended/saved"
    s.now_s += 100.0
    facts = len(s.facts)
    assert of(c.ResumeMachine, s.feed(se.ResumeRequested(M1))) == [c.ResumeMachine(M1, 1)]
    assert s.facts[facts] == f.SnapshotUsed(M1, "asked for", 100.0), (
        "journalled with the command, which follows the commit"
    )
    s.come_back()
    assert s.where == "resuming/waking"
    assert s.cluster.wake_of(M1) == ("resumed", 1, 100.0)
    assert s.cluster.is_machine_live(M1, 2)
    assert not s.cluster.is_machine_live(M1, 1)
    s.submit("t-1")
    assert s.state("t-1") == "queued", "nothing starts before the hooks have run"
    assert started(s.say(se.AgentAwoke)) == [("t-1", 1, "m-1", 1)]
    assert s.where == "ready"
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_what_runs_is_waited_for_and_nothing_new_comes() -> None:
    s = Sleeper()
    s.submit("t-1")
    s.start("t-1")
    s.ask()
    s.submit("t-2")
    assert s.state("t-2") == "queued"
    s.succeed("t-1")
    assert s.state("t-2") == "queued"
    assert s.where == "suspending/quieting", "the agent says when nothing runs, not the core"


def test_interrupting_is_the_agents_and_costs_no_retry() -> None:
    s = Sleeper()
    s.submit("t-1", max_retries=0)
    s.start("t-1")
    assert of(c.SuspendAgent, s.ask(interrupts=True)) == [c.SuspendAgent(M1, 1, 1, "quiet", True)]
    s.feed(e.AttemptReturned(*s.fence("t-1")))
    assert s.state("t-1") == "queued"


def test_values_that_only_it_has_are_brought_away_first() -> None:
    s = Sleeper()
    s.submit("t-1")
    s.start("t-1")
    s.succeed("t-1", held_by("m-1", "a"))
    s.ask()
    commands = s.say(se.AgentIsQuiet)
    assert of(c.BringObjects, commands) == [c.BringObjects(M1, 1, (oid("t-1"),))]
    assert sent(commands) == []
    assert s.where == "suspending/emptying"
    assert sent(s.feed(e.ObjectBrought(oid("t-1"), "/dev/shm/a", VALUE))) == ["prepare"]


def test_a_value_that_cannot_be_brought_away_calls_it_off() -> None:
    s = Sleeper()
    s.submit("t-1")
    s.start("t-1")
    s.succeed("t-1", held_by("m-1", "a"))
    s.ask()
    s.say(se.AgentIsQuiet)
    assert sent(s.feed(e.ObjectBrought(oid("t-1"), "/dev/shm/a", None, "disk full"))) == ["call off"]
    assert s.where == "ready"
    assert "disk full" in s.machine.reason
    assert s.cluster.object_state(oid("t-1")) == "ready"


def test_values_that_hooks_have_made_are_not_put_to_sleep() -> None:
    s = Sleeper()
    s.ask()
    s.say(se.AgentIsQuiet)
    s.feed(e.ObjectPut(A, oid("p-1"), held_by("m-1", "b")))
    assert not of(c.SuspendMachine, s.say(se.AgentPrepared))
    assert s.where == "suspending/called_off"
    s.come_back()
    assert s.cluster.wake_of(M1) == ("cancelled", 1, 0.0)
    s.say(se.AgentAwoke)
    assert s.where == "ready"


def test_a_refusal_is_told_and_the_machine_goes_on() -> None:
    s = Sleeper()
    s.ask()
    s.say(se.AgentIsQuiet)
    assert sent(s.say(se.AgentRefused, reason="hook h raised")) == []
    assert s.where == "ready"
    assert "hook h raised" in s.machine.reason


def test_wanted_again_before_it_slept() -> None:
    s = Sleeper()
    s.ask()
    assert sent(s.feed(se.ResumeRequested(M1))) == ["call off"]
    assert s.where == "ready"
    s.prepare()
    s.feed(se.ResumeRequested(M1))
    assert s.where == "suspending/saving", "the provider is not interrupted"
    assert of(c.ResumeMachine, s.feed(se.MachineSuspended(M1, 2))) == [c.ResumeMachine(M1, 2)]


def test_wanted_while_its_hooks_run() -> None:
    s = Sleeper()
    s.ask()
    s.say(se.AgentIsQuiet)
    s.feed(se.ResumeRequested(M1))
    assert not of(c.SuspendMachine, s.say(se.AgentPrepared))
    assert s.where == "suspending/called_off"


def test_a_provider_that_fails_to_suspend() -> None:
    s = Sleeper()
    s.prepare()
    assert s.cluster.must_ask_again(M1)
    s.come_back()
    assert s.where == "suspending/saving", "it is too early to say"
    s.feed(se.MachineSuspendFailed(M1, 1, "no disk"))
    assert not s.cluster.must_ask_again(M1)
    s.come_back()
    assert s.cluster.is_admitted(M1, "agent-1/key-2")
    assert s.cluster.generation_of(M1) == 2
    s.say(se.AgentAwoke)
    assert s.where == "ready"


def test_nobody_comes_back_out_of_turn() -> None:
    s = Sleeper()
    s.put_to_sleep()
    s.feed(se.ResumeRequested(M1))
    s.come_back(snapshot=7)
    assert s.where == "resuming/starting"
    assert not s.cluster.is_admitted(M1, "agent-1/key-2")
    s.come_back()
    s.say(se.AgentAwoke)
    before = s.cluster.snapshot()
    s.come_back(snapshot=1, instance="agent-1/key-3")
    assert s.cluster.snapshot() == before
    assert not s.cluster.is_admitted(M1, "agent-1/key-3")
    assert s.cluster.is_admitted(M1, "agent-1/key-2")


def test_a_machine_that_nobody_resumed_is_given_up() -> None:
    s = Sleeper()
    s.put_to_sleep()
    assert of(c.DestroyMachine, s.come_back())
    assert s.where == "destroying"


def test_reports_of_the_old_generation_change_nothing() -> None:
    s = Sleeper()
    s.put_to_sleep()
    for event in (
        se.AgentIsQuiet(M1, 1, 1),
        se.AgentPrepared(M1, 1, 1),
        se.AgentRefused(M1, 1, 1, "no"),
        se.AgentAwoke(M1, 1, 1),
    ):
        before = s.cluster.snapshot()
        assert s.feed(event) == []
        assert s.cluster.snapshot() == before


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (se.MachineResumeFailed(M1, 1, "truncated"), "truncated"),
        (e.MachineExited(M1, "qemu ended"), "qemu ended"),
        (None, "the provider did not start it within 330 s"),
    ],
)
def test_a_resume_that_fails_is_a_cold_start(event: e.Event | None, why: str) -> None:
    s = Sleeper()
    s.put_to_sleep()
    s.feed(se.ResumeRequested(M1))
    commands = s.after(330.0) if event is None else s.feed(event)
    [cold] = of(c.ColdStartMachine, commands)
    assert why in cold.reason
    assert s.where == "booting"
    s.come_back()
    assert s.where == "booting", "the old memory comes too late"
    s.register("m-1", cpus(1), "agent-2")
    assert s.where == "ready"
    assert s.cluster.wake_of(M1) == ("cold", 1, 0.0)
    assert why in s.machine.story()


def test_from_its_start_the_agent_has_a_minute() -> None:
    """Before, it may wait its turn at the provider, with many others."""
    s = Sleeper()
    s.put_to_sleep()
    s.feed(se.ResumeRequested(M1))
    assert s.after(100.0) == []
    s.feed(se.MachineStarted(M1, 7))
    assert s.feed(se.MachineStarted(M1, 1)) == []
    [cold] = of(c.ColdStartMachine, s.after(60.0))
    assert cold.reason == "its agent did not register again within 60 s"


def test_hooks_that_fail_after_a_resume_make_it_cold() -> None:
    s = Sleeper()
    s.put_to_sleep()
    s.feed(se.ResumeRequested(M1))
    s.come_back()
    commands = s.say(se.AgentAwoke, failure="hook to_gpu raised")
    assert of(c.FenceAgent, commands) == [c.FenceAgent(M1, 2, "it could not go on: hook to_gpu raised")]
    assert of(c.ColdStartMachine, commands) == [c.ColdStartMachine(M1, "it could not go on: hook to_gpu raised")]
    assert s.say(se.AgentAwoke, failure="hook to_gpu raised") == [], "one cold start"


def test_a_machine_that_cannot_go_on_after_a_suspend_that_failed_is_given_up() -> None:
    s = Sleeper()
    s.prepare()
    s.feed(se.MachineSuspendFailed(M1, 1, "no disk"))
    s.come_back()
    commands = s.say(se.AgentAwoke, failure="CUDA memory could not be moved back")
    assert of(c.DestroyMachine, commands) and not of(c.ColdStartMachine, commands)
    assert s.where == "destroying"
    assert "it could not go on: CUDA memory could not be moved back" in s.machine.story()


def test_a_provider_may_start_it_cold_by_itself() -> None:
    s = Sleeper()
    s.put_to_sleep()
    s.feed(se.ResumeRequested(M1))
    commands = s.register("m-1", cpus(1), "agent-2")
    assert not of(c.ColdStartMachine, commands)
    assert s.where == "ready"
    assert s.cluster.wake_of(M1) == ("cold", 1, 0.0)


def test_attempts_that_sleep_go_on_in_the_new_generation() -> None:
    """As those that are parked at a good moment, and actors."""
    s = Sleeper()
    s.submit("t-1")
    s.start("t-1")
    s.put_to_sleep()
    s.feed(se.ResumeRequested(M1))
    assert of(c.StopAttempt, s.come_back()) == []
    s.say(se.AgentAwoke)
    assert s.fence("t-1") == (M1, 2, "t-1", 1)


@pytest.mark.parametrize("stage", ["hooks run", "being saved", "saved"])
def test_a_cancel_wakes_the_machine_where_the_task_sleeps(stage: str) -> None:
    s = Sleeper()
    s.submit("t-1")
    s.start("t-1")
    s.ask()
    s.say(se.AgentIsQuiet)
    if stage == "hooks run":
        s.cancel("t-1")
        s.say(se.AgentPrepared)
        assert s.where == "suspending/called_off"
    else:
        s.say(se.AgentPrepared)
        commands = s.cancel("t-1") if stage == "being saved" else []
        commands += s.feed(se.MachineSuspended(M1, 1))
        commands += s.cancel("t-1") if stage == "saved" else []
        assert of(c.ResumeMachine, commands) == [c.ResumeMachine(M1, 1)]
    assert of(c.StopAttempt, s.come_back()) == [c.StopAttempt(M1, 2, TaskId("t-1"), 1, "cancelled")]


def test_a_cancel_of_what_is_still_waited_for_calls_no_suspend_off() -> None:
    s = Sleeper()
    s.submit("t-1")
    s.start("t-1")
    s.ask()
    assert of(c.StopAttempt, s.cancel("t-1")) == [c.StopAttempt(M1, 1, TaskId("t-1"), 1, "cancelled")]
    assert s.where == "suspending/quieting"


@pytest.mark.parametrize("no_restart", [True, False])
def test_a_kill_wakes_the_machine_where_the_actor_sleeps(no_restart: bool) -> None:
    s = Sleeper()
    s.submit("t-1", actor=ActorRecord("", "", False, b"meta"), max_retries=1)
    s.feed(e.ActorCameUp(*s.fence("t-1"), "address", b"secret"))
    s.put_to_sleep()
    commands = s.feed(e.ActorKillRequested(TaskId("t-1"), no_restart))
    assert of(c.ResumeMachine, commands) == [c.ResumeMachine(M1, 1)]
    assert of(c.StopAttempt, s.come_back()) == [c.StopAttempt(M1, 2, TaskId("t-1"), 1, "killed", True)]


def test_callers_of_an_actor_are_told_that_it_sleeps() -> None:
    s = Sleeper()
    s.submit("t-1", actor=ActorRecord("", "", False, b"meta"))
    s.feed(e.ActorCameUp(*s.fence("t-1"), "address", b"secret"))
    s.feed(e.ActorsWatched(A, (TaskId("t-1"),)))
    s.prepare()
    told = of(c.NotifyActor, s.feed(se.MachineSuspended(M1, 1)))
    assert [(each.client_id, each.state, each.is_asleep) for each in told] == [(A, "alive", True)]
    s.feed(e.ClientConnected(B))
    later = of(c.NotifyActor, s.feed(e.ActorsWatched(B, (TaskId("t-1"),))))
    assert [(each.client_id, each.is_asleep) for each in later] == [(B, True)]
    told = of(c.NotifyActor, s.feed(se.ResumeRequested(M1)))
    assert {(each.client_id, each.state, each.is_asleep) for each in told} == {(A, "alive", False), (B, "alive", False)}


def test_attempts_whose_sleep_ends_cold_are_taken_back_uncharged() -> None:
    s = Sleeper()
    s.submit("t-1", max_retries=0)
    s.start("t-1")
    s.put_to_sleep()
    s.feed(se.ResumeRequested(M1))
    s.feed(se.MachineResumeFailed(M1, 1, "gone"))
    assert s.state("t-1") == "queued"
    assert started(s.register("m-1", cpus(1), "agent-2")) == [("t-1", 2, "m-1", 2)]


def test_a_silent_agent_and_a_silent_provider_have_deadlines() -> None:
    s = Sleeper(CoreConfig(prepare_deadline_s=5.0, suspend_deadline_s=7.0, resume_deadline_s=9.0, use_leases=False))
    s.ask()
    s.say(se.AgentIsQuiet)
    s.after(5.0)
    assert s.where == "destroying"
    s = Sleeper(CoreConfig(prepare_deadline_s=5.0, suspend_deadline_s=7.0, resume_deadline_s=9.0, use_leases=False))
    s.prepare()
    s.after(7.0)
    assert s.where == "suspending/called_off"
    s.after(9.0)
    assert s.where == "destroying"


def test_no_lease_runs_while_it_sleeps() -> None:
    s = Sleeper(CoreConfig(lost_after_s=10.0))
    s.put_to_sleep()
    s.after(1000.0)
    assert s.where == "suspended/saved"
    assert s.feed(e.MachineHeard(M1, 1)) == [], "its last heartbeat comes late"
