"""Failures that the core itself finds."""

from __future__ import annotations

from runner.core.groups import Group
from runner.core.task import Task
from runner.core.values import FailureKind, FailureRecord


def failure_of(task: Task, kind: FailureKind, message: str) -> FailureRecord:
    """What befell this task, in the words of whoever found it."""
    record = task.record
    machine_id = task.last_machine_id or ""
    return FailureRecord(kind, message, b"", record.task_id, record.name, task.attempt, machine_id, task.lines)  # type: ignore[arg-type]


def member_failure(task: Task, group: Group) -> FailureRecord:
    """Why a task of a group that is over has no result."""
    assert group.failure is not None
    what = "actor" if task.record.actor is not None else "task"
    return failure_of(task, group.failure.kind, f"{what} {task.task_id} cannot go on: {group.failure.message}")
