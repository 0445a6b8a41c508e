"""Items of a generator on their way to the agent: the first of them at once, those that follow quickly in batches.

Under load a batch gathers what is yielded within GATHER_S; a thread sends what is left when the generator takes its time
over the next item. Nothing is ever held back for an item that has not been made.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from runner.client.pickling_errors import not_serializable
from runner.client.waiting import Waiter
from runner.client.wire import encode_inline
from runner.errors import BadOptionsError
from runner.ids import TaskId, item_id
from runner.objects.serialization import Serialized, serialize
from runner.objects.values import INLINE_MAX_BYTES
from runner.rpc.gen import fleet_pb2, types_pb2
from runner.rpc.limits import ITEM_BYTES_MAX
from runner.worker.executor.returns import Place
from runner.worker.executor.transport import RelayedTransport

GATHER_S = 0.002
BATCH_ITEMS = 512
BATCH_BYTES = 256 << 10
# A wait for the reader that is shorter is not worth giving the CPUs back for.
BLOCK_AFTER_S = 0.05

Send = Callable[[bytes], None]


@dataclass(slots=True)
class _Batch:
    """Items that leave in one message; only one of the two lists has any."""

    first_index: int
    plain: list[bytes] = field(default_factory=list)  # serialised Values
    values: list[types_pb2.Value] = field(default_factory=list)
    keep: list[Any] = field(default_factory=list)  # refs in them, until these are told
    size_bytes: int = 0


class ItemSender:
    """The items of one attempt. `add` and `wait_for_reader` belong to the thread that runs the generator."""

    def __init__(
        self,
        spec: types_pb2.TaskSpec,
        assignment: fleet_pb2.Assignment,
        place: Place,
        transport: RelayedTransport,
        send: Send,
    ) -> None:
        """`send` sends a serialised Items."""
        self._task_id = TaskId(spec.task_id)
        self._backpressure = spec.backpressure
        self._place = place
        self._transport = transport
        self._send = send
        self.done = assignment.items_done  # of earlier attempts: not sent again
        self._read = assignment.items_read
        self._made = 0
        self._batch = _Batch(self.done)
        self._lock = threading.Lock()  # of the batch; held while it is sent, so that batches keep their order
        self._sent_s = -math.inf
        self._has_waiting = threading.Event()
        self._reader: Waiter | None = None  # waits for the reader
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, value: Any) -> None:
        """Take the next item.

        Raises:
            NotSerializableError: it cannot be pickled.
            StoreFullError: it is large and found no space.
            BadOptionsError: even so it is too large for a message.
        """
        index = self._made
        self._made += 1
        if index < self.done:
            return
        serialized = _serialize(value)
        is_plain = serialized.total_bytes <= INLINE_MAX_BYTES and not serialized.contained_refs
        if is_plain:
            plain = encode_inline(serialized.to_bytes())
            is_due = self._append(plain, len(plain), is_plain=True)
        else:
            wire = self._encoded(serialized, index)
            is_due = self._append(wire, wire.ByteSize(), serialized.contained_refs, is_plain=False)
        if is_due or time.monotonic() - self._sent_s >= GATHER_S:
            self.flush()
        elif not self._has_waiting.is_set():
            self._flush_soon()

    def flush(self) -> None:
        """Send what was added."""
        with self._lock:
            self._flush()

    def close(self) -> None:
        """The generator is over: send the rest, and end the thread."""
        self._is_over.set()
        self._has_waiting.set()
        self.flush()
        if self._thread is not None:
            self._thread.join()

    # ---- backpressure ----
    @property
    def must_wait(self) -> bool:
        """Whether as many items are unread as may be."""
        return self._is_ahead()

    def wait_for_reader(self) -> None:
        """Return when the next item may be made."""
        while self._is_ahead():
            self.flush()
            waiter = self._reader = Waiter((), 1, wake_on_failure=False)
            if not self._is_ahead():
                return
            if not self._transport.wait(waiter, BLOCK_AFTER_S):
                self._transport.blocked()
                try:
                    self._transport.wait(waiter, None)
                finally:
                    self._transport.unblocked()

    def was_read(self, count: int) -> None:
        """The reader has taken so many items."""
        self._read = max(self._read, count)
        if self._reader is not None:
            self._reader.finish()

    def _is_ahead(self) -> bool:
        made = self._made
        return bool(self._backpressure) and made >= self.done and made - self._read >= self._backpressure

    # ---- encoding ----
    def _encoded(self, serialized: Serialized, index: int) -> types_pb2.Value:
        object_id = item_id(self._task_id, index)
        wire = self._place(serialized, object_id, inline_max_bytes=INLINE_MAX_BYTES)
        if serialized.contained_refs and (size_bytes := wire.ByteSize()) > ITEM_BYTES_MAX:
            raise BadOptionsError(
                f"item {index} takes {size_bytes} bytes to tell, with the ids of the refs in it; the limit is"
                f" {ITEM_BYTES_MAX}. Yield fewer refs at once."
            )
        return wire

    def _append(self, item: Any, size_bytes: int, refs: Any = None, *, is_plain: bool) -> bool:
        """Add to the batch, which is of one kind; whether there is enough for a message."""
        with self._lock:
            if self._batch.values if is_plain else self._batch.plain:
                self._flush()
            batch = self._batch
            items: list[Any] = batch.plain if is_plain else batch.values
            items.append(item)
            batch.size_bytes += size_bytes
            if refs:
                batch.keep.append(refs)
            return batch.size_bytes >= BATCH_BYTES or len(items) >= BATCH_ITEMS

    def _flush(self) -> None:
        """With the lock held. An interrupt at any place repeats nothing: what was taken out is sent, or lost with the attempt."""
        batch = self._batch
        count = len(batch.plain) or len(batch.values)
        if not count:
            return
        items = fleet_pb2.Items(first_index=batch.first_index, plain=batch.plain, values=batch.values)
        self._batch = _Batch(batch.first_index + count)
        if batch.keep:
            self._transport.wake()  # the refs are told before what holds them
        self._send(items.SerializeToString())
        self._sent_s = time.monotonic()

    def _flush_soon(self) -> None:
        self._has_waiting.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._flush_for_others, name="runner-items", daemon=True)
            self._thread.start()

    def _flush_for_others(self) -> None:
        """While the generator takes its time."""
        while not self._is_over.is_set():  # looked at after each `clear`, which may undo what `close` has set
            self._has_waiting.wait()
            self._is_over.wait(GATHER_S)
            self._has_waiting.clear()
            self.flush()


def _serialize(value: Any) -> Serialized:
    try:
        return serialize(value)
    except Exception as error:
        raise not_serializable(value, "yielded value", error) from None
