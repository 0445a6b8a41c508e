"""Decisions about placement groups: when they stand, what they lose, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import facts as f
from runner.core.clients import Client
from runner.core.failures import failure_of, member_failure
from runner.core.feasibility import Kind, describe_kinds, kinds, why_never
from runner.core.gangs import Room, never_fits, plan
from runner.core.group_events import GroupRemovalRequested, GroupRequested
from runner.core.groups import Group, GroupState
from runner.core.machine import Machine
from runner.core.resources import Resources, describe
from runner.core.settle import settle
from runner.core.state import GROUP, State
from runner.core.task import Task
from runner.core.turn import Turn
from runner.core.values import CPU, FailureKind, FailureRecord
from runner.core.wants import Want

# Room is looked for at most this often: a burst of small changes is one change.
TRY_EVERY_S = 0.02
_BUNDLES_SHOWN = 5


# ---- what people say ----
def _requested(turn: Turn, event: GroupRequested) -> None:
    state, record = turn.state, event.group
    if record.group_id in state.groups.by_id or record.client_id not in state.clients:
        return
    turn.record(f.GroupAdded(record, turn.now_s))
    group = state.groups.by_id[record.group_id]
    if not _fail_if_hopeless(turn, group):
        _try(turn, group)


def _removed(turn: Turn, event: GroupRemovalRequested) -> None:
    group = turn.state.groups.by_id.get(event.group_id)
    if group is not None and not group.is_over():
        _remove(turn, group, "was removed")


def remove_groups_of(turn: Turn, client: Client) -> None:
    """Its session has ended."""
    for group in list(client.groups.values()):
        _remove(turn, group, "was removed because the session that made it has ended")


def _remove(turn: Turn, group: Group, why: str) -> None:
    failure = FailureRecord(FailureKind.GROUP_REMOVED, f"{group.story()} {why}")
    _end(turn, group, GroupState.REMOVED, failure)


def _end(turn: Turn, group: Group, state: GroupState, failure: FailureRecord) -> None:
    turn.record(f.GroupEnded(group.group_id, state, failure))
    for task in list(group.tasks.values()):
        end_member(turn, task, group)


def ends_at_once(turn: Turn, task: Task) -> bool:
    """End a new task whose placement group is over, or not known."""
    wishes = task.record.wishes
    if wishes is None or not wishes.group_id:
        return False
    group = turn.state.groups.by_id.get(wishes.group_id)
    if group is None:
        text = f"task {task.task_id} is in placement group {wishes.group_id}, which is not known: "
        text += "it was removed long ago, or is another cluster's"
        settle(turn, task, failure_of(task, FailureKind.GROUP_REMOVED, text))
        return True
    if group.is_over():
        end_member(turn, task, group)
    return group.is_over()


def end_member(turn: Turn, task: Task, group: Group) -> None:
    """A task of a group that is over: it ends now, or as soon as its process has."""
    if task.is_settled():
        return
    if task.slot is None:
        settle(turn, task, member_failure(task, group))
    elif not task.is_cancel_forced:
        turn.record(f.CancelMarked(task.task_id, True, True))


# ---- room ----
def place_groups(turn: Turn) -> None:
    """Look for room for the groups that wait for it, in their order. Before tasks: what stands alone can stand elsewhere."""
    state, groups = turn.state, turn.state.groups
    if turn.now_s < groups.tried_s + TRY_EVERY_S:
        soon_s = groups.tried_s + TRY_EVERY_S
        if groups.retry_s != soon_s:
            groups.retry_s = soon_s
            state.set_timer(soon_s, GROUP, "")
        return
    groups.tried_s = turn.now_s
    for group in list(groups.waiting):
        if not _fail_if_hopeless(turn, group):
            _try(turn, group)


def _try(turn: Turn, group: Group) -> None:
    found = plan(group.record.strategy, group.missing(), _rooms(turn.state, group))
    if found.places:
        places = tuple((index, machine.machine_id, gpu_ids) for index, machine, gpu_ids in found.places)
        turn.record(f.GroupPlaced(group.group_id, places, turn.now_s))
    elif group.lacking != found.lacking:
        group.lacking = found.lacking
        turn.state.is_plan_due = True


def _rooms(state: State, group: Group) -> list[Room[Machine]]:
    counts: dict[Machine, int] = {}
    for reservation in group.standing():
        counts[reservation.machine] = counts.get(reservation.machine, 0) + 1
    able = [machine for machine in state.machines.values() if machine.can_take(())]
    return [Room(machine, machine.order, _free_for_long(machine), counts.get(machine, 0)) for machine in able]


def _free_for_long(machine: Machine) -> Resources:
    if not machine.lent:
        return machine.resources
    free = machine.resources.copy()
    free.free[CPU] -= machine.lent
    return free


def _fail_if_hopeless(turn: Turn, group: Group) -> bool:
    state = turn.state
    if not state.is_fleet_known:
        return False
    key = Want((), group_id=group.group_id, is_alone=True)  # of no task: the verdict on the group itself
    verdict = state.verdicts.get(key)
    if verdict is None:
        verdict = state.verdicts[key] = _can_ever_stand(group, kinds(state))
    if not verdict:
        text = f"{group.story()}, {why_group_never(state, group)}"
        _end(turn, group, GroupState.FAILED, FailureRecord(FailureKind.UNSCHEDULABLE, text))
    return not verdict


def _can_ever_stand(group: Group, able: list[Kind]) -> bool:
    """Whether the cluster could hold it with nothing else on it, as large as it may become."""
    rooms: list[Room[int]] = []
    for kind in able:
        for _ in range(min(kind.how_many, len(group.record.bundles))):
            rooms.append(Room(len(rooms), len(rooms), Resources(kind.shape)))
    return bool(plan(group.record.strategy, list(enumerate(group.record.bundles)), rooms).places)


_HOW = {
    "PACK": "at once",
    "SPREAD": "at once",
    "STRICT_PACK": "on one machine",
    "STRICT_SPREAD": "each on a machine of its own",
}


def why_group_never(state: State, group: Group) -> str:
    """For people: what this cluster can never hold."""
    able = kinds(state)
    bundles = group.record.bundles
    for index, shape in enumerate(bundles):
        if never_fits(shape, [kind.shape for kind in able]):
            return f"bundle {index} needs {why_never(state, shape)}"
    shown = "; ".join(describe(shape) for shape in bundles[:_BUNDLES_SHOWN])
    more = f"; and {len(bundles) - _BUNDLES_SHOWN} more" if len(bundles) > _BUNDLES_SHOWN else ""
    return (
        f"{group.record.strategy}, needs {len(bundles)} bundles ({shown}{more}) {_HOW[group.record.strategy]}, "
        f"which this cluster can never hold; it has {'; '.join(describe_kinds(able))}"
    )


# ---- what goes wrong ----
def lose_bundles(turn: Turn, machine: Machine) -> None:
    """The machine takes nothing new: what is reserved there must stand elsewhere. Attempts that run there end there."""
    lost: dict[Group, list[int]] = {}
    for reservation in machine.reservations:
        if not reservation.is_over:
            lost.setdefault(reservation.group, []).append(reservation.index)
    for group, bundles in lost.items():
        turn.record(f.BundlesLost(group.group_id, tuple(bundles), turn.now_s))


def deadline_due(turn: Turn, group_id: str, _due_s: float) -> None:
    """A timer has fired."""
    if not group_id:
        turn.state.is_placement_due = True
        return
    group = turn.state.groups.by_id.get(group_id)
    if group is None or group.due_s is None or group.due_s > turn.now_s or group.is_over():
        return
    lacking = ", ".join(describe(shape) for shape in group.lacking[:_BUNDLES_SHOWN])
    text = (
        f"{group.story()} did not stand within its deadline of {group.record.deadline_s:g} s: there was no room for "
        f"{lacking or 'it'}; give it longer, ask for less, or add machines"
    )
    _end(turn, group, GroupState.FAILED, FailureRecord(FailureKind.UNSCHEDULABLE, text))


GROUP_EVENTS: dict[type[Any], Callable[[Turn, Any], None]] = {
    GroupRequested: _requested,
    GroupRemovalRequested: _removed,
}
