"""Facts about placement groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import facts as f
from runner.core.groups import Group, GroupState
from runner.core.reservation import Reservation
from runner.core.state import GROUP, State
from runner.core.task import NO_CLIENT
from runner.core.values import GroupRecord
from runner.ids import ClientId


def _add(state: State, fact: f.GroupAdded) -> None:
    record, groups = fact.group, state.groups
    group = Group(record, groups.order, _owner_of(state, record), fact.now_s)
    groups.order += 1
    state.verdicts.clear()
    groups.by_id[record.group_id] = group
    groups.waiting[group] = None
    owner = state.clients.get(group.owner_id)
    if owner is not None:
        owner.groups[record.group_id] = group
    _set_deadline(state, group, fact.now_s)


def _owner_of(state: State, record: GroupRecord) -> ClientId:
    """As of tasks: what an executor makes ends with the client for whom it works."""
    parent = None if record.parent is None else state.tasks.get(record.parent[0])
    if record.detached:
        return NO_CLIENT
    return record.client_id if parent is None else parent.owner_id


def _set_deadline(state: State, group: Group, now_s: float) -> None:
    if group.record.deadline_s > 0:
        group.due_s = now_s + group.record.deadline_s
        state.set_timer(group.due_s, GROUP, group.group_id)


def _place(state: State, fact: f.GroupPlaced) -> None:
    group = state.groups.by_id[fact.group_id]
    for index, machine_id, gpu_ids in fact.places:
        machine = state.machines[machine_id]
        shape = group.record.bundles[index]
        reservation = group.places[index] = Reservation(group, index, machine, shape, gpu_ids, group.made)
        group.made += 1
        machine.resources.take(shape, gpu_ids)
        machine.reservations[reservation] = None
        machine.has_served = True
        state.dirty_machines[machine] = None
        state.dirty_bundles[reservation] = None
        state.note_idleness(machine)
    group.move(GroupState.CREATED)
    group.attempt += 1
    group.due_s, group.lacking = None, ()
    del state.groups.waiting[group]
    state.is_placement_due = True


def _lose(state: State, fact: f.BundlesLost) -> None:
    group = state.groups.by_id[fact.group_id]
    for index in fact.bundles:
        _let_go(state, group, index)
    if group.state is GroupState.CREATED:
        group.move(GroupState.RESCHEDULING)
        state.groups.waiting[group] = None
        _set_deadline(state, group, fact.now_s)
    state.is_placement_due = True


def _end(state: State, fact: f.GroupEnded) -> None:
    group = state.groups.by_id[fact.group_id]
    group.move(GroupState(fact.state))
    group.failure, group.lacking, group.due_s = fact.failure, (), None
    for index in range(len(group.places)):
        _let_go(state, group, index)
    owner = state.clients.get(group.owner_id)
    if owner is not None:
        owner.groups.pop(group.group_id, None)
    state.groups.end(group)
    state.verdicts.clear()
    state.is_placement_due = True


def _let_go(state: State, group: Group, index: int) -> None:
    reservation, group.places[index] = group.places[index], None
    if reservation is not None:
        reservation.is_over = True
        state.dirty_bundles[reservation] = None
        if not reservation.slots:
            state.give_bundle_back(reservation)


GROUP_FACTS: dict[type[Any], Callable[[State, Any], None]] = {
    f.GroupAdded: _add,
    f.GroupPlaced: _place,
    f.BundlesLost: _lose,
    f.GroupEnded: _end,
}
