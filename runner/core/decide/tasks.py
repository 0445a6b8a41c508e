"""Decisions about submissions, cancellations and the reports of agents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import events as e
from runner.core import facts as f
from runner.core.commands import FreeSegment, ReplyCheckpoint, ResumeAttempt
from runner.core.decide.actors import is_refused
from runner.core.decide.groups import ends_at_once
from runner.core.decide.suspend import wake_to_tell
from runner.core.feasibility import is_feasible, unschedulable
from runner.core.lineage import is_starved, rebuild
from runner.core.resources import only_cpus
from runner.core.settle import cancel, cancel_children, dependents, end_attempt, failure_of, requeue, settle_if_doomed
from runner.core.settle import settle as settle_task
from runner.core.state import State
from runner.core.task import Block, Task, TaskState
from runner.core.turn import Turn
from runner.core.values import FailureKind
from runner.ids import ExecutorId, return_id


def _submit(turn: Turn, event: e.TaskSubmitted) -> None:
    state, record = turn.state, event.task
    if record.task_id in state.tasks or record.client_id not in state.clients:
        return
    if is_refused(turn, record):
        return
    turn.record(f.TaskAdded(record, event.subscribe))
    task = state.tasks[record.task_id]
    if task.function is None:
        text = f"task {record.task_id}: its function {record.function_id} was never registered"
        settle_task(turn, task, failure_of(task, FailureKind.SETUP, text))
    elif record.wishes is not None and ends_at_once(turn, task):
        return
    elif not is_feasible(state, task.key):
        settle_task(turn, task, unschedulable(state, task))
    elif record.parent is not None and _is_orphan(state, task):
        cancel(turn, [task], force=False, recursive=True)
    elif task.missing:
        if not settle_if_doomed(turn, task):
            rebuild(turn, record.dependencies)


def _is_orphan(state: State, task: Task) -> bool:
    """An attempt that is over, or is cancelled and has yet to notice, has nothing to submit."""
    assert task.record.parent is not None
    if task.record.detached:
        return False
    parent_id, attempt = task.record.parent
    parent = state.tasks.get(parent_id)
    if parent is None or parent.slot is None or parent.attempt != attempt:
        return True
    return parent.is_cancelling and parent.is_cancel_recursive


def _cancel(turn: Turn, event: e.CancelRequested) -> None:
    task = turn.state.tasks.get(event.task_id)
    if task is not None:
        cancel(turn, [task], force=event.force, recursive=event.recursive)
        wake_to_tell(turn, task)


# ---- reports ----
def _started(turn: Turn, event: e.AttemptStarted) -> None:
    task = turn.state.current(event.machine_id, event.generation, event.task_id, event.attempt)
    if task is not None and task.state is TaskState.ASSIGNED:
        turn.record(f.AttemptBegan(event.task_id, event.executor_id, turn.now_s))


def _succeeded(turn: Turn, event: e.AttemptSucceeded) -> None:
    # A result that overtakes a cancellation counts: the work is done.
    task = turn.state.current(event.machine_id, event.generation, event.task_id, event.attempt)
    if task is None:
        _free_values(turn.state, event)
        return
    # An actor that ends has no value, and neither has a return that is missing: who waits for it fails.
    is_short = task.record.actor is not None or len(event.values) < task.record.num_returns
    waiting = dependents(turn, task) if is_short else ()
    turn.record(f.AttemptDone(event.task_id, event.values, event.duration_s, turn.now_s))
    for dependent in waiting:
        if dependent.state is TaskState.WAITING:
            settle_if_doomed(turn, dependent)


def _free_values(state: State, event: e.AttemptSucceeded) -> None:
    """A result that comes too late lies in segments that nobody will ever name; one that is told again does not."""
    for index, value in enumerate(event.values):
        if value.segment is not None:
            object_id = return_id(event.task_id, index)
            obj = state.objects.by_id.get(object_id)
            if obj is None or obj.value is None or obj.value.segment != value.segment:
                state.commands.append(FreeSegment(object_id, value.segment))


def _failed(turn: Turn, event: e.AttemptFailed) -> None:
    task = turn.state.current(event.machine_id, event.generation, event.task_id, event.attempt)
    if task is None:
        return
    if event.failure.kind is FailureKind.OBJECT_LOST and is_starved(turn, task):
        requeue(turn, task, f"attempt {event.attempt} on {event.machine_id}: {event.failure.message}")
    else:
        end_attempt(turn, task, event.failure, is_retryable=event.retryable)


def _returned(turn: Turn, event: e.AttemptReturned) -> None:
    task = turn.state.current(event.machine_id, event.generation, event.task_id, event.attempt)
    if task is None:
        return
    if task.is_cancelling:
        requeue(turn, task, "")
    else:
        turn.record(f.AttemptGivenBack(event.task_id, False))
        cancel_children(turn, task, event.attempt)


def _blocked(turn: Turn, event: e.AttemptBlocked) -> None:
    task = turn.state.current(event.machine_id, event.generation, event.task_id, event.attempt)
    if task is None or task.slot is None or task.slot.tasks[0] is not task or task.block is not Block.NONE:
        return
    if task.state is TaskState.ASSIGNED:
        turn.record(f.AttemptBegan(event.task_id, ExecutorId(""), turn.now_s))
    # What was sent behind it after the agent looked; backwards, so that the queue's order stays.
    for behind in task.slot.tasks[:0:-1]:
        if behind.is_cancelling:
            requeue(turn, behind, "")
        else:
            turn.record(f.AttemptGivenBack(behind.task_id, True))
    turn.record(f.AttemptPaused(event.task_id))


def _unblocked(turn: Turn, event: e.AttemptUnblocked) -> None:
    task = turn.state.current(event.machine_id, event.generation, event.task_id, event.attempt)
    if task is None or task.machine is None:
        return
    if task.block is Block.NONE:  # it has its CPUs: a repeat, or the agent's block never came to us
        turn.state.commands.append(ResumeAttempt(event.machine_id, event.generation, event.task_id, event.attempt))
    elif task.block is Block.BLOCKED:
        place = task.machine if task.slot is None else task.slot.place
        if not place.awake and place.resources.fits(only_cpus(task.shape)):
            turn.record(f.AttemptResumed(event.task_id))
        else:
            turn.record(f.AttemptAwoke(event.task_id))


def _checkpointed(turn: Turn, event: e.CheckpointSaved) -> None:
    task = turn.state.current(event.machine_id, event.generation, event.task_id, event.attempt)
    if task is not None and task.checkpoint != event.checkpoint:
        turn.record(f.CheckpointCommitted(event.task_id, event.checkpoint))
        return
    reason = "" if task is not None else f"attempt {event.attempt} is no longer the current one"
    turn.state.commands.append(
        ReplyCheckpoint(
            event.machine_id,
            event.generation,
            event.task_id,
            event.attempt,
            event.checkpoint.step,
            task is not None,
            reason,
        )
    )


TASK_EVENTS: dict[type[Any], Callable[[Turn, Any], None]] = {
    e.TaskSubmitted: _submit,
    e.CancelRequested: _cancel,
    e.AttemptStarted: _started,
    e.AttemptSucceeded: _succeeded,
    e.AttemptFailed: _failed,
    e.AttemptReturned: _returned,
    e.AttemptBlocked: _blocked,
    e.AttemptUnblocked: _unblocked,
    e.CheckpointSaved: _checkpointed,
}
