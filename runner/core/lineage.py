"""Values that are lost with the machine that had them: made again by their task, or failed with the reason.

Nothing is made again before somebody needs it: a session that asks for it, a task that takes it, a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from runner.core import events as e
from runner.core.commands import FreeSegment
from runner.core.facts import InputsMissed, ObjectLost, ObjectMoved, TaskRerun
from runner.core.machine import MachineState
from runner.core.objects import Object, ObjectState
from runner.core.settle import fail_all, settle_if_doomed
from runner.core.suspend_facts import SuspendCalledOff
from runner.core.task import Task
from runner.core.turn import Turn
from runner.core.values import FailureKind, FailureRecord
from runner.ids import MachineId, ObjectId


# ---- losing ----
def lose_values(turn: Turn, machine_id: MachineId, reason: str) -> None:
    """The machine is gone, and what only it had."""
    there = turn.state.objects.volatile.get(machine_id)
    for object_id in sorted(there or ()):
        lose(turn, object_id, f"machine {machine_id}, which alone had it, was lost ({reason})")


def lose(turn: Turn, object_id: ObjectId, why: str) -> None:
    """The value is gone; where nothing can make it again, those who need it fail."""
    obj = turn.state.objects.by_id.get(object_id)
    if obj is None or obj.state not in (ObjectState.READY, ObjectState.EVICTED):
        return
    verdict = _why_for_good(obj)
    if not verdict:
        turn.record(ObjectLost(object_id, why, None))
        return
    dependents = list(obj.dependents or ())
    task = obj.maker
    text = f"object {object_id} is lost: {why}; it cannot be made again, because {verdict}"
    failure = FailureRecord(FailureKind.OBJECT_LOST, text)
    if task is not None:
        failure = failure._replace(task_id=task.task_id, task_name=task.record.name, attempt=task.attempt)
    turn.record(ObjectLost(object_id, why, failure))
    fail_all(turn, dependents, failure)


def lose_strays(turn: Turn, object_ids: Iterable[ObjectId]) -> None:
    """New values may be said to lie on a machine that is gone by now."""
    state = turn.state
    for object_id in object_ids:
        obj = state.objects.by_id.get(object_id)
        segment = None if obj is None or obj.value is None else obj.value.segment
        if segment is None or not segment.machine_id:
            continue
        machine = state.machines.get(segment.machine_id)
        if machine is not None and machine.is_live:
            state.dirty_machines[machine] = None  # it may be about to end
        else:
            lose(turn, object_id, f"machine {segment.machine_id}, which alone had it, was gone when it was told")


def _why_for_good(obj: Object) -> str:
    """Why nothing can make its value again; empty: its task can."""
    task = obj.maker
    if task is None:
        return "it was put, not returned by a task"
    record = task.record
    if task.lineage is not None:
        return ""
    if record.is_streaming or record.actor is not None:
        return "it was yielded by a generator, or made by an actor"
    if record.is_run:
        return "runs are not run again for a result"
    if record.max_retries == 0:
        return "its task has max_retries=0"
    if 0 <= record.max_retries <= task.retries_used:
        return f"the {record.max_retries} retries of its task are used up"
    if task.is_cancelling:
        return "its task was cancelled"
    return "its task failed when it ran again"


# ---- making again ----
def rebuild(turn: Turn, object_ids: Iterable[ObjectId]) -> None:
    """These are needed: run their tasks again, and before them the tasks of lost arguments (chains are long)."""
    by_id = turn.state.objects.by_id
    pending = list(object_ids)[::-1]
    while pending:
        obj = by_id.get(pending.pop())
        if obj is None or obj.state is not ObjectState.EVICTED:
            continue
        task = obj.maker
        if task is None or task.lineage is None:
            lose(turn, obj.object_id, obj.gone)
            continue
        turn.record(TaskRerun(task.task_id))
        if task.missing and not settle_if_doomed(turn, task):
            pending.extend(task.record.dependencies)


def is_supplied(turn: Turn, task: Task) -> bool:
    """Whether all inputs of a queued task are still there. If not it waits for them again, or fails."""
    by_id = turn.state.objects.by_id
    for object_id in task.record.dependencies:
        if by_id[object_id].value is None:
            break
    else:
        return True
    turn.record(InputsMissed(task.task_id))
    if not settle_if_doomed(turn, task):
        rebuild(turn, task.record.dependencies)
    return False


def is_starved(turn: Turn, task: Task) -> bool:
    """Whether an argument of a running attempt is gone but can be made again: it failed for no fault of its own."""
    by_id = turn.state.objects.by_id
    states = {by_id[object_id].state for object_id in task.record.dependencies}
    return bool(states & {ObjectState.EVICTED, ObjectState.PENDING}) and ObjectState.FAILED not in states


def _wanted(turn: Turn, event: e.ObjectWanted) -> None:
    rebuild(turn, (event.object_id,))


# ---- moving ----
def _brought(turn: Turn, event: e.ObjectBrought) -> None:
    state, object_id = turn.state, event.object_id
    obj = state.objects.by_id.get(object_id)
    old = None if obj is None or obj.value is None else obj.value.segment
    is_it = obj is not None and old is not None and old.path == event.path and bool(old.machine_id)
    if event.value is None:
        machine = None if old is None else state.machines.get(old.machine_id)
        if not is_it or machine is None or object_id not in machine.emptying:
            return
        if machine.state is MachineState.SUSPENDING:
            text = f"object {object_id} is nowhere else and could not be handed over: {event.why}"
            turn.record(SuspendCalledOff(machine.machine_id, text))
        else:  # nobody could wait for it
            lose(turn, object_id, f"machine {machine.machine_id} had to end and could not hand it over: {event.why}")
    elif is_it and obj is not None and obj.value is not None:
        turn.record(ObjectMoved(object_id, event.value._replace(contained=obj.value.contained)))
    elif event.value.segment is not None and (obj is None or obj.value is None or old != event.value.segment):
        state.commands.append(FreeSegment(object_id, event.value.segment))  # too late


def _kept(turn: Turn, event: e.ValuesKept) -> None:
    by_id = turn.state.objects.by_id
    for object_id, segment in event.segments:
        obj = by_id.get(object_id)
        if obj is None or obj.value is None or obj.value.segment is None or obj.value.segment.path != segment.path:
            turn.state.commands.append(FreeSegment(object_id, segment))


LINEAGE_EVENTS: dict[type[Any], Callable[[Turn, Any], None]] = {
    e.ObjectWanted: _wanted,
    e.ObjectBrought: _brought,
    e.ValuesKept: _kept,
}
