"""Large values to and from clients on other hosts, in checked chunks. File work runs in threads, off the loop."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import zlib
from collections.abc import AsyncIterator

from runner.core.values import FailureRecord, ValueRecord
from runner.errors import ObjectLostError, ProtocolViolationError, UsageError
from runner.ids import ObjectId
from runner.objects.file_chunks import CHUNK_BYTES, IncomingFile, OutgoingFile
from runner.rpc.gen import client_pb2, types_pb2

# Ids become file names.
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def object_id_of(text: str) -> ObjectId:
    """An object id from a peer.

    Raises:
        ProtocolViolationError: it could not be one.
    """
    if not _SAFE_ID.fullmatch(text):
        raise ProtocolViolationError(f"{text!r} is no object id")
    return ObjectId(text)


async def read_chunks(
    outcome: ValueRecord | FailureRecord | None, object_id: str, offset: int, our_host_id: str, store_path: str
) -> AsyncIterator[client_pb2.Chunk]:
    """The encoded bytes of a value from `offset` on.

    Raises:
        ObjectLostError: it is gone, or on a host that cannot be reached from here.
        UsageError: it is not ready.
    """
    if outcome is None:
        raise UsageError(f"object {object_id} is not ready; wait for it before fetching it")
    if isinstance(outcome, FailureRecord):
        raise ObjectLostError(f"object {object_id} has no value: {outcome.message}", task_id=outcome.task_id)
    if outcome.segment is None:
        data = types_pb2.Value.FromString(outcome.payload).inline
        for start in range(offset, max(len(data), offset + 1), CHUNK_BYTES):
            part = data[start : start + CHUNK_BYTES]
            yield client_pb2.Chunk(data=part, crc32=zlib.crc32(part), total_bytes=len(data))
        return
    segment = outcome.segment
    if segment.host_id != our_host_id or os.path.dirname(segment.path) != store_path:
        raise ObjectLostError(f"object {object_id} lies on a host that the coordinator cannot read from")
    async with contextlib.AsyncExitStack() as stack:
        try:
            file = await stack.enter_async_context(OutgoingFile(segment.path))
        except OSError as exc:
            raise ObjectLostError(f"object {object_id} is gone from the store: {exc.strerror}") from exc
        async for part, crc32 in file.chunks(offset, segment.size_bytes):
            yield client_pb2.Chunk(data=part, crc32=crc32, total_bytes=segment.size_bytes)


async def receive(requests: AsyncIterator[client_pb2.UploadRequest], store_path: str) -> tuple[str, int]:
    """Write an upload into the store; returns path and size.

    Raises:
        StoreFullError: no space; nothing stays behind.
        ProtocolViolationError: a chunk is damaged, or bytes are missing or too many.
    """
    first = await anext(aiter(requests), None)
    if first is None:
        raise ProtocolViolationError("an upload must name its object first")
    path = new_path(store_path, first.object_id)
    async with IncomingFile(path, first.total_bytes, what=first.object_id) as file:
        if first.data:
            await file.add(first.data, first.crc32)
        async for request in requests:
            if request.data:
                await file.add(request.data, request.crc32)
        await file.finish()
        file.publish()
    return path, first.total_bytes


def new_path(store_path: str, object_id: str) -> str:
    """Where a value may be written: a name that no other has.

    Raises:
        ProtocolViolationError: the id could not be one.
    """
    return os.path.join(store_path, f"{object_id_of(object_id)}-{secrets.token_hex(4)}")
