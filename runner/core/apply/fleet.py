"""Facts about machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import facts as f
from runner.core.apply.suspend import SUSPEND_FACTS, come_back
from runner.core.commands import CreateMachine, DestroyMachine, FenceAgent, NoteMachineState
from runner.core.machine import COUNTED, ENDED, Machine, MachineState
from runner.core.pool import Pool
from runner.core.resources import Resources
from runner.core.state import BOOT, LEASE, State
from runner.core.values import PoolRecord


def _add(state: State, fact: f.MachineAdded) -> None:
    machine = Machine(
        fact.machine_id, state.machine_order, fact.shape, fact.provider, fact.now_s, Resources(fact.shape)
    )
    machine.pool, machine.is_single_use, machine.labels = fact.pool, fact.is_single_use, fact.labels
    if fact.pool in state.pools:
        state.pools[fact.pool].counts[machine.state] += 1
    state.machine_order += 1
    state.machines[fact.machine_id] = machine
    state.count_capacity(machine, 1)
    machine.boot_due_s = fact.now_s + state.config.boot_deadline_s
    state.set_timer(machine.boot_due_s, BOOT, fact.machine_id)
    state.commands.append(NoteMachineState(fact.machine_id, machine.state.label, 0))


def _name(state: State, fact: f.MachineNamed) -> None:
    state.machines[fact.machine_id].provider_machine_id = fact.provider_machine_id


def _move(state: State, fact: f.MachineMoved) -> None:
    machine = state.machines[fact.machine_id]
    to = MachineState(fact.state)
    state.move_machine(machine, to, fact.reason)
    if to is MachineState.CREATING:
        state.commands.append(CreateMachine(machine.machine_id, machine.shape, machine.pool))
    if to in ENDED:
        machine.sleep = None
        state.leave_host(machine)
    if to is MachineState.LOST or to is MachineState.STOPPING:
        if machine.generation:
            state.commands.append(FenceAgent(machine.machine_id, machine.generation, fact.reason))
    elif to is MachineState.DESTROYED:
        state.destroyed.append(machine.machine_id)
        if len(state.destroyed) > state.config.destroyed_kept:
            del state.machines[state.destroyed.popleft()]
    if to in _LAST_STEPS:
        state.commands.append(DestroyMachine(machine.machine_id, fact.reason or machine.reason))


_LAST_STEPS = frozenset({MachineState.STOPPING, MachineState.BOOT_FAILED, MachineState.DESTROYING})


def _join(state: State, fact: f.MachineJoined) -> None:
    """A new agent instance, which knows nothing of what an older one was sent; or one that slept, and knows all."""
    machine = state.machines[fact.machine_id]
    state.leave_host(machine)
    machine.generation = fact.generation
    machine.agent_instance_id = fact.agent_instance_id
    machine.host_id, machine.phases = fact.host_id, fact.phases
    machine.heard_s = machine.joined_s = fact.now_s
    state.hosts.setdefault(machine.host_id, {})[machine] = None
    if fact.is_awake:
        come_back(state, machine)
    else:
        machine.sent_functions.clear()
        machine.sent_packages.clear()
        _reshape(state, machine, fact)
    if machine.state is MachineState.BOOTING:
        state.move_machine(machine, MachineState.READY)
    else:
        machine.trail.append(f"generation {fact.generation}")
        state.dirty_machines[machine] = None
        state.is_placement_due = True
        state.commands.append(NoteMachineState(machine.machine_id, machine.state.label, fact.generation))
    if state.config.use_leases:
        machine.lease_due_s = fact.now_s + lease_s(state)
        state.set_timer(machine.lease_due_s, LEASE, machine.machine_id)


def _reshape(state: State, machine: Machine, fact: f.MachineJoined) -> None:
    """What the machine really has counts, not what was asked for."""
    assert not machine.slots
    is_counted = machine.state in COUNTED
    if is_counted:
        state.count_capacity(machine, -1)
    machine.shape, machine.labels = fact.shape, fact.labels or machine.labels
    machine.resources = Resources(fact.shape)
    if is_counted:
        state.count_capacity(machine, 1)


def _set_pools(state: State, fact: f.PoolsSet) -> None:
    if fact.is_configured:
        state.configured = fact.pools
    old, state.pools = state.pools, {}
    for record in fact.pools:
        pool = state.pools[record.name] = old.get(record.name) or _counted(state, record)
        pool.record = record
    state.is_elastic = any(pool.is_elastic for pool in state.pools.values())
    state.verdicts.clear()
    state.is_placement_due = state.is_plan_due = True


def _counted(state: State, record: PoolRecord) -> Pool:
    """A pool of a name that machines of an earlier one may carry."""
    pool = Pool(record)
    for machine in state.machines.values():
        if machine.pool == record.name:
            pool.counts[machine.state] += 1
            if machine.state is MachineState.SUSPENDED:
                pool.asleep[machine] = None
    return pool


def lease_s(state: State) -> float:
    """How long after hearing from it a machine is given up: later than the agent itself gives up."""
    return state.config.lost_after_s * 1.01 + 1.0


FLEET_FACTS: dict[type[Any], Callable[[State, Any], None]] = {
    f.MachineAdded: _add,
    f.MachineNamed: _name,
    f.MachineMoved: _move,
    f.MachineJoined: _join,
    f.PoolsSet: _set_pools,
    **SUSPEND_FACTS,
}
