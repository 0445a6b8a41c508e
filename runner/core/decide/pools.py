"""Decisions about pools: what they are, when they grow and shrink, and when booting is in vain."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from runner.core import events as e
from runner.core import facts as f
from runner.core.commands import NotePool
from runner.core.decide.suspend import begin, may_sleep, wake
from runner.core.machine import Machine, MachineState
from runner.core.pool import SHORT_LIFE_S, Pool
from runner.core.scaling import plan
from runner.core.state import SCALE, State
from runner.core.turn import Turn
from runner.core.wants import Key, Want
from runner.ids import MachineId

# The plan is made at most this often: a burst of submits is one demand.
PLAN_EVERY_S = 0.02


# ---- what people say ----
def _configured(turn: Turn, event: e.PoolsConfigured) -> None:
    """A start. The same pools as last time keep what was added and removed since."""
    state = turn.state
    state.provider = event.provider
    state.is_fleet_known = True
    if event.pools != state.configured:
        turn.record(f.PoolsSet(event.pools, True))
    for pool in state.pools.values():
        pool.start, pool.came = event.start.get(pool.record.name, 0), 0
    state.commands.extend(NotePool("", text) for text in event.warnings)
    _trouble_changed(state)


def _machines_wanted(turn: Turn, event: e.MachinesWanted) -> None:
    pool = turn.state.pools.get(event.pool)
    if pool is not None and event.count > 0:
        least = pool.record.min + event.count
        _set(turn, pool, least, max(_most(turn.state, pool, least), pool.record.max))
        pool.limit = pool.limit_until_s = inf
        pool.is_hopeless = False
        turn.state.planned_s = -inf  # now: the caller is told which they are


def one_fewer(turn: Turn, pool: Pool) -> None:
    """Somebody removed a machine: it is not to come back."""
    record = pool.record
    if pool.there <= record.min:
        least = max(0, record.min - 1)
        _set(turn, pool, least, _most(turn.state, pool, least))
    pool.start = 0


def _most(state: State, pool: Pool, least: int) -> int:
    """How many there may be if there are to be `least`: what the start said, unless that was a fixed number."""
    said = next((each for each in state.configured if each.name == pool.record.name), pool.record)
    return least if said.min == said.max else max(said.max, least)


def _set(turn: Turn, changed: Pool, least: int, most: int) -> None:
    records = tuple(
        pool.record._replace(min=least, max=most) if pool is changed else pool.record
        for pool in turn.state.pools.values()
    )
    turn.record(f.PoolsSet(records, False))


def _budget(turn: Turn, event: e.BudgetChanged) -> None:
    state = turn.state
    if state.is_budget_spent != event.is_spent:
        state.is_budget_spent = event.is_spent
        _trouble_changed(state)


# ---- what goes wrong ----
def boot_failed(turn: Turn, machine: Machine, event: e.MachineBootFailed) -> None:
    """The machine has left its booting state."""
    pool = turn.state.pools.get(machine.pool)
    if pool is None:
        return
    if event.is_permanent:
        if not pool.is_refused:  # people are told of the first one; the others are refused for the same reason
            _tell(turn, pool, f"a machine cannot be had: {event.reason}")
        pool.refused(event.reason)
    elif event.is_capacity:
        pool.short(event.reason, turn.now_s)
    elif _has_failed(turn, pool, machine, event.reason):
        _tell(turn, pool, _next_try(pool, turn.now_s))
    _trouble_changed(turn.state)


def machine_lost(turn: Turn, machine: Machine, reason: str) -> None:
    """A ready machine is gone, and nobody has asked for that."""
    pool = turn.state.pools.get(machine.pool)
    if pool is None:
        return
    if turn.now_s - machine.joined_s >= SHORT_LIFE_S:
        pool.lived()
    elif _has_failed(turn, pool, machine, f"machine {machine.machine_id} died young: {reason}"):
        if pool.failures > 1:
            _tell(turn, pool, _next_try(pool, turn.now_s))
        _trouble_changed(turn.state)


def _has_failed(turn: Turn, pool: Pool, machine: Machine, reason: str) -> bool:
    """Count the failure; whether a wave of them has just begun. One that has come up since the last wave, and stays, ends the row."""
    if pool.failures and machine.requested_s > pool.wave_s:
        others = turn.state.machines.values()
        if any(
            each.pool == machine.pool
            and each.state is MachineState.READY
            and each is not machine
            and pool.wave_s < each.joined_s <= turn.now_s - SHORT_LIFE_S
            for each in others
        ):
            pool.lived()
    return pool.failed(machine, reason, turn.now_s)


def _next_try(pool: Pool, now_s: float) -> str:
    if pool.is_hopeless:
        return f"{pool.failures} boots in a row came to nothing; no more are tried: {pool.problem}"
    return f"a boot failed, the next one is tried in {pool.retry_at_s - now_s:.2f} s: {pool.problem}"


def _tell(turn: Turn, pool: Pool, text: str) -> None:
    turn.state.commands.append(NotePool(pool.record.name, text))


def _trouble_changed(state: State) -> None:
    """What can never be had may have changed, and what is to be done now."""
    state.verdicts.clear()
    state.is_placement_due = state.is_plan_due = True


# ---- growing and shrinking ----
def replan(turn: Turn) -> None:
    """Carry out the plan, if it is due."""
    state = turn.state
    if turn.now_s < state.planned_s + PLAN_EVERY_S:
        soon_s = state.planned_s + PLAN_EVERY_S
        if state.replan_s != soon_s:
            state.replan_s = soon_s
            state.set_timer(soon_s, SCALE, "")
        return
    state.is_plan_due = False
    state.planned_s = turn.now_s
    if state.plan_timer_s <= turn.now_s:
        state.plan_timer_s = inf  # else it is in the heap, and looks again then
    pools = list(state.pools.values())
    for pool in pools:
        pool.note_start()
    demand = demand_of(state)
    for pool, wanted in zip(pools, plan([pool.load(turn.now_s) for pool in pools], demand), strict=True):
        if short_by := pool.take_shortage():
            text = f"{pool.ready + short_by} machines are wanted, {pool.ready} can be had; going on with {pool.ready}"
            _tell(turn, pool, f"{text}: {pool.problem}")
        if not wanted.grow and not pool.coming:
            pool.forget_trouble(turn.now_s)
        _shrink(turn, pool, wanted.spare)
        for machine in list(pool.asleep)[-wanted.wake :] if wanted.wake else ():
            wake(turn, machine, "work waits")
        if not state.is_budget_spent:
            _grow(turn, pool, wanted.grow)
        due_s = pool.next_due_s(turn.now_s)
        if due_s <= turn.now_s:  # idle for long, and needed as a spare: looked at again when something changes
            due_s = inf
        if due_s < inf:
            _wake(state, due_s)


def demand_of(state: State) -> dict[Key, int]:
    """What waits for room and would go to a new machine, if there were one."""
    demand: dict[Key, int] = {
        key: queue.live
        for key, queue in state.queues.by_key.items()
        if not isinstance(key, Want) or not (key.machine_id or key.group_id)
    }
    for group in state.groups.waiting:
        is_alone = group.record.strategy == "STRICT_SPREAD"
        for shape in group.lacking:
            key = Want(shape, is_alone=True) if is_alone else shape
            demand[key] = demand.get(key, 0) + 1
    return demand


def _grow(turn: Turn, pool: Pool, count: int) -> None:
    state, record = turn.state, pool.record
    for _ in range(count):
        machine_id = MachineId(f"m-{state.machine_order + 1}")
        turn.record(
            f.MachineAdded(
                machine_id, record.shape, state.provider, turn.now_s, record.name, record.is_single_use, record.labels
            )
        )
        turn.record(f.MachineMoved(machine_id, MachineState.CREATING, ""))


def _shrink(turn: Turn, pool: Pool, spare: int) -> None:
    for machine in list(pool.idle_too_long(turn.now_s))[:spare] if spare else ():
        if pool.record.suspends_idle and may_sleep(machine):
            begin(turn, machine, "idle")
            continue
        turn.record(f.MachineMoved(machine.machine_id, MachineState.DRAINING, "idle"))


def _wake(state: State, at_s: float) -> None:
    if at_s < state.plan_timer_s:
        state.plan_timer_s = at_s
        state.set_timer(at_s, SCALE, "")


POOL_EVENTS: dict[type[Any], Callable[[Turn, Any], None]] = {
    e.PoolsConfigured: _configured,
    e.MachinesWanted: _machines_wanted,
    e.BudgetChanged: _budget,
}
