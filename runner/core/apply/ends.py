"""What the end of an attempt or a task means for its values, its inputs and, when it made one, its actor."""

from __future__ import annotations

from dataclasses import replace

from runner.core.actors import ActorState
from runner.core.commands import Command, FreeSegment, NoteObject, NotifyItems, NotifyReady
from runner.core.objects import Object, ObjectState
from runner.core.state import State
from runner.core.task import Task, TaskState
from runner.core.values import FailureKind, FailureRecord, TaskRecord, ValueRecord
from runner.ids import return_id

# A settled task keeps its arguments only while that costs less than dropping them.
_PAYLOAD_KEPT_BYTES = 1024


def settle_returns(state: State, task: Task, values: tuple[ValueRecord, ...], failure: FailureRecord | None) -> None:
    """Its returns are final: values where there are any, else the failure."""
    record = task.record
    for index in range(record.num_returns):
        object_id = return_id(record.task_id, index)
        obj = state.objects.by_id.get(object_id)
        value = values[index] if index < len(values) else None
        if obj is None or obj.state is not ObjectState.PENDING:  # it ran again, and this one was not missed
            if value is not None and value.segment is not None:
                state.commands.append(FreeSegment(object_id, value.segment))
            continue
        if value is None and failure is None:
            text = f"task {record.task_id} returned {len(values)} values where {record.num_returns} were expected"
            failure = FailureRecord(FailureKind.OBJECT_LOST, text, b"", record.task_id, record.name, task.attempt)
        state.objects.settle(obj, value, None if value is not None else failure)
        if obj.subscribers is not None:
            announce(state.commands, obj)
        if value is not None and obj.dependents is not None:
            feed_dependents(state, obj.dependents)
            obj.dependents = None
        if not obj.holders and not obj.pins and not _is_kept(record, obj):
            state.objects.free_if_unused(obj)
        if task.reruns:
            state.commands.append(NoteObject(object_id))
    if task.stream is not None and task.stream.is_open:
        state.commands.append(NotifyItems(record.client_id, record.task_id, task.stream.stored, (), True))


def _is_kept(record: TaskRecord, obj: Object | None) -> bool:
    """A run's failure or small result is kept for who asks later; one that is large, or holds refs, only if the run outlives its client."""
    if obj is None or not record.is_run or record.actor is not None:
        return False
    return obj.value is None or record.detached or (obj.value.segment is None and not obj.value.contained)


def announce(commands: list[Command], obj: Object) -> None:
    """Tell those who asked that the object is final."""
    subscribers = obj.subscribers or ()
    commands += [NotifyReady(client_id, obj.object_id, obj.value, obj.failure) for client_id in subscribers]
    obj.subscribers = None


def feed_dependents(state: State, dependents: list[Task]) -> None:
    """One of their inputs is there."""
    for task in dependents:
        if task.state is TaskState.WAITING:
            task.missing -= 1
            if not task.missing:
                state.enqueue(task)


def release_inputs(state: State, task: Task, *, may_rerun: bool = False) -> None:
    """It is settled and needs its arguments and its function no longer, or only if it runs again."""
    record = task.record
    owner = state.clients.get(task.owner_id)
    if owner is not None:
        owner.tasks.pop(record.task_id, None)
    if record.parent is not None:
        parent = state.tasks.get(record.parent[0])
        if parent is not None and parent.children is not None:
            parent.children.pop(record.task_id, None)
    if record.wishes is not None and record.wishes.group_id in state.groups.by_id:
        state.groups.by_id[record.wishes.group_id].tasks.pop(record.task_id, None)
    pinned, task.pinned = task.pinned, ()
    if may_rerun:
        task.lineage = pinned
        state.objects.keep_lineage(pinned)
    else:
        if record.is_run:  # its record stays, and what it came to with it
            returns = (return_id(record.task_id, index) for index in range(record.num_returns))
            kept = [object_id for object_id in returns if _is_kept(record, state.objects.by_id.get(object_id))]
            task.pinned = state.objects.pin(kept)
        if pinned:
            state.objects.unpin(pinned)
        state.release_function(task)
        if len(record.payload) > _PAYLOAD_KEPT_BYTES:
            task.record = replace(record, payload=b"")
    state.sweep()
    if not task.live_returns:
        state.forget_if_over(task)
        state.sweep()


# ---- actors ----
def restart_actor(state: State, task: Task, why: str) -> None:
    """Its incarnation is over, and another is to come."""
    actor = state.actors.by_id[task.task_id]
    actor.is_restart_wanted = False
    if actor.state is not ActorState.PENDING:
        text = f"actor {task.task_id} ({task.record.name}) is restarted: {why}"
        failure = FailureRecord(FailureKind.ACTOR_UNAVAILABLE, text, b"", task.task_id, task.record.name, task.attempt)
        state.move_actor(task, ActorState.RESTARTING, failure)


def end_actor(state: State, task: Task) -> FailureRecord:
    """It has ended without fault; returns what calls of it fail with from now on."""
    why = "no handle of it was left, or the session that made it has ended"
    if not task.is_cancelling:
        why = "it called runner.exit_actor()"
    text = f"actor {task.task_id} ({task.record.name}) has ended: {why}"
    failure = FailureRecord(FailureKind.ACTOR_DIED, text, b"", task.task_id, task.record.name, task.attempt)
    state.move_actor(task, ActorState.DEAD, failure)
    return failure
