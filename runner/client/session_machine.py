"""The decisions of one session, without I/O: numbering, resending, counting refs, remembering outcomes.

Callers hold one lock around every method. Operations enter through `submit`, `put`, `operate`, ...; `take_frame` packs
them into numbered frames; `received` takes in what the server says; `connected` gives the frames that must be sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runner.client.item_streams import ItemStreams
from runner.client.local_objects import ActorListener, LocalObjects
from runner.client.requests import Requests
from runner.client.waiting import Waiter
from runner.client.wire import encode_frame
from runner.errors import ClusterError, ProtocolViolationError
from runner.ids import ObjectId
from runner.rpc.gen import client_pb2

FRAME_MAX_OPERATIONS = 512
FRAME_MAX_BYTES = 1024 * 1024
UNACKED_MAX_OPERATIONS = 10_000
UNACKED_MAX_BYTES = 64 * 1024 * 1024
_REFS_PER_OPERATION = 10_000  # keeps a list of ids far below the message limit

Ready = Callable[[], None]
Condition = Callable[[], bool]


class Outcome(NamedTuple):
    """The final state of one object: a serialised Value or Failure."""

    payload: bytes
    is_failure: bool


@dataclass(frozen=True, slots=True)
class _SentFrame:
    seq: int
    payload: bytes
    operations: int


class SessionMachine:
    """State of one session. `subscribed`: the server tells results of own tasks unasked (gRPC clients)."""

    def __init__(self, *, subscribed: bool) -> None:
        self.dropped: deque[ObjectId] = deque()  # filled by ObjectRef.__del__, which takes no lock
        self.outcomes: dict[str, Outcome] = {}
        self.is_connected = False
        self.actors: ActorListener | None = None
        self._subscribed = subscribed
        self.requests = Requests()
        self._counts: dict[str, int] = {}  # live refs in this process
        self._kept: set[str] = set()  # counted once more: plain pickle has made copies of them
        self._asked: set[str] = set()  # the server knows that we want these
        self._operations: deque[bytes] = deque()
        self._operations_bytes = 0
        self._operations_queued = 0  # ever
        self._batch_kind = ""
        self._batch: list[str] = []  # ids for one add_refs, release_refs or resolve operation
        self._unacked: deque[_SentFrame] = deque()
        self._unacked_operations = 0
        self._unacked_bytes = 0
        self._operations_acked = 0  # ever
        self._next_seq = 1
        self._acked_seq = 0
        self._waiters: list[Waiter] = []
        self._ack_waiters: list[tuple[Condition, Waiter]] = []
        self._ack_callbacks: deque[tuple[int, Ready]] = deque()  # by number of acknowledged operations
        self._callbacks: dict[str, list[Ready]] = {}
        self.local = LocalObjects(self._counts, self.outcomes, self._add_to_batch, self.operate, self._settle)
        self.streams = ItemStreams(
            self._counts, self.outcomes, self._asked, self.local, self.operate, self._settle, Outcome
        )

    # ---- refs ----
    def created(self, object_ids: Iterable[str]) -> None:
        """New objects of ours, one ref to each. The operation that makes them makes us their holder."""
        for object_id in object_ids:
            self._counts[object_id] = 1
            if self._subscribed:
                self._asked.add(object_id)

    def borrow(self, object_id: str) -> None:
        """One more ref; the first one of this process tells the server."""
        count = self._counts.get(object_id, 0)
        self._counts[object_id] = count + 1
        if not count:
            self._add_to_batch("add_refs", object_id)

    def keep(self, object_id: str) -> None:
        """One ref that never goes."""
        if object_id not in self._kept:
            self.local.share(object_id)
            self._kept.add(object_id)
            self.borrow(object_id)

    def drain_dropped(self) -> None:
        """Count what was collected since; the last ref of this process tells the server."""
        dropped = self.dropped
        while dropped:
            object_id = dropped.popleft()
            count = self._counts.get(object_id, 0) - 1
            if count > 0:
                self._counts[object_id] = count
            elif count == 0:
                del self._counts[object_id]
                self.outcomes.pop(object_id, None)
                self._asked.discard(object_id)
                if not self.local.forget(object_id):
                    self._add_to_batch("release_refs", object_id)
                if self.actors is not None:
                    self.actors.released(object_id)
            else:
                self.streams.collected(object_id)

    def held(self) -> list[str]:
        """Objects with a live ref in this process."""
        self.drain_dropped()
        return list(self._counts)

    @property
    def holds_refs(self) -> bool:
        return bool(self._counts)

    # ---- operations ----
    def operate(self, operation: bytes) -> None:
        """Queue one serialised Operation."""
        if self._batch:
            self._close_batch()
        self._operations.append(operation)
        self._operations_bytes += len(operation)
        self._operations_queued += 1

    def put(self, object_id: str, operation: bytes, value: bytes) -> None:
        """Queue a put; its outcome is known at once."""
        self._counts[object_id] = 1
        self.outcomes[object_id] = Outcome(value, False)
        self.operate(operation)

    def want(self, object_ids: Sequence[str]) -> list[str]:
        """Which of these are not known yet; asks the server where it does not know that we wait."""
        outcomes = self.outcomes
        missing = [object_id for object_id in object_ids if object_id not in outcomes]
        for object_id in missing:
            if object_id not in self._asked and object_id not in self.local:
                self._asked.add(object_id)
                self._add_to_batch("resolve", object_id)
        return missing

    @property
    def is_full(self) -> bool:
        """Too much is waiting for an acknowledgement: the submitter must wait."""
        return (
            self._unacked_operations + len(self._operations) >= UNACKED_MAX_OPERATIONS
            or self._unacked_bytes + self._operations_bytes >= UNACKED_MAX_BYTES
        )

    @property
    def is_flushed(self) -> bool:
        """Everything was sent and acknowledged."""
        return not (self._unacked or self._operations or self._batch or self.streams.has_reads or self.dropped)

    @property
    def has_operations(self) -> bool:
        return bool(self._operations or self._batch or self.streams.has_reads)

    # ---- waiting ----
    def add_waiter(self, waiter: Waiter) -> None:
        self._waiters.append(waiter)

    def remove_waiter(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        self._ack_waiters = [pair for pair in self._ack_waiters if pair[1] is not waiter]

    def add_ack_waiter(self, waiter: Waiter, condition: Condition) -> None:
        """Finish `waiter` at the first acknowledgement that makes `condition` true."""
        self._ack_waiters.append((condition, waiter))

    def after_ack(self, callback: Ready) -> bool:
        """Call back once, under the lock, when all that is queued now is acknowledged; False if it already is."""
        if self._batch:
            self._close_batch()
        if not (self._operations or self._unacked):
            return False
        self._ack_callbacks.append((self._operations_queued, callback))
        return True

    def when_ready(self, object_id: str, callback: Ready) -> bool:
        """Call back once, under the lock, when the object is final; False if it already is."""
        if not self.want([object_id]):
            return False
        self._callbacks.setdefault(object_id, []).append(callback)
        return True

    def watch(self, object_id: str, callback: Ready) -> None:
        """Call back once, under the lock, when this comes, of which the server tells unasked."""
        self._callbacks.setdefault(object_id, []).append(callback)

    def finish_waiting(self) -> None:
        """The session is over: wake everybody."""
        self.requests.finish()
        for waiter in [*self._waiters, *(waiter for _, waiter in self._ack_waiters)]:
            waiter.finish()
        callbacks = [callback for waiting in self._callbacks.values() for callback in waiting]
        self._callbacks.clear()
        self._ack_callbacks.clear()
        for callback in callbacks:
            callback()

    # ---- the wire ----
    def connected(self, acked_seq: int) -> list[bytes]:
        """A stream is open and the server has our frames up to `acked_seq`: these must be sent before any new one.

        Raises:
            ClusterError: the server knows less than it had acknowledged: it has given this session up.
            ProtocolViolationError: it knows more than was sent.
        """
        if acked_seq < self._acked_seq:
            raise ClusterError(
                "The lease of this session ended while the coordinator could not be reached: its unfinished tasks were"
                " cancelled and its values freed. Call runner.init() again; results of named runs are in `runner runs`."
            )
        if acked_seq >= self._next_seq:
            raise ProtocolViolationError(
                f"The coordinator has frames up to {acked_seq} of this session, which sent {self._next_seq - 1}."
            )
        is_first = self._next_seq == 1
        self._acked(acked_seq)
        self.is_connected = True
        if not is_first:
            self.ask_again()
        return [frame.payload for frame in self._unacked]

    def ask_again(self) -> None:
        """Replies may have been lost: ask for all that is awaited."""
        for object_id in self._asked:
            self._add_to_batch("resolve", object_id)
        for operation in self.requests.unanswered():
            self.operate(operation)
        if self.actors is not None:
            self.actors.ask_again()

    def disconnected(self) -> None:
        self.is_connected = False

    def take_frame(self) -> bytes | None:
        """The next frame as a serialised SessionRequest, or None when nothing is to be sent or nobody listens."""
        self.drain_dropped()
        self.streams.tell_reads()
        if self._batch:
            self._close_batch()
        if not self._operations or not self.is_connected:
            return None
        taken: list[bytes] = []
        size_bytes = 0
        while self._operations and len(taken) < FRAME_MAX_OPERATIONS:
            if taken and size_bytes + len(self._operations[0]) > FRAME_MAX_BYTES:
                break
            taken.append(self._operations.popleft())
            size_bytes += len(taken[-1])
        frame = _SentFrame(self._next_seq, encode_frame(self._next_seq, taken), len(taken))
        self._next_seq += 1
        self._unacked.append(frame)
        self._operations_bytes -= size_bytes
        self._unacked_operations += frame.operations
        self._unacked_bytes += len(frame.payload)
        return frame.payload

    def received(self, frame: client_pb2.ServerFrame) -> None:
        """Take in acknowledgements and outcomes; wakes who waits for them."""
        self._acked(frame.acked_seq)
        for ready in frame.ready:
            object_id = ready.object_id
            is_failure = ready.WhichOneof("outcome") == "failure"
            self._asked.discard(object_id)
            if is_failure and object_id not in self._counts:
                self.streams.failed(object_id, ready.failure)
            self._settle(object_id, ready.failure if is_failure else ready.value, is_failure)
        for items in frame.items:
            self.streams.arrived(items.task_id, items.first_index, items.values, is_over=items.is_over)
        for answer in frame.answers:
            self.requests.arrived(answer)
        if self.actors is not None and (frame.actors or frame.actor_frames or frame.found_actors):
            self.actors.told(frame)

    def _settle(self, object_id: str, payload: bytes, is_failure: bool) -> None:
        if object_id in self._counts:  # else nobody here wants it any more
            self.outcomes[object_id] = Outcome(payload, is_failure)
        for waiter in self._waiters:
            waiter.object_ready(object_id, is_failure)
        for callback in self._callbacks.pop(object_id, ()):
            callback()

    def _acked(self, seq: int) -> None:
        self._acked_seq = max(self._acked_seq, seq)
        while self._unacked and self._unacked[0].seq <= seq:
            frame = self._unacked.popleft()
            self._unacked_operations -= frame.operations
            self._unacked_bytes -= len(frame.payload)
            self._operations_acked += frame.operations
        while self._ack_callbacks and self._ack_callbacks[0][0] <= self._operations_acked:
            self._ack_callbacks.popleft()[1]()
        for condition, waiter in self._ack_waiters:
            if condition():
                waiter.finish()

    def _add_to_batch(self, kind: str, object_id: str) -> None:
        """Ids of one kind share an operation as long as no other operation comes between."""
        if self._batch and (self._batch_kind != kind or len(self._batch) >= _REFS_PER_OPERATION):
            self._close_batch()
        self._batch_kind = kind
        self._batch.append(object_id)

    def _close_batch(self) -> None:
        refs = client_pb2.RefList(object_ids=self._batch)
        if self._batch_kind == "add_refs":
            operation = client_pb2.Operation(add_refs=refs)
        elif self._batch_kind == "release_refs":
            operation = client_pb2.Operation(release_refs=refs)
        elif self._batch_kind == "promise":
            operation = client_pb2.Operation(promise=refs)
        else:
            operation = client_pb2.Operation(resolve=refs)
        self._batch = []
        self.operate(operation.SerializeToString())
