"""Read-only pictures of tasks and machines, for listings."""

from __future__ import annotations

from typing import NamedTuple

from runner.core.values import CheckpointRecord, FailureRecord, GroupRecord, Labels, PoolRecord, Shape
from runner.ids import ClientId, FunctionId, MachineId, TaskId


class TaskView(NamedTuple):
    task_id: TaskId
    name: str
    client_id: ClientId
    function_id: FunctionId
    function_name: str
    state: str  # label: "queued", "running", ...
    attempt: int
    machine_id: MachineId | None
    is_run: bool
    submitted_unix_s: float
    started_s: float | None  # core time
    ended_s: float | None  # core time
    checkpoint: CheckpointRecord | None
    failure: FailureRecord | None
    num_returns: int = 1


class MachineView(NamedTuple):
    machine_id: MachineId
    state: str
    generation: int
    total: Shape
    available: Shape
    provider: str
    provider_machine_id: str
    host_id: str
    phases: dict[str, float]  # unix seconds, as reported
    reason: str
    requested_s: float  # core time
    running_tasks: int
    pool: str
    labels: Labels
    is_single_use: bool
    groups: tuple[str, ...]  # placement groups that have a part of it
    snapshot: int  # how often a suspend of it has begun
    sleep: str  # while it is on its way to sleep or back: how far, in words
    suspended_s: float | None  # core time; None: it is not suspended
    wake: str  # how it came back last: "resumed", "cold", "cancelled"; "": it has not since it was suspended last
    slept_s: float  # how long the sleep from which it woke last; 0: there is none since it was suspended last


class GroupView(NamedTuple):
    record: GroupRecord
    state: str
    attempt: int
    machine_ids: tuple[str, ...]  # of the bundles; empty for one that has no place
    reason: str  # why it waits, or is over


class PoolView(NamedTuple):
    record: PoolRecord
    coming: int
    ready: int
    asleep: int
    idle: int
    going: int
    problem: str
    is_hopeless: bool
    limit: float  # machines that can be had, as far as is known
