"""Facts about suspending and resuming machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import suspend_facts as f
from runner.core.commands import NoteMachineState, ResumeMachine, StopAttempt, SuspendAgent, SuspendMachine
from runner.core.machine import Machine, MachineState
from runner.core.sleep import REVOCABLE, Sleep, Stage
from runner.core.state import BOOT, State


def _began(state: State, fact: f.SuspendBegan) -> None:
    machine = state.machines[fact.machine_id]
    machine.snapshot, machine.wake = fact.snapshot, None
    machine.sleep = Sleep(fact.snapshot)
    state.move_machine(machine, MachineState.SUSPENDING, fact.reason)
    state.commands.append(SuspendAgent(machine.machine_id, machine.generation, fact.snapshot, "quiet", fact.interrupts))


def _advanced(state: State, fact: f.SuspendAdvanced) -> None:
    machine = state.machines[fact.machine_id]
    sleep = machine.sleep
    assert sleep is not None, machine.story()
    sleep.stage, sleep.due_s = Stage(fact.stage), 0.0
    stage = sleep.stage
    label = stage.name.lower().replace("_", " ")
    machine.trail.append(f"{label} ({fact.reason})" if fact.reason else label)
    if fact.reason:
        machine.reason = fact.reason
    state.dirty_machines[machine] = None
    state.commands.append(NoteMachineState(machine.machine_id, machine.state.label, machine.generation, fact.reason))
    if stage is Stage.PREPARING:
        state.commands.append(SuspendAgent(machine.machine_id, machine.generation, sleep.snapshot, "prepare"))
    elif stage is Stage.SAVING:
        state.commands.append(SuspendMachine(machine.machine_id, sleep.snapshot))


def _called_off(state: State, fact: f.SuspendCalledOff) -> None:
    machine = state.machines[fact.machine_id]
    sleep = machine.sleep
    assert sleep is not None, machine.story()
    machine.sleep = None
    machine.emptying.clear()
    # One that has refused knows already.
    if sleep.stage in REVOCABLE:
        state.commands.append(SuspendAgent(machine.machine_id, machine.generation, sleep.snapshot, "call off"))
    state.move_machine(machine, MachineState.READY, fact.reason)


def _saved(state: State, fact: f.SnapshotSaved) -> None:
    machine = state.machines[fact.machine_id]
    assert machine.sleep is not None, machine.story()
    machine.sleep.stage, machine.sleep.suspended_s, machine.sleep.due_s = Stage.SAVED, fact.now_s, 0.0
    state.move_machine(machine, MachineState.SUSPENDED)
    _tell_callers(state, machine)


def _used(state: State, fact: f.SnapshotUsed) -> None:
    machine = state.machines[fact.machine_id]
    sleep = machine.sleep
    assert sleep is not None, machine.story()
    sleep.stage, sleep.slept_s = Stage.STARTING, max(0.0, fact.now_s - sleep.suspended_s)
    state.move_machine(machine, MachineState.RESUMING, fact.reason)
    _tell_callers(state, machine)
    state.commands.append(ResumeMachine(machine.machine_id, sleep.snapshot))


def _dropped(state: State, fact: f.SnapshotDropped) -> None:
    machine = state.machines[fact.machine_id]
    sleep = machine.sleep
    assert sleep is not None, machine.story()
    machine.wake = ("cold", sleep.snapshot, sleep.slept_s)
    machine.sleep = None
    state.leave_host(machine)
    state.move_machine(machine, MachineState.BOOTING, fact.reason)
    machine.boot_due_s = fact.now_s + state.config.boot_deadline_s
    state.set_timer(machine.boot_due_s, BOOT, machine.machine_id)


def _awoke(state: State, fact: f.MachineAwoke) -> None:
    machine = state.machines[fact.machine_id]
    machine.sleep = None
    machine.emptying.clear()
    state.move_machine(machine, MachineState.READY, fact.reason)


def _wanted(state: State, fact: f.ResumeWanted) -> None:
    sleep = state.machines[fact.machine_id].sleep
    assert sleep is not None
    sleep.is_wanted = True


def _tell_callers(state: State, machine: Machine) -> None:
    """Of its actors: who reaches one without us has to say that it waits for an answer."""
    for task in machine.attempts():
        actor = state.actors.by_id.get(task.task_id)
        if actor is not None:
            state.tell_watchers(actor)


def come_back(state: State, machine: Machine) -> None:
    """Its agent has registered again, with all that it had; to be called for the fact that says so."""
    sleep = machine.sleep
    assert sleep is not None, machine.story()
    kind = "resumed" if sleep.stage is Stage.STARTING else "cancelled"
    machine.wake = (kind, sleep.snapshot, sleep.slept_s)
    sleep.stage = Stage.WAKING
    # What it was told while it slept went to a generation that is over.
    for task in machine.attempts():
        actor = state.actors.by_id.get(task.task_id)
        is_shot = actor is not None and actor.is_restart_wanted
        if task.is_cancelling or is_shot:
            force = task.is_cancel_forced or is_shot
            reason = "cancelled" if actor is None else "killed" if force else "released"
            key = (machine.machine_id, machine.generation, task.task_id, task.attempt)
            state.commands.append(StopAttempt(*key, reason, force))


SUSPEND_FACTS: dict[type[Any], Callable[[State, Any], None]] = {
    f.SuspendBegan: _began,
    f.SuspendAdvanced: _advanced,
    f.SuspendCalledOff: _called_off,
    f.SnapshotSaved: _saved,
    f.SnapshotUsed: _used,
    f.SnapshotDropped: _dropped,
    f.MachineAwoke: _awoke,
    f.ResumeWanted: _wanted,
}
