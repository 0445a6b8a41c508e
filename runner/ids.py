"""Identifiers. All are short ASCII strings; who makes each one is said beside it."""

from __future__ import annotations

import secrets
from typing import NewType

ClusterId = NewType("ClusterId", str)  # coordinator, random, once per state directory
ClientId = NewType("ClientId", str)  # each session, random; executors' sessions have one too
TaskId = NewType("TaskId", str)  # the submitting session
ObjectId = NewType("ObjectId", str)  # "<task id>.<index>" for returns, made by the session for puts
FunctionId = NewType("FunctionId", str)  # content hash
MachineId = NewType("MachineId", str)  # coordinator; also the machine's name at the provider
ExecutorId = NewType("ExecutorId", str)  # agent, unique within the cluster


def random_id(prefix: str) -> str:
    """A new random id such as `c-5f2a9c01d3e4`; 48 bits are enough within one cluster."""
    return f"{prefix}-{secrets.token_hex(6)}"


def return_id(task_id: TaskId, index: int) -> ObjectId:
    """The id of the `index`-th return value of a task (from 0)."""
    return ObjectId(f"{task_id}.{index}")


def item_id(task_id: TaskId, index: int) -> ObjectId:
    """The id of the `index`-th item of a generator's task (from 0)."""
    return ObjectId(f"{task_id}.i{index}")


def is_call(task_id: str) -> bool:
    """Whether it is the id of a call of an actor: only the process that made it knows it."""
    return task_id.startswith("c-")


def task_of(object_id: ObjectId) -> TaskId | None:
    """The task that makes this object, or None for an object that was put."""
    head, dot, _ = object_id.rpartition(".")
    return TaskId(head) if dot else None
