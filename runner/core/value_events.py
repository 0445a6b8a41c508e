"""What happens to values that lie on machines. Part of `runner.core.events`."""

from __future__ import annotations

from dataclasses import dataclass

from runner.core.values import SegmentRecord, ValueRecord
from runner.ids import MachineId, ObjectId


@dataclass(frozen=True, slots=True)
class ObjectWanted:
    """Somebody is about to read this value: where it is gone, it is to be made again."""

    object_id: ObjectId


@dataclass(frozen=True, slots=True)
class ObjectBrought:
    """What only a machine had lies in the coordinator's store now. None: that could not be done, and this is why."""

    object_id: ObjectId
    path: str  # of the segment that it was
    value: ValueRecord | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class ValuesKept:
    """An attempt is over in which a machine kept these segments: those that no object names may go."""

    machine_id: MachineId
    segments: tuple[tuple[ObjectId, SegmentRecord], ...]
