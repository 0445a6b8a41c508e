"""How tasks end without a result: failures, retries, cancellation, and what follows from them for others."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from runner.core.facts import ActorReleased, AttemptRetried, CancelMarked, PromiseEnded, TaskSettled
from runner.core.failures import failure_of as failure_of  # noqa: PLC0414  also for those who settle
from runner.core.failures import member_failure
from runner.core.growth import grow
from runner.core.objects import ObjectState
from runner.core.task import Task, TaskState
from runner.core.turn import Turn
from runner.core.values import CoreConfig, FailureKind, FailureRecord, ValueRecord
from runner.ids import ClientId, ObjectId, TaskId, return_id

_LINE_CHARS_MAX = 500  # of a task's history, which every reader of its failure gets
_KILLS = frozenset({FailureKind.WORKER_CRASHED, FailureKind.OUT_OF_MEMORY})
# The world's fault, not the task's: tried again within `max_retries`.
_SYSTEM_FAULTS = _KILLS | {FailureKind.MACHINE_LOST}
# After these nobody is left to wait for the attempt's children.
_ORPHANING = _SYSTEM_FAULTS | {FailureKind.TIMEOUT}


def settle(
    turn: Turn,
    task: Task,
    failure: FailureRecord,
    *,
    is_cancelled: bool = False,
) -> None:
    """End it with this failure; so do all that wait for its result (without recursion: chains are long)."""
    final = actor_death(task, failure) if task.record.actor is not None else failure
    turn.record(TaskSettled(task.task_id, is_cancelled, final, turn.now_s))
    fail_all(turn, dependents(turn, task), failure)


def fail_all(turn: Turn, waiting: list[Task], failure: FailureRecord) -> None:
    """These wait for what will never be: they fail with it, and so do all that wait for them."""
    pending = waiting[::-1]
    while pending:
        task = pending.pop()
        if task.state is TaskState.WAITING:
            final = actor_death(task, failure) if task.record.actor is not None else failure
            turn.record(TaskSettled(task.task_id, False, final, turn.now_s))
            pending.extend(dependents(turn, task)[::-1])


def end_promise(
    turn: Turn, client_id: ClientId, object_id: ObjectId, value: ValueRecord | None, failure: FailureRecord | None
) -> None:
    """The promised object is final; without a value, all that wait for it fail."""
    waiting = list(turn.state.objects.by_id[object_id].dependents or ())
    turn.record(PromiseEnded(client_id, object_id, value, failure))
    if failure is not None:
        fail_all(turn, waiting, failure)


def actor_death(task: Task, failure: FailureRecord) -> FailureRecord:
    """Why calls of this actor fail from now on: its own name for it, with the cause inside."""
    if failure.kind in (FailureKind.UNSCHEDULABLE, FailureKind.ACTOR_DIED, FailureKind.GROUP_REMOVED):
        return failure
    record = task.record
    who = f"actor {record.task_id} ({record.name})"
    if failure.kind is FailureKind.CANCELLED:
        text = f"{who} was ended: {_why_ended(task)}"
    elif failure.kind is FailureKind.USER:
        text = f"{who} died because its constructor raised: {failure.message}"
    else:
        text = f"{who} died: {failure.message}"
        if record.max_retries >= 0 and failure.kind in _SYSTEM_FAULTS:
            text += f" (max_restarts={record.max_retries})"
    return failure._replace(
        kind=FailureKind.ACTOR_DIED, message=text, task_id=record.task_id, task_name=record.name, attempt=task.attempt
    )


def _why_ended(task: Task) -> str:
    if task.is_cancel_forced:
        return "runner.kill() was called"
    return "no handle of it was left, or the session that made it has ended"


def dependents(turn: Turn, task: Task) -> list[Task]:
    by_id = turn.state.objects.by_id
    returns = (by_id.get(return_id(task.task_id, index)) for index in range(task.record.num_returns))
    return [dependent for obj in returns if obj is not None for dependent in obj.dependents or ()]


def settle_if_doomed(turn: Turn, task: Task) -> bool:
    """End a new task whose inputs can never all be there."""
    by_id = turn.state.objects.by_id
    for object_id in task.record.dependencies:
        obj = by_id.get(object_id)
        if obj is None:
            text = f"task {task.task_id}: its argument {object_id} is not known: it was freed, or never made"
            settle(turn, task, failure_of(task, FailureKind.OBJECT_LOST, text))
            return True
        if obj.state is ObjectState.FAILED and obj.failure is not None:
            settle(turn, task, obj.failure)
            return True
    return False


def end_attempt(
    turn: Turn,
    task: Task,
    failure: FailureRecord,
    *,
    is_retryable: bool = False,
) -> None:
    """The current attempt has failed: retry the task or end it."""
    kind, attempt = failure.kind, task.attempt
    record = task.record
    line = f"attempt {attempt} on {task.last_machine_id}: {failure.message.partition(chr(10))[0][:_LINE_CHARS_MAX]}"
    is_killed = kind in _KILLS
    actor = turn.state.actors.by_id.get(task.task_id)
    if actor is not None and actor.is_restart_wanted and not task.is_cancelling:
        kind = FailureKind.WORKER_CRASHED
        failure = failure._replace(kind=kind, message="runner.kill(no_restart=False) was called")
        line = f"attempt {attempt} on {task.last_machine_id}: {failure.message}"
    if task.is_cancelling or kind is FailureKind.CANCELLED:
        if kind is not FailureKind.CANCELLED:
            failure = cancelled(task)
        if task.is_cancel_forced and record.actor is None:
            failure = failure._replace(kind=FailureKind.KILLED)
        _settle_stopped(turn, task, failure)
    elif _may_retry(turn.state.config, task, kind, is_retryable):
        if kind is FailureKind.OUT_OF_MEMORY:
            line += grow(turn, task, failure.used_bytes)
        until_s = backoff_until_s(turn.state.config, task.task_id, task.retries_used, turn.now_s)
        turn.record(AttemptRetried(task.task_id, line, True, is_killed, until_s))
    else:
        history = (*task.lines, line) if task.lines or kind is not FailureKind.USER else ()
        if is_killed and task.kills + 1 >= turn.state.config.poison_after and actor is None:
            history += (f"it has killed {task.kills + 1} executors and is not tried again",)
        final = failure._replace(history=history, task_id=record.task_id, task_name=record.name, attempt=attempt)
        settle(turn, task, final)
    if kind in _ORPHANING or (task.is_cancelling and task.is_cancel_recursive):
        cancel_children(turn, task, attempt)


def _settle_stopped(turn: Turn, task: Task, failure: FailureRecord) -> None:
    """It was stopped: by somebody who cancelled it, or because its placement group is over."""
    group = turn.state.group_of(task.record)
    if group is not None and group.is_over():
        settle(turn, task, member_failure(task, group))
    else:
        settle(turn, task, failure, is_cancelled=True)


def _may_retry(config: CoreConfig, task: Task, kind: FailureKind, is_retryable: bool) -> bool:
    record = task.record
    if 0 <= record.max_retries <= task.retries_used:
        return False
    if kind in _KILLS and task.kills + 1 >= config.poison_after and record.actor is None:
        return False
    return kind in _SYSTEM_FAULTS or (kind is FailureKind.USER and record.retry_user_errors and is_retryable)


def backoff_until_s(config: CoreConfig, task_id: TaskId, retries_used: int, now_s: float) -> float | None:
    """None for the first retry: most faults are gone at once. Later ones wait, doubling.

    Tasks that failed together do not come back together: each wait is shortened by up to half, by how much follows from
    the task's id and the number of the retry.
    """
    if retries_used == 0:
        return None
    doublings = min(retries_used - 1, 30)
    whole_s = min(config.backoff_first_s * 2.0**doublings, config.backoff_max_s)
    return now_s + whole_s * (1 - _share(f"{task_id} {retries_used}") / 2)


def _share(text: str) -> float:
    """A number from 0 to 1 that looks random and is the same in every process, for replays and simulations."""
    return crc32(text.encode()) / 2**32


def requeue(turn: Turn, task: Task, line: str) -> None:
    """Take the attempt back without charge: not the task's fault, nor the world's. Its children have nobody left."""
    attempt = task.attempt
    if task.is_cancelling:
        _settle_stopped(turn, task, cancelled(task))
    else:
        turn.record(AttemptRetried(task.task_id, line, False, False, None))
    cancel_children(turn, task, attempt)


def cancel(turn: Turn, tasks: Iterable[Task], *, force: bool, recursive: bool) -> None:
    """Settle those that are not on a machine; ask the agents to stop the others."""
    pending = list(tasks)[::-1]
    while pending:
        task = pending.pop()
        if recursive and task.children:
            pending.extend(child for child in task.children.values() if not child.record.detached)
        if task.is_settled():
            continue
        if task.slot is None:
            settle(turn, task, cancelled(task), is_cancelled=True)
        elif task.record.actor is not None and not force:
            if not task.is_cancelling:
                turn.record(ActorReleased(task.task_id))
        elif _is_news(task, force, recursive):
            turn.record(CancelMarked(task.task_id, force, recursive))


def _is_news(task: Task, force: bool, recursive: bool) -> bool:
    if not task.is_cancelling:
        return True
    return (force and not task.is_cancel_forced) or (recursive and not task.is_cancel_recursive)


def cancel_children(turn: Turn, task: Task, attempt: int) -> None:
    """The attempt came to nothing: so do its children."""
    children = (task.children or {}).values()
    parent = (task.task_id, attempt)
    mine = [child for child in children if child.record.parent == parent and not child.record.detached]
    cancel(turn, mine, force=False, recursive=True)


def cancelled(task: Task) -> FailureRecord:
    """It ends because somebody wants it to."""
    return failure_of(task, FailureKind.CANCELLED, f"task {task.task_id} was cancelled")
