"""The agent's part in files of a machine that shares none with its coordinator: what executors ask for, one copy for all of them.

Uploads belong to the attempt that asked and end with it. A download is shared by all who wait for the same value.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from runner.errors import InternalError, RunnerError, StoreFullError, UsageError
from runner.rpc.gen import fleet_pb2
from runner.worker.agent.events import Key
from runner.worker.agent.executors import Handle
from runner.worker.agent.output import Output
from runner.worker.bulk import BulkClient
from runner.worker.frames import Frame, Kind, encode
from runner.worker.local_store import LocalStore, attempt_folder
from runner.worker.neighbours import Neighbours

log = logging.getLogger(__name__)

Answer = Coroutine[Any, Any, Any]


@dataclass(slots=True, eq=False)
class _Flight:
    """One download that is under way."""

    key: Key  # of the attempt in whose name it is
    task: asyncio.Task[tuple[str, int]]
    waiters: int = 0


class Transfers:
    """Answers RESERVE, UPLOAD, KEEP, FETCH and LOAD, each with one TRANSFERRED; uploads checkpoints before they are reported."""

    def __init__(
        self,
        bulk: BulkClient,
        neighbours: Neighbours,
        store: LocalStore,
        artefact_path: str,
        output: Output,
        *,
        machine_id: str,
        host_id: str,
    ) -> None:
        self._bulk = bulk
        self._neighbours = neighbours
        self._machine_id = machine_id
        self._host_id = host_id
        self._kept: dict[Handle, dict[str, str]] = {}  # by local path: objects that its attempt has kept here
        self._brings: dict[str, asyncio.Task[None]] = {}
        self._emptied = asyncio.Event()
        self._store = store
        self._artefact_path = artefact_path
        self._output = output
        self._work: dict[asyncio.Task[None], Handle] = {}
        self._reserved: dict[str, Handle] = {}
        self._flights: dict[str, _Flight] = {}

    async def hang_up(self) -> None:
        """Close every connection, to the coordinator and of other machines. What is kept here stays."""
        await self._neighbours.close()
        await self._bulk.close()

    def connect(self, bulk: BulkClient, neighbours: Neighbours) -> None:
        """The machine has registered again: everything goes on with its new credentials."""
        self._bulk, self._neighbours = bulk, neighbours

    def frames(self) -> dict[int, Callable[[Handle, Frame], None]]:
        """What of executors' frames is handled here."""
        return {
            Kind.RESERVE: self._reserve,
            Kind.UPLOAD: lambda handle, frame: self._answer(handle, frame, self._upload),
            Kind.KEEP: self._keep,
            Kind.FETCH: lambda handle, frame: self._answer(handle, frame, self._fetch),
            Kind.LOAD: lambda handle, frame: self._answer(handle, frame, self._load),
            Kind.CHECKPOINT: self._checkpoint,
        }

    def over(self, handle: Handle) -> None:
        """Its attempt or the whole executor has ended: nothing goes on for it, and its checkpoints here may go."""
        for task, owner in list(self._work.items()):
            if owner is handle:
                task.cancel()
        for path, owner in list(self._reserved.items()):
            if owner is handle:
                del self._reserved[path]
                self._store.give_back(path)
        if handle.attempt is not None:
            folder = self._folder(handle.attempt.key)
            if os.path.isdir(folder):
                asyncio.get_running_loop().run_in_executor(None, lambda: shutil.rmtree(folder, ignore_errors=True))

    def tell_kept(self, handle: Handle) -> None:
        """Its attempt has ended, and that was reported: what it kept here must have been named by now."""
        kept = self._kept.pop(handle, None)
        if kept:
            self._output.values_kept(kept)

    def free(self, source: str) -> None:
        """The value is freed: so is the copy, or the machine's own."""
        for kept in self._kept.values():
            kept.pop(source, None)
        self._store.drop(source)
        if not self._store.has_own:
            self._emptied.set()

    def bring(self, object_id: str, path: str) -> None:
        """The coordinator is to have this value: somebody cannot reach us, or we are to end."""
        if path not in self._brings:
            task = self._brings[path] = asyncio.create_task(self._bring(object_id, path))
            task.add_done_callback(lambda _: self._brings.pop(path, None))

    async def emptied(self) -> None:
        """Returns when nothing would be lost with this machine."""
        while self._store.has_own:
            self._emptied.clear()
            await self._emptied.wait()

    async def _bring(self, object_id: str, path: str) -> None:
        try:
            there = await self._bulk.bring(object_id, path)
        except Exception as error:
            self._output.bring_failed(object_id, path, _described(error)[1])
            return
        if self._store.own_bytes(path) is not None:  # else: freed meanwhile
            self._store.keep(path, there)
        if not self._store.has_own:
            self._emptied.set()

    # ---- what executors ask ----
    def _reserve(self, handle: Handle, frame: Frame) -> None:
        """[kind, request, name, size_bytes]"""
        try:
            path = self._store.reserve(frame[2], frame[3])
        except RunnerError as error:
            _reply(handle, frame[1], None, error)
            return
        self._reserved[path] = handle
        _reply(handle, frame[1], path, None)

    def _answer(self, handle: Handle, frame: Frame, work: Callable[[Key, Frame], Answer]) -> None:
        """Do what [kind, request, serial, ...] asks on behalf of the attempt that runs there, and say how it went."""
        request = frame[1]
        if handle.attempt is None or handle.serial != frame[2]:
            error = UsageError("the task is over; a thread that it left behind cannot move large values any more")
            _reply(handle, request, None, error)
            return
        key = handle.attempt.key

        async def run() -> None:
            try:
                _reply(handle, request, await work(key, frame), None)
            except asyncio.CancelledError:
                _reply(handle, request, None, UsageError("the attempt is over"))
                raise
            except Exception as error:
                _reply(handle, request, None, error)

        self._spawn(handle, run())

    def _spawn(self, handle: Handle, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._work[task] = handle
        task.add_done_callback(lambda done: self._work.pop(done, None))

    def _keep(self, handle: Handle, frame: Frame) -> None:
        """[kind, request, serial, object_id, path, size_bytes]; the segment"""
        object_id, path, size_bytes = frame[3:]
        if handle.attempt is None or handle.serial != frame[2] or not self._store.is_reserved(path, size_bytes):
            error = UsageError(f"object {object_id}: the task is over, or {path} was not reserved for it")
            _reply(handle, frame[1], None, error)
            return
        self._reserved.pop(path, None)
        self._store.hold(path)
        self._kept.setdefault(handle, {})[path] = object_id
        _reply(handle, frame[1], [self._host_id, path, size_bytes], None)

    async def _upload(self, key: Key, frame: Frame) -> list[Any]:
        """[kind, request, serial, object_id, path, size_bytes]; the coordinator's segment"""
        object_id, path, size_bytes = frame[3:]
        if not self._store.is_reserved(path, size_bytes):
            raise UsageError(f"{path} was not reserved for {size_bytes} bytes")
        reply = await self._bulk.upload(key, path, size_bytes, object_id=object_id)
        segment = reply.segment
        # Who made a value is likely to read it.
        self._reserved.pop(path, None)
        self._store.keep(path, segment.path)
        return [segment.host_id, segment.path, segment.size_bytes]

    async def _fetch(self, key: Key, frame: Frame) -> tuple[str, int]:
        """[kind, request, serial, object_id, source, size_bytes]; the local path, and the size"""
        object_id, source, size_bytes = frame[3:]
        while True:
            found = self._store.find(source)
            if found is not None:
                return found, size_bytes
            flight = self._flights.get(source)
            if flight is None:
                task = asyncio.create_task(self._download(key, object_id))
                flight = self._flights[source] = _Flight(key, task)
            try:
                return await self._share(flight, source)
            except UsageError:
                if flight.key == key:
                    raise  # else: the attempt that began it is over, and ours begins anew

    async def _share(self, flight: _Flight, source: str) -> tuple[str, int]:
        flight.waiters += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiters -= 1
            if flight.task.done() or not flight.waiters:
                flight.task.cancel()
                if self._flights.get(source) is flight:
                    del self._flights[source]

    async def _download(self, key: Key, object_id: str) -> tuple[str, int]:
        place = await self._bulk.locate(key, object_id)
        size_bytes = place.total_bytes
        if place.machine_id == self._machine_id:
            return place.path, size_bytes
        found = self._store.find(place.path)
        if found is not None:
            return found, size_bytes
        path = self._store.reserve(object_id, size_bytes)
        try:
            source = await self._get(key, object_id, path, place)
        except BaseException:
            self._store.give_back(path)
            raise
        self._store.keep(path, source)
        return path, size_bytes

    async def _get(self, key: Key, object_id: str, path: str, place: fleet_pb2.LocateReply) -> str:
        """From the machine that has it, or else through the coordinator; returns where it came from."""
        if self._neighbours.can_reach(place):
            try:
                await self._neighbours.pull(place, object_id, path)
            except StoreFullError:
                raise
            except RunnerError as error:
                log.warning("object %s is taken through the coordinator: %s", object_id, error)
            else:
                return place.path
        return await self._bulk.download(key, path, place.total_bytes, object_id=object_id) or place.path

    # ---- checkpoints ----
    async def _load(self, key: Key, frame: Frame) -> str:
        """[kind, request, serial, uri, size_bytes]; the local path"""
        uri, size_bytes = frame[3:]
        folder = self._folder(key)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, f"restored-{os.path.basename(uri)}")
        await self._bulk.download(key, path, size_bytes, uri=uri)  # again at each call: it is rare, and kept by nobody
        return path

    def _checkpoint(self, handle: Handle, frame: Frame) -> None:
        """[kind, serial, step, path, sha256, size_bytes]: reported when the coordinator has it"""
        if handle.attempt is None or frame[1] != handle.serial:
            return
        key, serial, step = handle.attempt.key, frame[1], frame[2]

        async def run() -> None:
            try:
                reply = await self._bulk.upload(key, frame[3], frame[5], step=step)
            except Exception as error:
                name, text = _described(error)
                handle.link.send(encode(Kind.COMMITTED, serial, step, False, text, name))
            else:
                self._output.checkpoint(handle, [*frame[:3], reply.uri, *frame[4:]])

        self._spawn(handle, run())

    def _folder(self, key: Key) -> str:
        return attempt_folder(self._artefact_path, key)


def _reply(handle: Handle, request: int, answer: Any, error: Exception | None) -> None:
    name, text = ("", "") if error is None else _described(error)
    handle.link.send(encode(Kind.TRANSFERRED, request, answer, name, text))


def _described(error: Exception) -> tuple[str, str]:
    """Class and message, as the executor raises it again."""
    if isinstance(error, RunnerError):
        return type(error).__name__, str(error)
    log.error("a transfer failed", exc_info=error)
    return InternalError.__name__, f"a transfer failed: {type(error).__name__}: {error}"
