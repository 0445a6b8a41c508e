"""Large values and checkpoints in an executor whose machine shares no files with its coordinator: the agent moves them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from typing import Any

from runner import errors
from runner.client.waiting import Waiter
from runner.errors import InternalError, ObjectLostError, RunnerError
from runner.objects import spill
from runner.objects.serialization import Buffer, Serialized
from runner.objects.store import open_segment, write_within
from runner.objects.values import INLINE_MAX_BYTES
from runner.rpc.gen import types_pb2
from runner.worker.executor.channel import ExecutorSocket
from runner.worker.frames import Frame, Kind

# A copy may be dropped for another one between the agent's word and our open.
_OPENS_MAX = 5


class AgentFiles:
    """Asks the agent, and waits for its answers. Thread-safe; the waits of the main thread can be interrupted."""

    def __init__(self, sock: ExecutorSocket, machine_id: str) -> None:
        self._sock = sock
        self._machine_id = machine_id
        self._bounds: spill.Bounds | None = None
        self.keeps = True  # what the attempt makes stays on this machine; else it goes to the coordinator at once
        # How to wait for a value; it may have to be made again first.
        self.wait_long: Callable[[Waiter], object] = lambda waiter: sock.wait(waiter, None)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Waiter] = {}
        self._answers: dict[int, Frame] = {}
        self.serial = 0  # of the attempt that runs
        sock.on(Kind.TRANSFERRED, self._answered)

    def place(
        self, serialized: Serialized, object_id: str, *, inline_max_bytes: int = INLINE_MAX_BYTES
    ) -> types_pb2.Value:
        """Encode for the wire; a value above `inline_max_bytes` stays here, or is brought to the coordinator's store.

        Raises:
            StoreFullError: no room for it here or there.
        """
        value = types_pb2.Value(contained_refs=[ref.id for ref in serialized.contained_refs])
        if serialized.total_bytes <= inline_max_bytes:
            value.inline = serialized.to_bytes()
        else:
            value.segment.CopyFrom(self.upload(object_id, serialized))
        return value

    def upload(self, object_id: str, serialized: Serialized) -> types_pb2.Segment:
        """Keep a value on this machine, or bring it to the coordinator's store; a copy stays here while there is room.

        Raises:
            StoreFullError: no room for it here or there.
        """
        size_bytes = serialized.total_bytes
        path: str = self._ask(Kind.RESERVE, object_id, size_bytes)
        try:
            if self._bounds is None:
                self._bounds = spill.read_bounds(os.path.dirname(path))
            write_within(self._bounds, path, serialized)
            kind = Kind.KEEP if self.keeps else Kind.UPLOAD
            host_id, told_path, size_bytes = self._ask(kind, self.serial, object_id, path, size_bytes)
        except BaseException:
            # The agent forgets the reservation when the attempt ends; the memory need not wait for that.
            with contextlib.suppress(OSError):
                spill.remove(path)
            raise
        holder = self._machine_id if kind is Kind.KEEP else ""
        return types_pb2.Segment(host_id=host_id, path=told_path, size_bytes=size_bytes, machine_id=holder)

    def fetch(self, object_id: str, segment: types_pb2.Segment) -> Buffer:
        """The bytes of a value, mapped from the machine's copy.

        Raises:
            ObjectLostError: nobody has them any more.
            StoreFullError: no room for the copy.
        """
        for _ in range(_OPENS_MAX):
            # Of a value that was made again, both may be new.
            path, size_bytes = self._ask(Kind.FETCH, self.serial, object_id, segment.path, segment.size_bytes)
            with contextlib.suppress(ObjectLostError):
                return open_segment(path, size_bytes)
        raise ObjectLostError(
            f"object {object_id}: its copy was dropped for others {_OPENS_MAX} times; the store is too small"
        )

    def load(self, checkpoint: types_pb2.Checkpoint) -> str:
        """The local path of a committed checkpoint.

        Raises:
            ObjectLostError: it is gone.
        """
        path: str = self._ask(Kind.LOAD, self.serial, checkpoint.uri, checkpoint.size_bytes)
        return path

    def _ask(self, kind: Kind, *fields: Any) -> Any:
        number = next(self._numbers)
        waiter = self._waiting[number] = Waiter((), 1, wake_on_failure=False)
        try:
            self._sock.send(kind, number, *fields)
            if kind is Kind.FETCH:
                self.wait_long(waiter)
            else:
                self._sock.wait(waiter, None)
        finally:
            del self._waiting[number]
            answer = self._answers.pop(number, None)
        assert answer is not None, "the wait ended without an answer"
        if answer[3]:
            raise typed_error(answer[3], answer[4])
        return answer[2]

    def _answered(self, frame: Frame) -> None:
        waiter = self._waiting.get(frame[1])
        if waiter is not None:  # else: interrupted, nobody waits any more
            self._answers[frame[1]] = frame
            waiter.finish()


def typed_error(name: str, message: str) -> RunnerError:
    """An error of the agent's, as it would have been raised here."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, RunnerError):
        return kind(message)
    return InternalError(f"{name}: {message}")
