"""What an attempt returned, as one message of bounded size."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

from runner.client.pickling_errors import not_serializable
from runner.errors import BadOptionsError
from runner.ids import TaskId, return_id
from runner.objects import spill
from runner.objects.serialization import Serialized, serialize
from runner.objects.values import INLINE_MAX_BYTES
from runner.rpc.gen import fleet_pb2, types_pb2
from runner.rpc.limits import ITEM_BYTES_MAX

# All returns of one attempt travel in one message: above this, what is larger than a segment's name goes to the store.
INLINE_BYTES_MAX = 1024 * 1024
_SMALL_BYTES = 512


class Place(Protocol):
    """Encodes a value for the wire; where it is too large for a message, its bytes go to the store."""

    def __call__(self, serialized: Serialized, object_id: str, *, inline_max_bytes: int) -> types_pb2.Value: ...


def fill_returns(
    ended: fleet_pb2.AttemptEnded, values: Sequence[Any], task_id: TaskId, place: Place, keep: list[Any]
) -> None:
    """Encode the values; refs inside them are added to `keep` and must live until the message is sent.

    Raises:
        NotSerializableError: a value cannot be pickled.
        StoreFullError: a large value found no space.
        BadOptionsError: even so the message would be too large.
    """
    returns = ended.returns
    returns.SetInParent()
    room_bytes = INLINE_BYTES_MAX
    for index, value in enumerate(values):
        serialized = _serialize(value)
        keep.append(serialized.contained_refs)
        limit_bytes = INLINE_MAX_BYTES if serialized.total_bytes <= room_bytes else _SMALL_BYTES
        wire = place(serialized, return_id(task_id, index), inline_max_bytes=limit_bytes)
        room_bytes -= len(wire.inline)
        returns.values.append(wire)
    size_bytes = ended.ByteSize()
    if size_bytes > ITEM_BYTES_MAX:
        raise BadOptionsError(
            f"the task's {len(values)} return values take {size_bytes} bytes to tell, with the ids of the refs in them;"
            f" the limit is {ITEM_BYTES_MAX}. Return fewer values or fewer refs, or gather them in one list of plain values."
        )


def drop_returns(ended: fleet_pb2.AttemptEnded, host_id: str) -> None:
    """Take back what was filled in so far: nobody will ever read it. The coordinator does so with what is on its host."""
    for value in ended.returns.values:
        if value.segment.path and value.segment.host_id == host_id:
            with contextlib.suppress(OSError):
                spill.remove(value.segment.path)
    ended.ClearField("returns")


def _serialize(value: Any) -> Serialized:
    try:
        return serialize(value)
    except Exception as error:
        raise not_serializable(value, "return value", error) from None
