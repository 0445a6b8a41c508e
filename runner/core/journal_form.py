"""Facts as the journal keeps them: `[tag, field, ...]`.

Tags and positions of fields are for ever; new fields go last, with defaults. Only last fields may go; older rows still have them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

from runner.core import facts as f
from runner.core import suspend_facts as s
from runner.core.values import (
    ActorRecord,
    CheckpointRecord,
    FailureKind,
    FailureRecord,
    GroupRecord,
    Labels,
    PoolRecord,
    SegmentRecord,
    Shape,
    TaskRecord,
    ValueRecord,
    WishRecord,
)
from runner.ids import MachineId

_task_fields = attrgetter(*(each.name for each in fields(TaskRecord)))


def encode(fact: f.Fact) -> list[Any]:
    """The fact as a list of plain values (tuples stand for lists), ready for msgpack."""
    kind = type(fact)
    if kind is f.TaskAdded:
        task, is_subscribed = fact  # type: ignore[misc]  # narrowed by `kind`, which is cheaper than isinstance
        return [_TAGS[kind], _task_fields(task), is_subscribed]
    return [_TAGS[kind], *fact]


def decode(row: list[Any]) -> f.Fact:
    """Inverse of `encode`, also after msgpack turned tuples into lists."""
    kind, thaws = _KINDS[row[0]]
    values = list(row[1 : 1 + len(kind._fields)])
    for position, thaw in thaws:
        if position < len(values):
            values[position] = thaw(values[position])
    fact: f.Fact = kind(*values)
    return fact


def _shape(rows: Any) -> Shape:
    return tuple((name, amount) for name, amount in rows)


def _value(row: Any) -> ValueRecord:
    payload, contained, segment = row
    return ValueRecord(payload, tuple(contained), None if segment is None else SegmentRecord(*segment))


def _value_or_none(row: Any) -> ValueRecord | None:
    return None if row is None else _value(row)


def _failure_or_none(row: Any) -> FailureRecord | None:
    return None if row is None else _failure(row)


def _values(rows: Any) -> tuple[ValueRecord, ...]:
    return tuple(map(_value, rows))


def _failure(row: Any) -> FailureRecord:
    record = FailureRecord(*row)
    return record._replace(kind=FailureKind(record.kind), history=tuple(record.history))


def _checkpoint(row: Any) -> CheckpointRecord:
    return CheckpointRecord(*row)


def _task(row: Any) -> TaskRecord:
    named = dict(zip((each.name for each in fields(TaskRecord)), row, strict=False))
    named["shape"] = _shape(named["shape"])
    for name in ("dependencies", "contained"):
        named[name] = tuple(named[name])
    if named["parent"] is not None:
        named["parent"] = tuple(named["parent"])
    if named.get("actor") is not None:
        named["actor"] = ActorRecord(*named["actor"])
    if named.get("wishes") is not None:
        labels, *rest = named["wishes"]
        named["wishes"] = WishRecord(_labels(labels), *rest)
    return TaskRecord(**named)


def _labels(rows: Any) -> Labels:
    return tuple((key, value) for key, value in rows)


def _pools(rows: Any) -> tuple[PoolRecord, ...]:
    pools = (PoolRecord(name, _shape(shape), *rest) for name, shape, *rest in rows)
    return tuple(
        pool._replace(labels=_labels(pool.labels), unknown_labels=tuple(pool.unknown_labels)) for pool in pools
    )


def _group(row: Any) -> GroupRecord:
    group = GroupRecord(*row)
    parent = None if group.parent is None else (group.parent[0], group.parent[1])
    return group._replace(bundles=tuple(map(_shape, group.bundles)), parent=parent)


def _places(rows: Any) -> tuple[tuple[int, MachineId, tuple[int, ...]], ...]:
    return tuple((index, machine_id, tuple(gpu_ids)) for index, machine_id, gpu_ids in rows)


_Thaw = Callable[[Any], Any]
_KINDS: dict[int, tuple[type[Any], tuple[tuple[int, _Thaw], ...]]] = {
    1: (f.ClientSeen, ()),
    2: (f.ClientLeased, ()),
    3: (f.ClientGone, ()),
    4: (f.FrameDone, ()),
    5: (f.FunctionAdded, ((4, tuple), (5, tuple))),
    6: (f.PackageAdded, ()),
    7: (f.ObjectStored, ((2, _value),)),
    8: (f.RefsTaken, ((1, tuple),)),
    9: (f.RefsDropped, ((1, tuple),)),
    10: (f.ObjectsAwaited, ((1, tuple),)),
    11: (f.TaskAdded, ((0, _task),)),
    12: (f.CancelMarked, ()),
    13: (f.TaskSettled, ((2, _failure),)),
    14: (f.BackoffEnded, ()),
    15: (f.AttemptAssigned, ((4, tuple),)),
    16: (f.AttemptBegan, ()),
    17: (f.AttemptDone, ((1, _values),)),
    18: (f.AttemptRetried, ()),
    19: (f.AttemptGivenBack, ()),
    20: (f.AttemptPaused, ()),
    21: (f.AttemptAwoke, ()),
    22: (f.AttemptResumed, ()),
    23: (f.CheckpointCommitted, ((1, _checkpoint),)),
    24: (f.MachineAdded, ((1, _shape), (6, _labels))),
    25: (f.MachineNamed, ()),
    26: (f.MachineMoved, ()),
    27: (f.MachineJoined, ((3, _shape), (5, dict), (7, _labels))),
    29: (f.PoolsSet, ((0, _pools),)),
    60: (f.ObjectLost, ((2, _failure_or_none),)),
    61: (f.ObjectMoved, ((1, _value),)),
    62: (f.TaskRerun, ()),
    63: (f.InputsMissed, ()),
    30: (f.PromisesMade, ((1, tuple),)),
    31: (f.PromiseEnded, ((2, _value_or_none), (3, _failure_or_none))),
    32: (f.ActorWatched, ()),
    33: (f.ActorUp, ()),
    34: (f.ActorReleased, ()),
    35: (f.ActorShot, ()),
    75: (f.ItemsStored, ((1, _values),)),
    76: (f.ItemsTaken, ()),
    77: (f.StreamEnded, ()),
    45: (f.TaskReshaped, ((1, _shape),)),
    46: (f.GroupAdded, ((0, _group),)),
    47: (f.GroupPlaced, ((1, _places),)),
    48: (f.BundlesLost, ((1, tuple),)),
    49: (f.GroupEnded, ((2, _failure),)),
    80: (s.SuspendBegan, ()),
    81: (s.SuspendAdvanced, ()),
    82: (s.SuspendCalledOff, ()),
    83: (s.SnapshotSaved, ()),
    84: (s.SnapshotUsed, ()),
    85: (s.SnapshotDropped, ()),
    86: (s.MachineAwoke, ()),
    87: (s.ResumeWanted, ()),
}
_TAGS: dict[type[Any], int] = {kind: tag for tag, (kind, _) in _KINDS.items()}
