"""Files of machines that share none with this host: large values and checkpoints, to and from here, in checked chunks.

The decisions who may do what are made in the loop; reading, writing and hashing happen in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import NamedTuple

from runner.coordinator.engine import Engine
from runner.coordinator.machine_links import MachineLinks
from runner.coordinator.places import Places
from runner.coordinator.transfer import new_path, object_id_of
from runner.core.value_events import ObjectBrought
from runner.core.values import FailureRecord, SegmentRecord, ValueRecord
from runner.errors import ObjectLostError, ProtocolViolationError, UsageError
from runner.ids import MachineId, ObjectId, TaskId, random_id, task_of
from runner.objects import spill
from runner.objects.file_chunks import IncomingFile, OutgoingFile
from runner.rpc.gen import fleet_pb2, types_pb2

SWEEP_S = 5.0

# (machine, generation)
Holder = tuple[MachineId, int]


class Owner(NamedTuple):
    """The attempt on whose behalf a machine asks."""

    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int


class Bulk:
    """What Upload and Download do. Its callers have checked certificate and generation."""

    def __init__(
        self,
        engine: Engine,
        links: MachineLinks,
        *,
        host_id: str,
        store_path: str,
        artefact_path: str,
        reserve_bytes: int,
    ) -> None:
        """`reserve_bytes`: what must stay free on the disk that artefacts share with the journal."""
        self._engine = engine
        self._cluster = engine.cluster
        self._places = Places(engine, links)
        self._host_id = host_id
        self._store_path = store_path
        self._artefact_path = artefact_path
        self._reserve_bytes = reserve_bytes
        self._holders: dict[str, set[Holder]] = {}  # which machines have a copy of a segment
        self._unclaimed: dict[str, tuple[ObjectId, Owner]] = {}  # uploaded, but no object names them yet
        self._sweep: asyncio.TimerHandle | None = None

    def released(self, path: str) -> set[Holder]:
        """The segment is freed: the machines that have copies of it."""
        return self._holders.pop(path, set())

    def close(self) -> None:
        """Sweep no more, and keep nobody waiting. Idempotent."""
        self._places.close()
        if self._sweep is not None:
            self._sweep.cancel()

    # ---- to here ----
    async def receive(
        self,
        header: fleet_pb2.UploadHeader,
        parts: AsyncIterator[fleet_pb2.UploadPart],
        accept: Callable[[], Awaitable[None]],
    ) -> fleet_pb2.UploadReply:
        """Take in one file. `accept` tells the sender that there is room and that it may go on.

        Raises:
            UsageError: the attempt is not, or no longer, that machine's.
            StoreFullError: no room; nothing stays behind.
            ProtocolViolationError: damaged, or not what was announced.
        """
        if header.brought_path:
            return await self._receive_brought(header, parts, accept)
        owner = self._owner(header.machine_id, header.generation, header.key)
        is_object = header.WhichOneof("what") == "object_id"
        path = self._object_path(header.object_id, owner) if is_object else self._checkpoint_path(header, owner)
        what = header.object_id if is_object else f"the checkpoint of step {header.checkpoint_step} of {owner.task_id}"
        # A store in shared memory takes nothing from the journal's disk.
        reserve_bytes = self._reserve_bytes if _is_same_disk(path, self._artefact_path) else 0
        async with IncomingFile(
            path, header.total_bytes, what=what, reserve_bytes=reserve_bytes, is_hashed=True
        ) as file:
            await accept()
            await _take_in(file, parts)
            self._check(owner)  # it may have ended meanwhile, and its folder have been swept
            file.publish()
        if not is_object:
            return fleet_pb2.UploadReply(uri=path)
        self._holders[path] = {(owner.machine_id, owner.generation)}
        self._unclaimed[path] = (ObjectId(header.object_id), owner)
        self._sweep_soon()
        segment = types_pb2.Segment(host_id=self._host_id, path=path, size_bytes=header.total_bytes)
        return fleet_pb2.UploadReply(segment=segment)

    async def _receive_brought(
        self,
        header: fleet_pb2.UploadHeader,
        parts: AsyncIterator[fleet_pb2.UploadPart],
        accept: Callable[[], Awaitable[None]],
    ) -> fleet_pb2.UploadReply:
        """What only that machine had; from now on it is here."""
        object_id = object_id_of(header.object_id)
        path = new_path(self._store_path, object_id)
        async with IncomingFile(path, header.total_bytes, what=object_id, is_hashed=True) as file:
            self._check_brought(header)
            await accept()
            await _take_in(file, parts)
            self._check_brought(header)
            file.publish()
        self._holders[path] = {(MachineId(header.machine_id), header.generation)}
        segment = types_pb2.Segment(host_id=self._host_id, path=path, size_bytes=header.total_bytes)
        value = ValueRecord(
            types_pb2.Value(segment=segment).SerializeToString(),
            (),
            SegmentRecord(self._host_id, path, header.total_bytes),
        )
        self._engine.post(ObjectBrought(object_id, header.brought_path, value))
        await self._engine.committed()
        return fleet_pb2.UploadReply(segment=segment)

    def _check_brought(self, header: fleet_pb2.UploadHeader) -> None:
        outcome = self._cluster.object_outcome(ObjectId(header.object_id))
        segment = outcome.segment if isinstance(outcome, ValueRecord) else None
        if segment is None or (segment.path, segment.machine_id) != (header.brought_path, header.machine_id):
            raise UsageError(f"object {header.object_id} is not wanted from machine {header.machine_id} any more")

    def _object_path(self, text: str, owner: Owner) -> str:
        object_id = object_id_of(text)
        if task_of(object_id) not in (None, owner.task_id):
            raise ProtocolViolationError(f"task {owner.task_id} cannot make object {object_id}")
        return new_path(self._store_path, object_id)

    def _checkpoint_path(self, header: fleet_pb2.UploadHeader, owner: Owner) -> str:
        folder = os.path.join(self._artefact_path, object_id_of(owner.task_id))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return os.path.join(folder, f"{random_id(f'{owner.attempt}-{header.checkpoint_step}')}.ckpt")

    # ---- from here ----
    async def send(self, request: fleet_pb2.DownloadRequest) -> AsyncGenerator[fleet_pb2.DownloadPart, None]:
        """One file from `offset` on; at the end the digest of what was sent.

        Raises:
            UsageError: the attempt is not that machine's, or the file not the attempt's to have.
            ObjectLostError: it is gone.
        """
        owner = self._owner(request.machine_id, request.generation, request.key)
        if request.WhichOneof("what") == "object_id":
            object_id = object_id_of(request.object_id)
            path, total_bytes = self._segment(object_id, await self.at_hand(object_id))
            self._holders.setdefault(path, set()).add((owner.machine_id, owner.generation))
        else:
            path, total_bytes = self._checkpoint(request.checkpoint_uri, owner)
        async with contextlib.AsyncExitStack() as stack:
            try:
                file = await stack.enter_async_context(OutgoingFile(path))
            except OSError as error:
                raise ObjectLostError(f"{path} is gone from the coordinator: {error.strerror}") from error
            position = request.offset
            async for data, crc32 in file.chunks(position, total_bytes):
                position += len(data)
                yield fleet_pb2.DownloadPart(data=data, crc32=crc32, total_bytes=total_bytes, path=path)
            if position < total_bytes:
                raise ObjectLostError(f"{path} ends after {position} of {total_bytes} bytes")
            yield fleet_pb2.DownloadPart(total_bytes=total_bytes, sha256=file.sha256)

    async def locate(self, request: fleet_pb2.DownloadRequest) -> fleet_pb2.LocateReply:
        """Where an attempt's machine is to get a value from: it counts as a holder of a copy from now on.

        Raises:
            UsageError: the attempt is not that machine's, or there is no file of the value.
            ObjectLostError: it is gone for good.
        """
        owner = self._owner(request.machine_id, request.generation, request.key)
        object_id = object_id_of(request.object_id)
        outcome = await self._places.settled(object_id)
        segment = outcome.segment if isinstance(outcome, ValueRecord) else None
        if segment is None or not segment.machine_id:
            path, total_bytes = self._segment(object_id, outcome)
            return fleet_pb2.LocateReply(total_bytes=total_bytes, path=path)
        self._holders.setdefault(segment.path, set()).add((owner.machine_id, owner.generation))
        generation, address = self._places.address(segment.machine_id)
        return fleet_pb2.LocateReply(
            total_bytes=segment.size_bytes,
            path=segment.path,
            machine_id=segment.machine_id,
            generation=generation,
            address=address,
        )

    async def at_hand(self, object_id: ObjectId) -> ValueRecord | FailureRecord | None:
        """The outcome of an object, when no machine alone has it: it is made again and brought here first, where needed.

        Raises:
            ObjectLostError: its machine cannot bring it.
        """
        return await self._places.at_hand(object_id)

    # ---- values that machines have ----
    def serves(self, machine_id: MachineId, generation: int, address: str) -> None:
        """Other machines can pull this one's values there."""
        self._places.addresses[machine_id] = generation, address

    def look_again(self, object_id: ObjectId) -> None:
        """A value was made again, has moved or is lost for good."""
        self._places.look_again(object_id)

    def ask_for(self, object_ids: Iterable[ObjectId]) -> None:
        """Have machines bring what they alone have."""
        for object_id in object_ids:
            self._places.ask_for(object_id)

    def bring_failed(self, object_id: ObjectId, path: str, why: str) -> None:
        """That machine cannot."""
        self._places.bring_failed(object_id, path, why)
        self._engine.post(ObjectBrought(object_id, path, None, why))

    def _segment(self, object_id: ObjectId, outcome: ValueRecord | FailureRecord | None) -> tuple[str, int]:
        if isinstance(outcome, FailureRecord):
            raise ObjectLostError(f"object {object_id} has no value: {outcome.message}", task_id=outcome.task_id)
        segment = None if outcome is None else outcome.segment
        if segment is None:
            raise UsageError(f"object {object_id} is not ready, or small: there is no file of it")
        if segment.host_id != self._host_id or os.path.dirname(segment.path) != self._store_path:
            raise ObjectLostError(f"object {object_id} lies on a host that the coordinator cannot read from")
        return segment.path, segment.size_bytes

    def _checkpoint(self, uri: str, owner: Owner) -> tuple[str, int]:
        task = self._cluster.task(owner.task_id)
        checkpoint = None if task is None else task.checkpoint
        if checkpoint is None or checkpoint.uri != uri:
            raise UsageError(f"{uri!r} is not the last committed checkpoint of task {owner.task_id}")
        # The record is as a machine reported it.
        path = os.path.normpath(uri)
        if not path.startswith(self._artefact_path + os.sep):
            raise UsageError(f"{uri!r} is not in the folder of artefacts")
        return path, checkpoint.size_bytes

    # ---- who asks ----
    def _owner(self, machine_id: str, generation: int, key: fleet_pb2.AttemptKey) -> Owner:
        owner = Owner(MachineId(machine_id), generation, TaskId(key.task_id), key.attempt)
        self._check(owner)
        return owner

    def _check(self, owner: Owner) -> None:
        if not self._cluster.is_current(*owner):
            raise UsageError(
                f"attempt {owner.attempt} of task {owner.task_id} is not, or no longer, assigned to generation"
                f" {owner.generation} of machine {owner.machine_id}"
            )

    # ---- uploads that nobody came to name ----
    def _sweep_soon(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep_unclaimed)

    def _sweep_unclaimed(self) -> None:
        """An attempt names what it uploaded before or with its end; when it is over, what has no name never gets one."""
        self._sweep = None
        for path, (object_id, owner) in list(self._unclaimed.items()):
            outcome = self._cluster.object_outcome(object_id)
            is_named = isinstance(outcome, ValueRecord) and outcome.segment is not None and outcome.segment.path == path
            if not is_named and self._cluster.is_current(*owner):
                continue
            del self._unclaimed[path]
            if not is_named:
                self._holders.pop(path, None)
                with contextlib.suppress(OSError):  # named and freed since
                    spill.remove(path)
        if self._unclaimed:
            self._sweep_soon()


async def _take_in(file: IncomingFile, parts: AsyncIterator[fleet_pb2.UploadPart]) -> None:
    """Write all parts. Of a bad stream the rest is read too: a sender whose call ends under its hands is not told why."""
    sha256, fault = "", None
    async for part in parts:
        try:
            if part.data and fault is None:
                await file.add(part.data, part.crc32)
        except ProtocolViolationError as error:
            fault = error
        sha256 = part.sha256 or sha256
    if fault is not None:
        raise fault
    await file.finish(sha256)


def _is_same_disk(path: str, other: str) -> bool:
    return os.stat(os.path.dirname(path)).st_dev == os.stat(other).st_dev
