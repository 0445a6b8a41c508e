"""Values on the wire: inline up to 100 KB, in shared memory above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.errors import ObjectLostError
from runner.objects.serialization import Buffer, Serialized, deserialize
from runner.objects.store import Store, open_segment
from runner.rpc.gen import types_pb2

INLINE_MAX_BYTES = 100 * 1024

# Fetches the bytes of a segment that cannot be mapped here.
Fetch = Callable[[types_pb2.Segment], Buffer]


def to_wire(
    serialized: Serialized, object_id: str, store: Store, host_id: str, *, inline_max_bytes: int = INLINE_MAX_BYTES
) -> types_pb2.Value:
    """Encode for the wire; a value above `inline_max_bytes` is written to `store`.

    Raises:
        StoreFullError: a large value found no space.
    """
    value = types_pb2.Value(contained_refs=[ref.id for ref in serialized.contained_refs])
    if serialized.total_bytes <= inline_max_bytes:
        value.inline = serialized.to_bytes()
        return value
    path, size_bytes = store.write(object_id, serialized)
    value.segment.host_id = host_id
    value.segment.path = path
    value.segment.size_bytes = size_bytes
    return value


def from_wire(value: types_pb2.Value, fetch: Fetch, host_id: str) -> Any:
    """Decode. A segment of this host is mapped, without a copy; any other is brought by `fetch`.

    So is one that a machine had and that has moved since.
    """
    if value.WhichOneof("body") != "segment":
        return deserialize(value.inline)
    segment = value.segment
    if segment.host_id == host_id:
        try:
            return deserialize(open_segment(segment.path, segment.size_bytes))
        except ObjectLostError:
            if not segment.machine_id:
                raise
    return deserialize(fetch(segment))
