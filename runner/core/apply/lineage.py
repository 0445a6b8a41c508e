"""Facts about values that are lost, made again or moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import facts as f
from runner.core.apply.ends import announce
from runner.core.commands import NoteObject
from runner.core.objects import ObjectState
from runner.core.state import State
from runner.core.task import NO_CLIENT, Task, TaskState
from runner.core.values import ValueRecord
from runner.ids import return_id


def await_inputs(state: State, task: Task) -> int:
    """How many dependencies are not there. Failed and unknown ones count: they settle the task next."""
    missing = 0
    for object_id in task.record.dependencies:
        obj = state.objects.by_id.get(object_id)
        if obj is None or obj.value is None:
            missing += 1
            if obj is not None:
                if obj.dependents is None:
                    obj.dependents = []
                obj.dependents.append(task)
    return missing


def may_rerun(task: Task, values: tuple[ValueRecord, ...]) -> bool:
    """Whether it is to be kept runnable after it has succeeded: something it made can be lost, and made again."""
    if not any(value.segment is not None and value.segment.machine_id for value in values):
        return False
    record = task.record
    if record.is_run or record.is_streaming or record.actor is not None or task.is_cancelling:
        return False
    return record.max_retries < 0 or task.retries_used < record.max_retries


def _lose(state: State, fact: f.ObjectLost) -> None:
    obj = state.objects.by_id[fact.object_id]
    state.objects.lose(obj, fact.why, fact.failure)
    if obj.subscribers is not None:
        announce(state.commands, obj)
    state.commands.append(NoteObject(obj.object_id))
    state.objects.free_if_unused(obj)
    state.sweep()


def _relocate(state: State, fact: f.ObjectMoved) -> None:
    state.objects.relocate(state.objects.by_id[fact.object_id], fact.value)
    state.commands.append(NoteObject(fact.object_id))
    state.sweep()


def _rerun(state: State, fact: f.TaskRerun) -> None:
    """No session owns it now: that its submitter ends is no reason to leave others without the value."""
    task = state.tasks[fact.task_id]
    state.move_task(task, TaskState.WAITING)
    task.retries_used += 1
    task.reruns += 1
    task.ended_s = None
    task.owner_id = NO_CLIENT
    task.pinned, task.lineage = task.lineage or (), None
    state.objects.use_lineage(task.pinned)
    for index in range(task.record.num_returns):
        obj = state.objects.by_id.get(return_id(task.task_id, index))
        if obj is not None and obj.state is ObjectState.EVICTED:
            obj.move(ObjectState.PENDING)
            obj.gone = ""
    group = state.group_of(task.record)
    if group is not None and not group.is_over():
        group.tasks[task.task_id] = task
    task.missing = await_inputs(state, task)
    if not task.missing:
        state.enqueue(task)
    state.note_task(task)


def _miss(state: State, fact: f.InputsMissed) -> None:
    task = state.tasks[fact.task_id]
    state.queues.withdraw(task)
    state.move_task(task, TaskState.WAITING)
    task.missing = await_inputs(state, task)


LINEAGE_FACTS: dict[type[Any], Callable[[State, Any], None]] = {
    f.ObjectLost: _lose,
    f.ObjectMoved: _relocate,
    f.TaskRerun: _rerun,
    f.InputsMissed: _miss,
}
