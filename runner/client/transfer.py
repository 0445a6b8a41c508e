"""Large values between this client and a cluster on other hosts, in checked chunks."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from runner.errors import CoordinatorUnreachableError, ObjectLostError, ProtocolViolationError, RunnerError
from runner.objects.serialization import Serialized
from runner.rpc.gen import client_pb2, types_pb2

CHUNK_BYTES = 1024 * 1024


# Returns when another try makes sense after this error; raises it, or the session's own, when none does.
Reconnected = Callable[[RunnerError], Awaitable[None]]


async def fetch(
    stream: Callable[..., AsyncIterator[Any]], object_id: str, size_bytes: int, reconnected: Reconnected
) -> bytearray:
    """The encoded bytes of one value. After a cut it goes on where it was.

    Raises:
        ObjectLostError: it is gone, or not whole.
    """
    data = bytearray(size_bytes)
    position = 0
    is_whole = False
    while not is_whole:
        request = client_pb2.FetchRequest(object_id=object_id, offset=position)
        try:
            async for chunk in stream("Fetch", request, client_pb2.Chunk):
                if zlib.crc32(chunk.data) != chunk.crc32:
                    raise ProtocolViolationError(f"a chunk of {object_id} at {position} arrived damaged")
                data[position : position + len(chunk.data)] = chunk.data
                position += len(chunk.data)
            is_whole = True
        except CoordinatorUnreachableError as error:
            await reconnected(error)
    if position != size_bytes or len(data) != size_bytes:
        raise ObjectLostError(f"{object_id} arrived with {position} of {size_bytes} bytes.")
    return data


async def upload(channel: Any, method: str, object_id: str, serialized: Serialized) -> types_pb2.Segment:
    """Bring one value to the cluster's store."""
    call = channel.stream_unary(method)(_requests(object_id, serialized))
    return types_pb2.Segment.FromString(await call)


async def _requests(object_id: str, serialized: Serialized) -> AsyncIterator[bytes]:
    request = client_pb2.UploadRequest(object_id=object_id, total_bytes=serialized.total_bytes)
    yield request.SerializeToString()
    for piece in serialized.chunks():
        view = memoryview(piece)
        if view.format != "B":
            view = view.cast("B")
        for start in range(0, view.nbytes, CHUNK_BYTES):
            part = bytes(view[start : start + CHUNK_BYTES])
            yield client_pb2.UploadRequest(data=part, crc32=zlib.crc32(part)).SerializeToString()
