"""Decisions about machines, time and restarts."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop
from math import inf
from typing import Any

from runner.core import events as e
from runner.core import facts as f
from runner.core.apply.fleet import lease_s
from runner.core.commands import DestroyMachine, FenceAgent
from runner.core.decide.clients import close_client
from runner.core.decide.groups import deadline_due, lose_bundles
from runner.core.decide.pools import POOL_EVENTS, boot_failed, machine_lost, one_fewer
from runner.core.decide.suspend import SUSPEND_EVENTS, due, end_sleeper, exited, returned, survey, wake
from runner.core.lineage import lose_values
from runner.core.machine import BOOTING, ENDED, LIVE, SLEEPY, Machine, MachineState
from runner.core.settle import end_attempt, failure_of, requeue
from runner.core.sleep import REVOCABLE
from runner.core.state import BACKOFF, BOOT, CLIENT, GROUP, LEASE, SCALE, SLEEP
from runner.core.task import TaskState
from runner.core.turn import Turn
from runner.core.values import FailureKind
from runner.ids import ClientId, MachineId, TaskId


# ---- coming ----
def _requested(turn: Turn, event: e.MachinesRequested) -> None:
    for machine_id in event.machine_ids:
        if machine_id not in turn.state.machines:
            turn.record(f.MachineAdded(machine_id, event.shape, event.provider, turn.now_s))
            _move(turn, turn.state.machines[machine_id], MachineState.CREATING)
    _fleet_is_known(turn)


def _created(turn: Turn, event: e.MachineCreated) -> None:
    machine = turn.state.machines.get(event.machine_id)
    if machine is None:
        return
    if machine.provider_machine_id != event.provider_machine_id:
        turn.record(f.MachineNamed(event.machine_id, event.provider_machine_id))
    if machine.state is MachineState.CREATING:
        _move(turn, machine, MachineState.BOOTING)
    elif machine.state in ENDED:  # given up before the provider answered: the first destroy may have found nothing
        turn.state.commands.append(DestroyMachine(machine.machine_id, machine.reason))


def _boot_failed(turn: Turn, event: e.MachineBootFailed) -> None:
    machine = turn.state.machines.get(event.machine_id)
    if machine is not None and machine.state in BOOTING:
        _move(turn, machine, MachineState.BOOT_FAILED, event.reason)
        boot_failed(turn, machine, event)


def _registered(turn: Turn, event: e.MachineRegistered) -> None:
    machine = turn.state.machines.get(event.machine_id)
    if machine is None or machine.state in ENDED:
        generation = 0 if machine is None else machine.generation
        reason = "no such machine" if machine is None else f"this machine is {machine.state.label}"
        turn.state.commands.append(FenceAgent(event.machine_id, generation, reason))
        return
    if (event.snapshot or machine.sleep is not None) and returned(turn, machine, event):
        return
    if machine.state in LIVE:
        if machine.agent_instance_id == event.agent_instance_id:
            machine.heard_s = turn.now_s
            return
        reason = "its agent started anew"
        turn.state.commands.append(FenceAgent(machine.machine_id, machine.generation, reason))
        lose_values(turn, machine.machine_id, reason)
        _lose_attempts(turn, machine, reason)
        lose_bundles(turn, machine)
    elif machine.state is MachineState.CREATING:  # faster than the provider's answer
        _move(turn, machine, MachineState.BOOTING)
    turn.record(
        f.MachineJoined(
            event.machine_id,
            event.agent_instance_id,
            machine.generation + 1,
            event.shape,
            event.host_id,
            event.phases,
            turn.now_s,
            tuple(sorted({**dict(machine.labels), **dict(event.labels)}.items())),
        )
    )


def _heard(turn: Turn, event: e.MachineHeard) -> None:
    machine = turn.state.machines.get(event.machine_id)
    if machine is not None and machine.state in LIVE and machine.generation == event.generation:
        machine.heard_s = turn.now_s
    elif machine is None or machine.state is not MachineState.SUSPENDED or machine.generation != event.generation:
        turn.state.commands.append(FenceAgent(event.machine_id, event.generation, "this generation is over"))


# ---- going ----
def _exited(turn: Turn, event: e.MachineExited) -> None:
    machine = turn.state.machines.get(event.machine_id)
    if machine is None:
        return
    if machine.state in BOOTING:
        _fail_boot(turn, machine, event.reason)
    elif not exited(turn, machine, event.reason) and machine.state in LIVE:
        _lose(turn, machine, event.reason)


def _fail_boot(turn: Turn, machine: Machine, reason: str) -> None:
    _boot_failed(turn, e.MachineBootFailed(machine.machine_id, reason))


def _lose(turn: Turn, machine: Machine, reason: str) -> None:
    if machine.state is MachineState.READY:
        machine_lost(turn, machine, reason)
    _move(turn, machine, MachineState.LOST, reason)
    lose_values(turn, machine.machine_id, reason)
    _lose_attempts(turn, machine, reason)
    _move(turn, machine, MachineState.DESTROYING)


def _lose_attempts(turn: Turn, machine: Machine, reason: str) -> None:
    # All are charged, also those not known to have started: the report of that may be what got lost.
    for task in machine.attempts():
        text = f"machine {machine.machine_id} was lost ({reason})"
        end_attempt(turn, task, failure_of(task, FailureKind.MACHINE_LOST, text))


def _removal(turn: Turn, event: e.MachineRemovalRequested) -> None:
    machine = turn.state.machines.get(event.machine_id)
    if machine is None:
        return
    pool = turn.state.pools.get(machine.pool)
    if pool is not None and not event.by_itself and machine.state in BOOTING | SLEEPY | {MachineState.READY}:
        one_fewer(turn, pool)
    if machine.sleep is not None and machine.sleep.stage in REVOCABLE:
        wake(turn, machine, "removal requested")
    if machine.state in BOOTING:
        _move(turn, machine, MachineState.STOPPING, "removed while it booted")
    elif machine.sleep is not None:
        end_sleeper(turn, machine, "removal requested")
    elif machine.state in LIVE:
        if machine.state is MachineState.READY:
            _move(turn, machine, MachineState.DRAINING, "told to end" if event.by_itself else "removal requested")
        if event.force:
            for task in machine.attempts():
                requeue(turn, task, f"attempt {task.attempt} on {machine.machine_id}: the machine was removed")
        # An empty one stops when the turn ends, as it does after its last attempt.


def _destroyed(turn: Turn, event: e.MachineDestroyed) -> None:
    machine = turn.state.machines.get(event.machine_id)
    if machine is None or machine.state is MachineState.DESTROYED:
        return
    if machine.state in BOOTING:
        _fail_boot(turn, machine, "destroyed by the provider")
    elif machine.state is MachineState.SUSPENDED:
        exited(turn, machine, "destroyed by the provider")
    elif machine.state in LIVE:
        _lose(turn, machine, "destroyed by the provider")
    _move(turn, machine, MachineState.DESTROYED)


def _move(turn: Turn, machine: Machine, to: MachineState, reason: str = "") -> None:
    turn.record(f.MachineMoved(machine.machine_id, to, reason))


# ---- time ----
def _stalled(turn: Turn, event: e.LoopStalled) -> None:
    for machine in turn.state.machines.values():
        machine.heard_s += event.stalled_s
    for client in list(turn.state.clients.values()):
        if client.lease_until_s is not None:
            turn.record(f.ClientLeased(client.client_id, client.lease_until_s + event.stalled_s))


def _clock(turn: Turn, _event: e.ClockAdvanced) -> None:
    timers = turn.state.timers
    while timers and timers[0][0] <= turn.now_s:
        due_s, kind, id_ = heappop(timers)
        _TIMERS[kind](turn, id_, due_s)


def _backoff_due(turn: Turn, id_: str, _due_s: float) -> None:
    task = turn.state.tasks.get(TaskId(id_))
    if task is not None and task.state is TaskState.BACKOFF and task.backoff_until_s <= turn.now_s:
        turn.record(f.BackoffEnded(task.task_id))


def _boot_due(turn: Turn, id_: str, _due_s: float) -> None:
    machine = turn.state.machines.get(MachineId(id_))
    if machine is not None and machine.state in BOOTING and machine.boot_due_s <= turn.now_s:
        reason = f"its agent did not register within {turn.state.config.boot_deadline_s:g} s"
        _fail_boot(turn, machine, reason)


def _lease_due(turn: Turn, id_: str, due_s: float) -> None:
    machine = turn.state.machines.get(MachineId(id_))
    if machine is None or not machine.is_live or machine.lease_due_s != due_s:
        return
    silent_s = turn.now_s - machine.heard_s
    limit_s = lease_s(turn.state)
    if silent_s >= limit_s:
        _lose(turn, machine, f"no heartbeat for {silent_s:.1f} s, limit {limit_s:.1f} s")
    else:
        # Strictly later, also when rounding says otherwise: a timer must not fire twice in one turn.
        machine.lease_due_s = max(machine.heard_s + limit_s, turn.now_s + 1e-3)
        turn.state.set_timer(machine.lease_due_s, LEASE, id_)


def _client_due(turn: Turn, id_: str, _due_s: float) -> None:
    client = turn.state.clients.get(ClientId(id_))
    if client is not None and client.lease_until_s is not None and client.lease_until_s <= turn.now_s:
        close_client(turn, client)


def _plan_due(turn: Turn, _id: str, due_s: float) -> None:
    if due_s >= turn.state.plan_timer_s:
        turn.state.plan_timer_s = inf
    turn.state.is_plan_due = True


_TIMERS: dict[int, Callable[[Turn, str, float], None]] = {
    BACKOFF: _backoff_due,
    BOOT: _boot_due,
    LEASE: _lease_due,
    CLIENT: _client_due,
    SCALE: _plan_due,
    GROUP: deadline_due,
    SLEEP: due,
}


# ---- restarts ----
def _restarted(turn: Turn, _event: e.CoordinatorRestarted) -> None:
    """The old fleet is gone with the old process; nobody is to blame, so nothing is charged."""
    state = turn.state
    state.is_fleet_known = False
    reason = "the coordinator restarted"
    for machine in list(state.machines.values()):
        if survey(turn, machine):
            continue
        if machine.state not in ENDED:
            _move(turn, machine, MachineState.LOST, reason)
            lose_values(turn, machine.machine_id, reason)
            for task in machine.attempts():
                requeue(turn, task, f"attempt {task.attempt} on {machine.machine_id}: {reason}")
            _move(turn, machine, MachineState.DESTROYING)
        elif machine.state is not MachineState.DESTROYED:
            state.commands.append(DestroyMachine(machine.machine_id, machine.reason))
    for client in list(state.clients.values()):
        if client.executor_id is not None:
            close_client(turn, client)
        else:
            until_s = turn.now_s + state.config.client_lost_after_s
            turn.record(f.ClientLeased(client.client_id, until_s))


def _fleet_is_known(turn: Turn) -> None:
    state = turn.state
    if not state.is_fleet_known:
        state.is_fleet_known = True
        state.verdicts.clear()
        state.is_placement_due = True


FLEET_EVENTS: dict[type[Any], Callable[[Turn, Any], None]] = {
    e.MachinesRequested: _requested,
    e.MachineCreated: _created,
    e.MachineBootFailed: _boot_failed,
    e.MachineRegistered: _registered,
    e.MachineHeard: _heard,
    e.MachineExited: _exited,
    e.MachineRemovalRequested: _removal,
    e.MachineDestroyed: _destroyed,
    e.LoopStalled: _stalled,
    e.ClockAdvanced: _clock,
    e.CoordinatorRestarted: _restarted,
    **SUSPEND_EVENTS,
    **POOL_EVENTS,
}
