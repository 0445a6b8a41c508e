"""Files between a machine and a coordinator on another host, over a connection of their own: heartbeats never queue behind them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import grpc
import grpc.aio

from runner.errors import CoordinatorUnreachableError, InternalError, ProtocolViolationError, RunnerError
from runner.objects.file_chunks import IncomingFile, OutgoingFile, in_thread
from runner.rpc.channels import UPLOAD_ACCEPTED
from runner.rpc.gen import fleet_pb2, fleet_pb2_grpc
from runner.rpc.status import from_rpc_error
from runner.worker.agent.backoff import Backoff
from runner.worker.agent.events import Key

# Files that move at the same time; each holds a chunk or two in memory.
_CONCURRENT_MAX = 4
# A connection may break as often as it likes; a file that arrives damaged may not.
_DAMAGED_MAX = 3

T = TypeVar("T")


class Identity(NamedTuple):
    """In whose name files move."""

    machine_id: str
    generation: int


class BulkClient:
    """Both calls retry over broken connections until they succeed, are refused or are cancelled."""

    def __init__(self, channel: grpc.aio.Channel, address: str, identity: Identity) -> None:
        self._channel = channel
        self._stub: Any = fleet_pb2_grpc.FleetStub(channel)
        self._address = address
        self._identity = identity
        self._room = asyncio.Semaphore(_CONCURRENT_MAX)

    async def upload(
        self, key: Key, path: str, size_bytes: int, *, object_id: str = "", step: int = 0
    ) -> fleet_pb2.UploadReply:
        """Bring a value, or with no `object_id` the checkpoint of `step`, to the coordinator.

        Raises:
            StoreFullError: it has no room.
            RunnerError: refused.
        """
        header = fleet_pb2.UploadHeader(key=_key(key), total_bytes=size_bytes, **self._identity._asdict())
        if object_id:
            header.object_id = object_id
        else:
            header.checkpoint_step = step
        return await self._send(header, path)

    async def bring(self, object_id: str, path: str) -> str:
        """Bring a value that this machine alone has to the coordinator; returns its path there.

        Raises:
            OSError: it is gone.
            StoreFullError: the coordinator has no room.
            RunnerError: it is not wanted any more.
        """
        size_bytes = (await in_thread(os.stat, path)).st_size
        header = fleet_pb2.UploadHeader(
            total_bytes=size_bytes, object_id=object_id, brought_path=path, **self._identity._asdict()
        )
        return (await self._send(header, path)).segment.path

    async def _send(self, header: fleet_pb2.UploadHeader, path: str) -> fleet_pb2.UploadReply:
        async def once() -> fleet_pb2.UploadReply:
            async with OutgoingFile(path) as file:
                return await send_file(self._stub.Upload(), header, _parts(file, header.total_bytes))

        return await self._retried(once)

    async def locate(self, key: Key, object_id: str) -> fleet_pb2.LocateReply:
        """Where a value is to be had; returns when it is to be had.

        Raises:
            ObjectLostError: it is gone for good.
            RunnerError: refused.
        """
        request = fleet_pb2.DownloadRequest(key=_key(key), object_id=object_id, **self._identity._asdict())

        async def once() -> fleet_pb2.LocateReply:
            reply: fleet_pb2.LocateReply = await self._stub.Locate(request)
            return reply

        return await self._retried(once, is_bulk=False)

    async def download(self, key: Key, path: str, size_bytes: int, *, object_id: str = "", uri: str = "") -> str:
        """Bring a value, or the committed checkpoint at `uri`, to `path`. After a cut it goes on where it was.

        Returns the path that it has at the coordinator.

        Raises:
            ObjectLostError: it is gone.
            StoreFullError: no room here.
            RunnerError: refused.
        """
        request = fleet_pb2.DownloadRequest(key=_key(key), **self._identity._asdict())
        if object_id:
            request.object_id = object_id
        else:
            request.checkpoint_uri = uri
        source = ""
        async with IncomingFile(path, size_bytes, what=object_id or uri, is_hashed=True) as file:

            async def once() -> None:
                nonlocal source
                request.offset = file.position
                await file.resumed()
                sha256 = ""
                async for part in self._stub.Download(request):
                    if part.data:
                        await file.add(part.data, part.crc32)
                    sha256, source = part.sha256, part.path or source
                try:
                    await file.finish(sha256)
                except ProtocolViolationError:
                    file.rewind()
                    raise

            await self._retried(once)
            file.publish()
        return source

    async def close(self) -> None:
        """End the connection; open calls end with it."""
        await self._channel.close(None)

    async def _retried(self, once: Callable[[], Awaitable[T]], *, is_bulk: bool = True) -> T:
        backoff, damaged = Backoff(), 0
        async with self._room if is_bulk else contextlib.nullcontext():
            while True:
                try:
                    return await once()
                except grpc.aio.AioRpcError as exc:
                    error = from_rpc_error(exc, self._address)
                except (RunnerError, asyncio.InvalidStateError) as exc:
                    error = exc if isinstance(exc, RunnerError) else CoordinatorUnreachableError("the connection broke")
                if isinstance(error, InternalError):
                    damaged += 1
                if damaged >= _DAMAGED_MAX or not isinstance(error, CoordinatorUnreachableError | InternalError):
                    raise error from None
                await backoff.pause()


async def send_file(
    call: Any, header: fleet_pb2.UploadHeader, parts: AsyncIterator[fleet_pb2.UploadPart]
) -> fleet_pb2.UploadReply:
    """One try of an upload: the header, and when that is accepted the rest.

    gRPC loses the status of a call that ends while something is being written: a refusal must not meet a write.
    """
    try:
        await call.write(fleet_pb2.UploadPart(header=header))
        if UPLOAD_ACCEPTED in dict(await call.initial_metadata()):
            async for part in parts:
                await call.write(part)
            await call.done_writing()
        reply: fleet_pb2.UploadReply = await call
        return reply
    finally:
        call.cancel()


async def _parts(file: OutgoingFile, size_bytes: int) -> AsyncIterator[fleet_pb2.UploadPart]:
    async for data, crc32 in file.chunks(0, size_bytes):
        yield fleet_pb2.UploadPart(data=data, crc32=crc32)
    yield fleet_pb2.UploadPart(sha256=file.sha256)


def _key(key: Key) -> fleet_pb2.AttemptKey:
    return fleet_pb2.AttemptKey(task_id=key[0], attempt=key[1])
