"""Large values between this client and a cluster on other hosts, in checked chunks."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from runner.errors import CoordinatorUnreachableError, ObjectLostError, ProtocolViolationError, RunnerError
from runner.objects.serialization import Serialized
from runner.rpc.channels import UPLOAD_ACCEPTED, UPLOAD_START
from runner.rpc.gen import client_pb2, types_pb2

CHUNK_BYTES = 1024 * 1024
# What gRPC says of a call whose end met a write.
_LOST_STATUS = "Internal error from Core"


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
                if chunk.total_bytes != size_bytes:  # it was made again, and came out otherwise
                    size_bytes, position, data = _resize(chunk, position)
                data[position : position + len(chunk.data)] = chunk.data
                position += len(chunk.data)
            is_whole = True
        except CoordinatorUnreachableError as error:
            await reconnected(error)
    if position != size_bytes or len(data) != size_bytes:
        raise ObjectLostError(f"{object_id} arrived with {position} of {size_bytes} bytes.")
    return data


def _resize(chunk: client_pb2.Chunk, position: int) -> tuple[int, int, bytearray]:
    if position:
        raise ObjectLostError("a value was lost while it was being read, and has changed since; get it again")
    return chunk.total_bytes, 0, bytearray(chunk.total_bytes)


async def upload(channel: Any, method: str, object_id: str, serialized: Serialized) -> types_pb2.Segment:
    """One try to bring a value to the cluster's store.

    gRPC loses the status of a call that ends while something is being written: a refusal must not meet a write.

    Raises:
        grpc.RpcError: refused, or there is no connection.
        CoordinatorUnreachableError: the connection broke on the way.
    """
    start = client_pb2.UploadStart(object_id=object_id, total_bytes=serialized.total_bytes)
    call = channel.stream_unary(method)(metadata=((UPLOAD_START, start.SerializeToString()),))
    try:
        if UPLOAD_ACCEPTED in dict(await call.initial_metadata()):
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):  # the call is over, and says why below
                await _send(call, serialized)
        return types_pb2.Segment.FromString(await call)
    except grpc.RpcError as error:
        if error.details() == _LOST_STATUS:
            raise CoordinatorUnreachableError(f"the connection broke while {object_id} was sent") from None
        raise
    finally:
        call.cancel()


async def _send(call: Any, serialized: Serialized) -> None:
    for piece in serialized.chunks():
        view = memoryview(piece)
        if view.format != "B":
            view = view.cast("B")
        for start in range(0, view.nbytes, CHUNK_BYTES):
            part = bytes(view[start : start + CHUNK_BYTES])
            await call.write(client_pb2.UploadRequest(data=part, crc32=zlib.crc32(part)).SerializeToString())
    await call.done_writing()
