"""Decisions about suspending and resuming machines.

A snapshot is used at most once: the journal says that it is used up before the provider is asked for it, and every agent that
comes back gets a new generation, so that what an older memory says changes nothing. Where anything is in doubt the machine boots
cold, or is given up: a snapshot is disposable, results are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import events as e
from runner.core import suspend_events as se
from runner.core import suspend_facts as f
from runner.core.commands import ColdStartMachine, FenceAgent, SurveyMachine
from runner.core.facts import MachineJoined, MachineMoved
from runner.core.lineage import lose_values
from runner.core.machine import Machine, MachineState
from runner.core.settle import requeue
from runner.core.sleep import CONNECTED, REVOCABLE, Sleep, Stage
from runner.core.state import SLEEP
from runner.core.task import Task
from runner.core.turn import Turn
from runner.ids import MachineId

_EXPECTED = frozenset({Stage.STARTING, Stage.CALLED_OFF})


# ---- going to sleep ----
def _suspend_requested(turn: Turn, event: se.SuspendRequested) -> None:
    machine = turn.state.machines.get(event.machine_id)
    if machine is not None and may_sleep(machine):
        begin(turn, machine, "asked for", interrupts=event.interrupts)


def may_sleep(machine: Machine) -> bool:
    """Bundles of placement groups are not suspended: their other machines would wait."""
    is_spent = machine.is_single_use and machine.has_served
    return machine.state is MachineState.READY and not machine.reservations and not is_spent


def begin(turn: Turn, machine: Machine, reason: str, *, interrupts: bool = False) -> None:
    """Have a ready machine go to sleep."""
    turn.record(f.SuspendBegan(machine.machine_id, machine.snapshot + 1, reason, interrupts))


def _quiet(turn: Turn, event: se.AgentIsQuiet) -> None:
    if (machine := _spoken(turn, event, Stage.QUIETING)) is not None:
        # What only it has is brought away when the turn ends, as for one that drains.
        _advance(turn, machine, Stage.EMPTYING)


def emptied(turn: Turn, machine: Machine) -> None:
    """Nothing would be lost while it sleeps, or with its snapshot."""
    _advance(turn, machine, Stage.PREPARING, within_s=turn.state.config.prepare_deadline_s)


def _prepared(turn: Turn, event: se.AgentPrepared) -> None:
    machine = _spoken(turn, event, Stage.PREPARING)
    if machine is None or machine.sleep is None:
        return
    if machine.sleep.is_wanted:
        _call_off(turn, machine, "it was wanted again before it slept")
    elif turn.state.objects.volatile.get(machine.machine_id):
        # Where it is now nobody can ask it for them.
        _call_off(turn, machine, "its before_suspend hooks made values that nobody else has")
    else:
        _advance(turn, machine, Stage.SAVING, within_s=turn.state.config.suspend_deadline_s)


def _refused(turn: Turn, event: se.AgentRefused) -> None:
    machine = turn.state.machines.get(event.machine_id)
    if _is_speaking(machine, event) and machine is not None and machine.state is MachineState.SUSPENDING:
        turn.record(f.SuspendCalledOff(machine.machine_id, f"it could not be suspended: {event.reason}"))


def _call_off(turn: Turn, machine: Machine, reason: str) -> None:
    """The agent has hung up; it registers again when it finds that it goes on."""
    _advance(turn, machine, Stage.CALLED_OFF, reason, within_s=turn.state.config.resume_deadline_s)


def _suspended(turn: Turn, event: se.MachineSuspended) -> None:
    machine = _numbered(turn, event, Stage.SAVING, Stage.CALLED_OFF)
    if machine is None or machine.sleep is None:
        return
    turn.record(f.SnapshotSaved(machine.machine_id, turn.now_s))
    if machine.sleep.is_wanted:
        _use(turn, machine, "wanted while it went to sleep")
        return
    pool = turn.state.pools.get(machine.pool)
    if pool is not None and pool.record.max_suspended_s:
        _set_timer(turn, machine, pool.record.max_suspended_s)


def _suspend_failed(turn: Turn, event: se.MachineSuspendFailed) -> None:
    if (machine := _numbered(turn, event, Stage.SAVING)) is not None:
        _call_off(turn, machine, f"the provider could not suspend it: {event.reason}")


# ---- coming back ----
def _resume_requested(turn: Turn, event: se.ResumeRequested) -> None:
    machine = turn.state.machines.get(event.machine_id)
    if machine is not None and machine.sleep is not None:
        wake(turn, machine, "asked for")


def wake(turn: Turn, machine: Machine, reason: str) -> None:
    """Have it back as soon as that can be."""
    sleep = machine.sleep
    assert sleep is not None
    if sleep.stage in REVOCABLE:
        turn.record(f.SuspendCalledOff(machine.machine_id, f"called off: {reason}"))
    elif sleep.stage is Stage.SAVED:
        _use(turn, machine, reason)
    elif not sleep.is_wanted:
        turn.record(f.ResumeWanted(machine.machine_id))


def wake_to_tell(turn: Turn, task: Task) -> None:
    """Somebody has ended this task and may wait for that. Its machine must be back before its agent hears of it."""
    machine = task.machine
    if machine is not None and machine.sleep is not None and machine.sleep.stage not in REVOCABLE:
        wake(turn, machine, f"{task.task_id}, which sleeps there, is to end")


def _use(turn: Turn, machine: Machine, reason: str) -> None:
    turn.record(f.SnapshotUsed(machine.machine_id, reason, turn.now_s))
    _set_timer(turn, machine, turn.state.config.start_deadline_s)


def _started(turn: Turn, event: se.MachineStarted) -> None:
    machine = _numbered(turn, event, Stage.STARTING)
    if machine is not None and machine.sleep is not None:
        machine.sleep.is_started = True
        _set_timer(turn, machine, turn.state.config.resume_deadline_s)


def returned(turn: Turn, machine: Machine, event: e.MachineRegistered) -> bool:
    """An agent registers for a machine that sleeps, or says that it has slept. False: it is a new agent like any other."""
    sleep = machine.sleep
    is_known = event.agent_instance_id == machine.agent_instance_id
    if is_known and machine.is_live:
        machine.heard_s = turn.now_s
        return True
    if event.snapshot:
        if sleep is not None and event.snapshot == sleep.snapshot and sleep.stage in _EXPECTED:
            _join_again(turn, machine, event)
        elif machine.state is MachineState.SUSPENDED:
            _give_up(turn, machine, "it came back although nobody had resumed it")
        # Else it is a memory from the past, which is not admitted; or the save is not over, and it asks again.
        return True
    if sleep is None or sleep.stage in REVOCABLE:
        if sleep is not None:
            turn.record(f.SuspendCalledOff(machine.machine_id, "its agent started anew"))
        return False
    if machine.state is MachineState.RESUMING:
        reason = "its agent started anew" if sleep.stage is Stage.WAKING else "the provider has started it cold"
        _drop(turn, machine, reason)
        return False
    _give_up(turn, machine, "another agent came up while it was to sleep")
    return True


def _join_again(turn: Turn, machine: Machine, event: e.MachineRegistered) -> None:
    turn.record(
        MachineJoined(
            machine.machine_id,
            event.agent_instance_id,
            machine.generation + 1,
            machine.shape,
            event.host_id,
            event.phases,
            turn.now_s,
            machine.labels,
            True,
        )
    )
    _set_timer(turn, machine, turn.state.config.resume_deadline_s)


def _awoke(turn: Turn, event: se.AgentAwoke) -> None:
    machine = _spoken(turn, event, Stage.WAKING)
    if machine is None:
        return
    if event.failure:
        _start_cold(turn, machine, f"it could not go on: {event.failure}")
    else:
        turn.record(f.MachineAwoke(machine.machine_id, ""))


def _resume_failed(turn: Turn, event: se.MachineResumeFailed) -> None:
    if (machine := _numbered(turn, event, Stage.STARTING)) is not None:
        _start_cold(turn, machine, f"the provider could not resume it: {event.reason}")


def exited(turn: Turn, machine: Machine, reason: str) -> bool:
    """The provider says that it is gone; whether that is settled by what is decided here."""
    if machine.state is MachineState.RESUMING:
        _start_cold(turn, machine, reason)
    elif machine.state is MachineState.SUSPENDED:
        _give_up(turn, machine, reason)
    else:
        return False
    return True


# ---- doubts ----
def _start_cold(turn: Turn, machine: Machine, reason: str) -> None:
    """Its memory is not to be used: boot it again. One that was only to be suspended is given up instead."""
    if machine.state is not MachineState.RESUMING:
        _give_up(turn, machine, reason)
        return
    _drop(turn, machine, reason)
    turn.state.commands.append(ColdStartMachine(machine.machine_id, reason))


def _drop(turn: Turn, machine: Machine, reason: str) -> None:
    turn.state.commands.append(FenceAgent(machine.machine_id, machine.generation, reason))
    _take_back(turn, machine, reason)
    turn.record(f.SnapshotDropped(machine.machine_id, reason, turn.now_s))


def _give_up(turn: Turn, machine: Machine, reason: str) -> None:
    _take_back(turn, machine, reason)
    turn.record(MachineMoved(machine.machine_id, MachineState.LOST, reason))
    turn.record(MachineMoved(machine.machine_id, MachineState.DESTROYING, ""))


def _take_back(turn: Turn, machine: Machine, reason: str) -> None:
    """What it slept with is started elsewhere, uncharged: nothing of that is its fault."""
    lose_values(turn, machine.machine_id, reason)
    for task in machine.attempts():
        requeue(turn, task, f"attempt {task.attempt} on {machine.machine_id}, which slept: {reason}")


def end_sleeper(turn: Turn, machine: Machine, reason: str) -> None:
    """It is not wanted any more, wherever its sleep stands."""
    if machine.state is MachineState.SUSPENDED:
        _take_back(turn, machine, reason)
        turn.record(MachineMoved(machine.machine_id, MachineState.STOPPING, reason))
    else:
        _give_up(turn, machine, reason)


def due(turn: Turn, id_: str, due_s: float) -> None:
    """The machine's one timer has fired."""
    machine = turn.state.machines.get(MachineId(id_))
    sleep = None if machine is None else machine.sleep
    if machine is None or sleep is None or sleep.due_s != due_s:
        return
    config = turn.state.config
    if sleep.stage is Stage.SAVING:
        _call_off(turn, machine, f"the provider did not suspend it within {config.suspend_deadline_s:g} s")
    elif sleep.stage is Stage.SAVED:
        _slept_long(turn, machine)
    elif sleep.stage is Stage.PREPARING:
        limit_s = config.prepare_deadline_s
        _give_up(turn, machine, f"its agent did not get ready for the suspend within {limit_s:g} s")
    elif sleep.stage is Stage.STARTING and not sleep.is_started:
        _start_cold(turn, machine, f"the provider did not start it within {config.start_deadline_s:g} s")
    elif sleep.stage not in REVOCABLE:
        did_not = "run its hooks" if sleep.stage is Stage.WAKING else "register again"
        _start_cold(turn, machine, f"its agent did not {did_not} within {config.resume_deadline_s:g} s")


def _slept_long(turn: Turn, machine: Machine) -> None:
    """It ends, unless its pool would boot another in its place."""
    pool = turn.state.pools.get(machine.pool)
    if pool is not None and pool.there <= pool.record.min and pool.record.max_suspended_s:
        _set_timer(turn, machine, pool.record.max_suspended_s)
    else:
        end_sleeper(turn, machine, "it has slept for max_suspended_s")


# ---- restarts of the coordinator ----
def survey(turn: Turn, machine: Machine) -> bool:
    """After a restart: whether it can be kept. Executors' sessions ended with the old process, and so does what they ran."""
    if machine.state not in (MachineState.SUSPENDED, MachineState.RESUMING):
        return False
    if machine.sleep is not None and machine.sleep.stage is Stage.WAKING:
        return False
    for task in machine.attempts():
        requeue(turn, task, f"attempt {task.attempt} on {machine.machine_id}, which slept: the coordinator restarted")
    turn.state.commands.append(SurveyMachine(machine.machine_id))
    if machine.sleep is not None and machine.state is MachineState.RESUMING:
        machine.sleep.is_started = True
        _set_timer(turn, machine, turn.state.config.resume_deadline_s)
    return True


def _surveyed(turn: Turn, event: se.MachineSurveyed) -> None:
    machine = turn.state.machines.get(event.machine_id)
    sleep = None if machine is None else machine.sleep
    if machine is None or sleep is None or sleep.stage not in (Stage.SAVED, Stage.STARTING):
        return
    if sleep.stage is Stage.SAVED:
        if event.found == "suspended":
            _bound_sleep(turn, machine, sleep)
        else:
            _give_up(turn, machine, f"it was suspended, and after a restart of the coordinator it is {event.found}")
    elif event.found != "running":
        # Asked for or not, the snapshot counts as used: it is discarded.
        _start_cold(turn, machine, f"the coordinator restarted while it was resumed, and it is {event.found}")


def _bound_sleep(turn: Turn, machine: Machine, sleep: Sleep) -> None:
    pool = turn.state.pools.get(machine.pool)
    if pool is not None and pool.record.max_suspended_s:
        _set_timer(turn, machine, max(0.0, sleep.suspended_s + pool.record.max_suspended_s - turn.now_s))


# ---- helpers ----
def _advance(turn: Turn, machine: Machine, stage: Stage, reason: str = "", *, within_s: float | None = None) -> None:
    turn.record(f.SuspendAdvanced(machine.machine_id, stage, reason))
    if within_s is not None:
        _set_timer(turn, machine, within_s)


def _set_timer(turn: Turn, machine: Machine, within_s: float) -> None:
    assert machine.sleep is not None
    machine.sleep.due_s = turn.now_s + within_s
    turn.state.set_timer(machine.sleep.due_s, SLEEP, machine.machine_id)


def _is_speaking(machine: Machine | None, event: Any) -> bool:
    if machine is None or machine.sleep is None or machine.sleep.stage not in CONNECTED:
        return False
    return (machine.generation, machine.sleep.snapshot) == (event.generation, event.snapshot)


def _spoken(turn: Turn, event: Any, stage: Stage) -> Machine | None:
    """The machine, if its agent says this about the suspend, or the resume, that is under way at this stage."""
    machine = turn.state.machines.get(event.machine_id)
    if machine is None or machine.sleep is None or not _is_speaking(machine, event):
        return None
    return machine if machine.sleep.stage is stage else None


def _numbered(turn: Turn, event: Any, *stages: Stage) -> Machine | None:
    """The machine, if the provider's answer is about what is asked of it now."""
    machine = turn.state.machines.get(event.machine_id)
    sleep = None if machine is None else machine.sleep
    return machine if sleep is not None and sleep.snapshot == event.snapshot and sleep.stage in stages else None


SUSPEND_EVENTS: dict[type[Any], Callable[[Turn, Any], None]] = {
    se.SuspendRequested: _suspend_requested,
    se.ResumeRequested: _resume_requested,
    se.AgentIsQuiet: _quiet,
    se.AgentPrepared: _prepared,
    se.AgentRefused: _refused,
    se.MachineSuspended: _suspended,
    se.MachineSuspendFailed: _suspend_failed,
    se.MachineStarted: _started,
    se.MachineResumeFailed: _resume_failed,
    se.AgentAwoke: _awoke,
    se.MachineSurveyed: _surveyed,
}
