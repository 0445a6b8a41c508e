"""Large values to and from clients on other hosts, in checked chunks. File work runs in threads, off the loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import secrets
import zlib
from collections.abc import AsyncIterator

from runner.core.values import FailureRecord, ValueRecord
from runner.errors import ObjectLostError, ProtocolViolationError, StoreFullError, UsageError
from runner.ids import ObjectId
from runner.rpc.gen import client_pb2, types_pb2

CHUNK_BYTES = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM)
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
    try:
        fd = await asyncio.to_thread(os.open, segment.path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise ObjectLostError(f"object {object_id} is gone from the store: {exc.strerror}") from exc
    try:
        for start in range(offset, max(segment.size_bytes, offset + 1), CHUNK_BYTES):
            part, crc32 = await asyncio.to_thread(_read, fd, start)
            yield client_pb2.Chunk(data=part, crc32=crc32, total_bytes=segment.size_bytes)
    finally:
        os.close(fd)


async def receive(requests: AsyncIterator[client_pb2.UploadRequest], store_path: str) -> tuple[str, int]:
    """Write an upload into the store; returns path and size.

    Raises:
        StoreFullError: no space; nothing stays behind.
        ProtocolViolationError: a chunk is damaged, or bytes are missing or too many.
    """
    first = await anext(aiter(requests), None)
    if first is None:
        raise ProtocolViolationError("an upload must name its object first")
    path = os.path.join(store_path, f"{object_id_of(first.object_id)}-{secrets.token_hex(4)}")
    building = f"{path}.tmp"
    total_bytes = first.total_bytes
    try:
        fd = await asyncio.to_thread(_reserve, building, total_bytes)
        try:
            position = await _write(fd, first, 0, total_bytes)
            async for request in requests:
                position = await _write(fd, request, position, total_bytes)
        finally:
            os.close(fd)
        _publish(building, path, position, total_bytes)
    except BaseException as exc:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(building)
        if isinstance(exc, OSError) and exc.errno in _FULL:
            raise StoreFullError(
                f"the object store {store_path} has no room for {first.object_id} ({total_bytes} bytes); drop refs"
                " that are no longer needed or give the host more shared memory"
            ) from exc
        raise
    return path, total_bytes


async def _write(fd: int, request: client_pb2.UploadRequest, position: int, total_bytes: int) -> int:
    data = request.data
    if not data:
        return position
    if position + len(data) > total_bytes or zlib.crc32(data) != request.crc32:
        raise ProtocolViolationError(f"upload chunk at byte {position} is damaged or beyond the announced size")
    await asyncio.to_thread(_write_all, fd, data, position)
    return position + len(data)


def _publish(building: str, path: str, position: int, total_bytes: int) -> None:
    if position != total_bytes:
        raise ProtocolViolationError(f"the upload of {path} ended after {position} of {total_bytes} bytes")
    os.rename(building, path)


def _reserve(path: str, size_bytes: int) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    if size_bytes:
        try:
            # A full tmpfs says so here, not by SIGBUS at some later access.
            os.posix_fallocate(fd, 0, size_bytes)
        except BaseException:
            os.close(fd)
            raise
    return fd


def _write_all(fd: int, data: bytes, position: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, position)
        position += written
        view = view[written:]


def _read(fd: int, start: int) -> tuple[bytes, int]:
    data = os.pread(fd, CHUNK_BYTES, start)
    return data, zlib.crc32(data)
