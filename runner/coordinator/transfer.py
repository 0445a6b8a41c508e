"""Large values to and from clients on other hosts, in checked chunks. File work runs in threads, off the loop."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from google.protobuf.message import DecodeError

from runner.core.values import FailureRecord, ValueRecord
from runner.errors import ObjectLostError, ProtocolViolationError, UsageError
from runner.ids import ObjectId
from runner.objects.file_chunks import CHUNK_BYTES, IncomingFile, OutgoingFile
from runner.rpc.channels import UPLOAD_START
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


def upload_start(metadata: Iterable[tuple[str, str | bytes]] | None) -> client_pb2.UploadStart:
    """What an upload's metadata says it is.

    Raises:
        ProtocolViolationError: nothing that can be read.
    """
    packed = dict(metadata or ()).get(UPLOAD_START)
    if not isinstance(packed, bytes):
        raise ProtocolViolationError(f"an upload must say in its metadata what it is; {UPLOAD_START} is missing")
    try:
        return client_pb2.UploadStart.FromString(packed)
    except DecodeError:
        raise ProtocolViolationError(f"an upload's {UPLOAD_START} cannot be read") from None


async def receive(
    start: client_pb2.UploadStart,
    requests: AsyncIterator[client_pb2.UploadRequest],
    store_path: str,
    accept: Callable[[], Awaitable[None]],
) -> str:
    """Write an upload into the store; returns its path. `accept` tells the client that there is room and that it may begin.

    Raises:
        StoreFullError: no space; nothing stays behind.
        ProtocolViolationError: a chunk is damaged, or bytes are missing or too many.
    """
    path = new_path(store_path, start.object_id)
    async with IncomingFile(path, start.total_bytes, what=start.object_id) as file:
        await accept()
        async for request in requests:
            await file.add(request.data, request.crc32)
        await file.finish()
        file.publish()
    return path


def new_path(store_path: str, object_id: str) -> str:
    """Where a value may be written: a name that no other has.

    Raises:
        ProtocolViolationError: the id could not be one.
    """
    return os.path.join(store_path, f"{object_id_of(object_id)}-{secrets.token_hex(4)}")
