"""What the core decided: the journal's vocabulary, and the only input of `apply`.

Facts are tuples, because one no-op task costs four of them and building and
encoding a tuple is several times cheaper than a dataclass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import attrgetter
from typing import Any, NamedTuple

from runner.core.values import (
    ActorRecord,
    CheckpointRecord,
    FailureKind,
    FailureRecord,
    PoolRecord,
    SegmentRecord,
    Shape,
    TaskRecord,
    ValueRecord,
    WishRecord,
)
from runner.ids import ClientId, ExecutorId, FunctionId, MachineId, ObjectId, TaskId


# ---- clients ----
class ClientSeen(NamedTuple):
    client_id: ClientId
    executor_id: ExecutorId | None


class ClientLeased(NamedTuple):
    client_id: ClientId
    until_s: float | None  # None: connected, no end in sight


class ClientGone(NamedTuple):
    client_id: ClientId


class FrameDone(NamedTuple):
    client_id: ClientId
    seq: int


class FunctionAdded(NamedTuple):
    client_id: ClientId
    function_id: FunctionId
    name: str
    payload: bytes  # empty when the function was known already: only the client is added
    contained: tuple[ObjectId, ...]
    package_ids: tuple[str, ...]


class PackageAdded(NamedTuple):
    package_id: str
    payload: bytes


# ---- objects ----
class ObjectStored(NamedTuple):
    client_id: ClientId
    object_id: ObjectId
    value: ValueRecord


class RefsTaken(NamedTuple):
    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


class RefsDropped(NamedTuple):
    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


class ObjectsAwaited(NamedTuple):
    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


# ---- tasks ----
class TaskAdded(NamedTuple):
    task: TaskRecord
    is_subscribed: bool


class CancelMarked(NamedTuple):
    task_id: TaskId
    is_forced: bool
    is_recursive: bool


class TaskSettled(NamedTuple):
    """Ended without a result, from whatever state."""

    task_id: TaskId
    is_cancelled: bool
    failure: FailureRecord
    now_s: float


class BackoffEnded(NamedTuple):
    task_id: TaskId


class AttemptAssigned(NamedTuple):
    task_id: TaskId
    attempt: int
    machine_id: MachineId
    slot: int
    gpu_ids: tuple[int, ...]


class AttemptBegan(NamedTuple):
    task_id: TaskId
    executor_id: ExecutorId
    now_s: float


class AttemptDone(NamedTuple):
    task_id: TaskId
    values: tuple[ValueRecord, ...]
    duration_s: float
    now_s: float


class AttemptRetried(NamedTuple):
    """This attempt is over, the task is not."""

    task_id: TaskId
    line: str  # for the task's history; empty: nothing worth telling
    is_charged: bool
    is_killed: bool  # counts as an executor that the task killed
    until_s: float | None  # backoff; None: queued at once


class AttemptGivenBack(NamedTuple):
    """Never started; `is_fenced`: the agent has yet to hear that it is not wanted any more."""

    task_id: TaskId
    is_fenced: bool


class AttemptPaused(NamedTuple):
    """Blocked: its CPUs are free."""

    task_id: TaskId


class AttemptAwoke(NamedTuple):
    """No longer blocked, but its CPUs are taken: waits for them on its machine."""

    task_id: TaskId


class AttemptResumed(NamedTuple):
    task_id: TaskId


class CheckpointCommitted(NamedTuple):
    task_id: TaskId
    checkpoint: CheckpointRecord


# ---- machines ----
class MachineAdded(NamedTuple):
    machine_id: MachineId
    shape: Shape
    provider: str
    now_s: float
    pool: str = ""  # empty: added by hand; nobody replaces it, and it stays
    is_single_use: bool = False


class MachineNamed(NamedTuple):
    machine_id: MachineId
    provider_machine_id: str


class MachineMoved(NamedTuple):
    machine_id: MachineId
    state: int
    reason: str


class MachineJoined(NamedTuple):
    machine_id: MachineId
    agent_instance_id: str
    generation: int
    shape: Shape
    host_id: str
    phases: Mapping[str, float]
    now_s: float


class PoolsSet(NamedTuple):
    """The pools from now on, all of them."""

    pools: tuple[PoolRecord, ...]
    is_configured: bool  # said at a start, not by somebody who adds or removes machines


Fact = (
    ClientSeen
    | ClientLeased
    | ClientGone
    | FrameDone
    | FunctionAdded
    | PackageAdded
    | ObjectStored
    | RefsTaken
    | RefsDropped
    | ObjectsAwaited
    | TaskAdded
    | CancelMarked
    | TaskSettled
    | BackoffEnded
    | AttemptAssigned
    | AttemptBegan
    | AttemptDone
    | AttemptRetried
    | AttemptGivenBack
    | AttemptPaused
    | AttemptAwoke
    | AttemptResumed
    | CheckpointCommitted
    | MachineAdded
    | MachineNamed
    | MachineMoved
    | MachineJoined
    | PoolsSet
)

# ---- journal form: [tag, field, ...]. Tags and field positions are for ever; new fields go last, with defaults.
# Only last fields may go; older rows still have them. ----
_task_fields = attrgetter(*(f.name for f in fields(TaskRecord)))


def encode(fact: Fact) -> list[Any]:
    """The fact as a list of plain values (tuples stand for lists), ready for msgpack."""
    kind = type(fact)
    if kind is TaskAdded:
        task, is_subscribed = fact  # type: ignore[misc]  # narrowed by `kind`, which is cheaper than isinstance
        return [_TAGS[kind], _task_fields(task), is_subscribed]
    return [_TAGS[kind], *fact]


def decode(row: list[Any]) -> Fact:
    """Inverse of `encode`, also after msgpack turned tuples into lists."""
    kind, thaws = _KINDS[row[0]]
    values = list(row[1 : 1 + len(kind._fields)])
    for position, thaw in thaws:
        if position < len(values):
            values[position] = thaw(values[position])
    fact: Fact = kind(*values)
    return fact


def _shape(rows: Any) -> Shape:
    return tuple((name, amount) for name, amount in rows)


def _value(row: Any) -> ValueRecord:
    payload, contained, segment = row
    return ValueRecord(payload, tuple(contained), None if segment is None else SegmentRecord(*segment))


def _values(rows: Any) -> tuple[ValueRecord, ...]:
    return tuple(map(_value, rows))


def _failure(row: Any) -> FailureRecord:
    record = FailureRecord(*row)
    return record._replace(kind=FailureKind(record.kind), history=tuple(record.history))


def _checkpoint(row: Any) -> CheckpointRecord:
    return CheckpointRecord(*row)


def _task(row: Any) -> TaskRecord:
    named = dict(zip((f.name for f in fields(TaskRecord)), row, strict=False))
    named["shape"] = _shape(named["shape"])
    for name in ("dependencies", "contained"):
        named[name] = tuple(named[name])
    if named["parent"] is not None:
        named["parent"] = tuple(named["parent"])
    if named.get("actor") is not None:
        named["actor"] = ActorRecord(*named["actor"])
    if named.get("wishes") is not None:
        labels, *rest = named["wishes"]
        named["wishes"] = WishRecord(tuple((name, value) for name, value in labels), *rest)
    return TaskRecord(**named)


def _pools(rows: Any) -> tuple[PoolRecord, ...]:
    return tuple(PoolRecord(name, _shape(shape), *rest) for name, shape, *rest in rows)


_Thaw = Callable[[Any], Any]
_KINDS: dict[int, tuple[type[Any], tuple[tuple[int, _Thaw], ...]]] = {
    1: (ClientSeen, ()),
    2: (ClientLeased, ()),
    3: (ClientGone, ()),
    4: (FrameDone, ()),
    5: (FunctionAdded, ((4, tuple), (5, tuple))),
    6: (PackageAdded, ()),
    7: (ObjectStored, ((2, _value),)),
    8: (RefsTaken, ((1, tuple),)),
    9: (RefsDropped, ((1, tuple),)),
    10: (ObjectsAwaited, ((1, tuple),)),
    11: (TaskAdded, ((0, _task),)),
    12: (CancelMarked, ()),
    13: (TaskSettled, ((2, _failure),)),
    14: (BackoffEnded, ()),
    15: (AttemptAssigned, ((4, tuple),)),
    16: (AttemptBegan, ()),
    17: (AttemptDone, ((1, _values),)),
    18: (AttemptRetried, ()),
    19: (AttemptGivenBack, ()),
    20: (AttemptPaused, ()),
    21: (AttemptAwoke, ()),
    22: (AttemptResumed, ()),
    23: (CheckpointCommitted, ((1, _checkpoint),)),
    24: (MachineAdded, ((1, _shape),)),
    25: (MachineNamed, ()),
    26: (MachineMoved, ()),
    27: (MachineJoined, ((3, _shape), (5, dict))),
    29: (PoolsSet, ((0, _pools),)),
}
_TAGS: dict[type[Any], int] = {kind: tag for tag, (kind, _) in _KINDS.items()}
