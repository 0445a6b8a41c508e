"""Sleep as the fleet sees it: pools, removal, restarts of the coordinator."""

from __future__ import annotations

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core import suspend_events as se
from runner.core.group_events import GroupRequested
from runner.core.sleep import Stage
from runner.core.values import GroupRecord
from runner.ids import MachineId
from tests.unit.core.script import M1, A, Script, cpus, of, started
from tests.unit.core.sleeper import Sleeper, sent


# ---- pools ----
def test_idleness_puts_to_sleep_and_work_wakes() -> None:
    s = Sleeper(suspends_idle=True, idle_shutdown_s=30.0)
    assert sent(s.after(30.0)) == ["quiet"]
    s.say(se.AgentIsQuiet)
    s.say(se.AgentPrepared)
    s.feed(se.MachineSuspended(M1, 1))
    s.after(1.0)
    assert s.where == "suspended/saved", "it counts for the pool's minimum"
    assert of(c.ResumeMachine, s.submit("t-1") + s.after(0.1)) == [c.ResumeMachine(M1, 1)]
    s.come_back()
    assert started(s.say(se.AgentAwoke)) == [("t-1", 1, "m-1", 1)]


def test_work_wakes_what_somebody_put_to_sleep() -> None:
    s = Sleeper()
    s.put_to_sleep()
    s.after(1.0)
    assert of(c.ResumeMachine, s.submit("t-1") + s.after(0.1)) == [c.ResumeMachine(M1, 1)]


def test_a_sleeper_is_woken_before_another_machine_is_booted() -> None:
    s = Sleeper(min=0, max=2)
    s.put_to_sleep()
    s.after(1.0)
    s.submit("t-1")
    commands = s.submit("t-2") + s.after(1.0)
    assert len(of(c.CreateMachine, commands)) == 1
    assert s.where == "resuming/starting"


def test_one_that_goes_to_sleep_is_not_replaced() -> None:
    s = Sleeper(min=1, max=2)
    s.ask()
    commands = s.after(1.0)
    s.prepare()
    assert not of(c.CreateMachine, commands + s.after(1.0))


def test_sleep_has_a_limit() -> None:
    s = Sleeper(min=0, max_suspended_s=100.0)
    s.put_to_sleep()
    commands = s.after(100.0)
    assert of(c.DestroyMachine, commands) == [c.DestroyMachine(M1, "it has slept for max_suspended_s")]


def test_one_that_would_only_be_replaced_sleeps_on() -> None:
    s = Sleeper(min=1, max=2, max_suspended_s=100.0)
    s.put_to_sleep()
    assert s.after(100.0) == []
    assert s.where == "suspended/saved"
    s.feed(e.PoolsConfigured((s.machine_pool._replace(min=0),), {}, "fake"))
    assert of(c.DestroyMachine, s.after(100.0)), "looked at again"


def test_what_cannot_sleep_does_not_begin_to() -> None:
    s = Sleeper()
    s.feed(GroupRequested(GroupRecord("g", A, (cpus(1),))))
    assert s.ask() == []
    s = Sleeper()
    s.prepare()
    assert s.ask() == [], "once is enough"


@pytest.mark.parametrize("stage", ["suspending/quieting", "suspending/saving", "suspended/saved", "resuming/waking"])
def test_a_machine_can_be_removed_wherever_it_is(stage: str) -> None:
    s = Sleeper()
    s.ask()
    if stage != "suspending/quieting":
        s.say(se.AgentIsQuiet)
        s.say(se.AgentPrepared)
    if stage in ("suspended/saved", "resuming/waking"):
        s.feed(se.MachineSuspended(M1, 1))
    if stage == "resuming/waking":
        s.feed(se.ResumeRequested(M1))
        s.come_back()
    assert s.where == stage
    assert of(c.DestroyMachine, s.feed(e.MachineRemovalRequested(M1, False)))


# ---- restarts ----
def restarted(s: Sleeper, found: str) -> list[c.Command]:
    commands = s.feed(e.CoordinatorRestarted())
    assert of(c.SurveyMachine, commands) == [c.SurveyMachine(M1)]
    return s.feed(se.MachineSurveyed(M1, found))


def test_sleepers_outlive_a_restart() -> None:
    s = Sleeper()
    s.put_to_sleep()
    assert restarted(s, "suspended") == []
    assert of(c.ResumeMachine, s.feed(se.ResumeRequested(M1)))


@pytest.mark.parametrize("found", ["running", "stopped", "gone"])
def test_a_sleeper_that_is_something_else_after_a_restart_is_given_up(found: str) -> None:
    s = Sleeper()
    s.put_to_sleep()
    assert of(c.DestroyMachine, restarted(s, found))


@pytest.mark.parametrize("found", ["suspended", "stopped", "gone"])
def test_a_used_snapshot_is_not_used_again_after_a_restart(found: str) -> None:
    """Whether the provider was asked before the crash or not."""
    s = Sleeper()
    s.put_to_sleep()
    s.feed(se.ResumeRequested(M1))
    commands = restarted(s, found)
    assert of(c.ColdStartMachine, commands)
    assert not of(c.ResumeMachine, commands)


def test_one_that_was_started_before_the_restart_is_awaited() -> None:
    s = Sleeper()
    s.put_to_sleep()
    s.feed(se.ResumeRequested(M1))
    assert restarted(s, "running") == []
    s.come_back()
    s.say(se.AgentAwoke)
    assert s.where == "ready"


@pytest.mark.parametrize("stage", list(Stage))
def test_every_stage_has_a_state(stage: Stage) -> None:
    from runner.core.invariants import STAGES

    assert any(stage in stages for stages in STAGES.values())


def test_unknown_machines_change_nothing() -> None:
    s = Script()
    nobody = MachineId("m-9")
    for event in (
        se.SuspendRequested(nobody),
        se.ResumeRequested(nobody),
        se.AgentIsQuiet(nobody, 1, 1),
        se.MachineSuspended(nobody, 1),
        se.MachineSuspendFailed(nobody, 1, "no"),
        se.MachineResumeFailed(nobody, 1, "no"),
        se.MachineSurveyed(nobody, "gone"),
    ):
        assert s.feed(event) == []
