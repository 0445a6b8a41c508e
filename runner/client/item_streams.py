"""What a session knows of the generators that it reads: which items have come, and which were handed out. Without I/O.

Items come in order, unasked. After a loss the item that comes next is asked for, and everything from it on comes again:
what is here already is skipped, and what comes after a gap is ignored until then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from runner.client.local_objects import LocalObjects
from runner.ids import ObjectId, TaskId, item_id, return_id, task_of
from runner.rpc.gen import client_pb2


class Producer(Protocol):
    """Who makes the items of a stream, and is told how far they were read. Called under the session's lock."""

    def read(self, stream_id: str, count: int) -> None:
        """So many items were handed out; called for streams with backpressure only."""

    def closed(self, stream_id: str, count: int, *, go_on: bool) -> None:
        """Nobody reads on after `count` items. What is unread may go, and its maker ends unless it is to `go_on`."""


@dataclass(slots=True, eq=False)
class ItemStream:
    """One generator call, named by its task's or call's id."""

    stream_id: str
    producer: Producer
    has_backpressure: bool
    is_local: bool  # the server does not know of it
    received: int = 0
    read: int = 0
    is_over: bool = False  # there is nothing after what was received; the completion's outcome is known
    is_closed: bool = False
    unread: deque[ObjectId] = field(default_factory=deque)
    awaited: ObjectId = field(init=False)  # the item that comes next

    def __post_init__(self) -> None:
        self.awaited = item_id(TaskId(self.stream_id), self.received)

    @property
    def completion(self) -> ObjectId:
        """The object that is ready when the generator is done; its failure is the generator's."""
        return return_id(TaskId(self.stream_id), 0)


Settle = Callable[[str, bytes, bool], None]


class ItemStreams:
    """The open streams of one session. Its server is the producer of most; calls of actors have another one."""

    def __init__(
        self,
        counts: MutableMapping[str, int],
        outcomes: MutableMapping[str, Any],
        asked: set[str],
        local: LocalObjects,
        operate: Callable[[bytes], None],
        settle: Settle,
        new_outcome: Callable[[bytes, bool], Any],
    ) -> None:
        """All of them are the session machine's: live refs, outcomes, what the server will tell unasked, objects that
        only this process knows, how it queues operations and takes outcomes, and what it keeps of one."""
        self._new_outcome = new_outcome
        self._counts = counts
        self._outcomes = outcomes
        self._asked = asked
        self._local = local
        self._operate = operate
        self._settle = settle
        self._by_id: dict[str, ItemStream] = {}
        self._reads: dict[str, int] = {}  # how far streams were read, to be told to the server

    def open(self, stream_id: str, *, has_backpressure: bool, producer: Producer | None = None) -> ItemStream:
        """A call was made; its completion, `return_id(stream_id, 0)`, is created beside this.

        `producer` makes the items and hands them to `arrived`; None: the server does.
        """
        stream = self._by_id[stream_id] = ItemStream(
            stream_id, producer or self, has_backpressure, producer is not None
        )
        if producer is None:
            self._asked.update((stream.awaited, stream.completion))
        else:
            self._local.expect(stream.awaited)
        return stream

    def get(self, stream_id: str) -> ItemStream | None:
        """An open stream."""
        return self._by_id.get(stream_id)

    def arrived(
        self,
        stream_id: str,
        first_index: int,
        values: Sequence[bytes],
        *,
        is_over: bool = False,
        is_registered: bool = False,
    ) -> None:
        """Serialised Values of items came, in order, and with `is_over` the end after them.

        The completion's outcome must be known before the end. `is_registered`: the items' maker has put them at the
        server, as in `LocalObjects.settle`.
        """
        stream = self._by_id.get(stream_id)
        if stream is None or first_index > stream.received:
            return
        awaited = stream.awaited
        news = values[stream.received - first_index :]
        if stream.is_local:
            for value in news:
                self._add(stream, value, is_failure=False, is_registered=is_registered)
        elif news:
            self._add_all(stream, news)
        stream.awaited = item_id(TaskId(stream_id), stream.received)
        if stream.is_local:
            self._local.expected(awaited)
            if not is_over:
                self._local.expect(stream.awaited)
        if is_over and stream.completion in self._outcomes:
            stream.is_over = True
            self._settle(stream.awaited, b"", False)  # wakes who waits for it: there is no such item
        if awaited in self._asked:
            self._asked.discard(awaited)
            if not stream.is_over:
                self._asked.add(stream.awaited)

    def failed(self, object_id: str, failure: bytes) -> None:
        """An object that nobody here counts has failed: the next item of a stream, perhaps, which ends with it."""
        task_id = task_of(ObjectId(object_id))
        stream = self._by_id.get(task_id) if task_id is not None else None
        if stream is not None and not stream.is_over and stream.awaited == object_id:
            stream.is_over = True
            self._add(stream, failure, is_failure=True)

    def take(self, stream: ItemStream) -> ObjectId | None:
        """Hand out the next item, with its one ref; None when it is not here."""
        if not stream.unread:
            return None
        stream.read += 1
        if stream.has_backpressure:
            stream.producer.read(stream.stream_id, stream.read)
        return stream.unread.popleft()

    def close(self, stream_id: str, *, go_on: bool = False) -> None:
        """Nobody reads on. What is unread goes, and the maker ends unless it is to `go_on`. Idempotent."""
        stream = self._by_id.pop(stream_id, None)
        if stream is None:
            return
        stream.is_closed = True
        self._asked.discard(stream.awaited)
        has_news = bool(stream.unread) or not stream.is_over  # else its maker, too, has nothing left of it
        if stream.is_local:
            self._local.expected(stream.awaited)
        known = []  # to the server: local ones that their maker has put there
        for object_id in stream.unread:
            del self._counts[object_id]
            del self._outcomes[object_id]
            if stream.is_local and not self._local.forget(object_id):
                known.append(object_id)
        if known:
            refs = client_pb2.RefList(object_ids=known)
            self._operate(client_pb2.Operation(release_refs=refs).SerializeToString())
        stream.unread.clear()
        if has_news:
            stream.producer.closed(stream_id, stream.read, go_on=go_on)
        self._settle(stream.awaited, b"", False)

    def collected(self, stream_id: str) -> None:
        """The generator was collected. Somebody else's ref to its completion still wants it done."""
        stream = self._by_id.get(stream_id)
        if stream is not None:
            self.close(stream_id, go_on=self._counts.get(stream.completion, 0) > 1)

    # ---- the server as producer ----
    def read(self, stream_id: str, count: int) -> None:
        """It is told with the next frame."""
        self._reads[stream_id] = count

    def closed(self, stream_id: str, count: int, *, go_on: bool) -> None:
        self._reads.pop(stream_id, None)
        drop = client_pb2.StreamRead(task_id=stream_id, count=count, go_on=go_on)
        self._operate(client_pb2.Operation(drop_stream=drop).SerializeToString())

    @property
    def has_reads(self) -> bool:
        """Whether the server has yet to be told how far something was read."""
        return bool(self._reads)

    def tell_reads(self) -> None:
        """Queue what it has to be told."""
        reads, self._reads = self._reads, {}
        for stream_id, count in reads.items():
            read = client_pb2.StreamRead(task_id=stream_id, count=count)
            self._operate(client_pb2.Operation(read_stream=read).SerializeToString())

    def _add_all(self, stream: ItemStream, values: Sequence[bytes]) -> None:
        """As `_add` for each, but thousands a second pass here."""
        counts, outcomes, new_outcome, unread = self._counts, self._outcomes, self._new_outcome, stream.unread
        prefix = stream.awaited.removesuffix(str(stream.received))
        for number, value in enumerate(values, stream.received):
            object_id = ObjectId(f"{prefix}{number}")
            counts[object_id] = 1
            outcomes[object_id] = new_outcome(value, False)
            unread.append(object_id)
        stream.received += len(values)
        self._settle(stream.awaited, values[0], False)  # wakes who waits; nobody can wait for a later one

    def _add(self, stream: ItemStream, payload: bytes, *, is_failure: bool, is_registered: bool = False) -> None:
        object_id = item_id(TaskId(stream.stream_id), stream.received)
        stream.received += 1
        stream.unread.append(object_id)
        if stream.is_local:
            self._local.created((object_id,))
            self._local.settle(object_id, payload, is_failure=is_failure, is_registered=is_registered)
        else:
            self._counts[object_id] = 1
            self._settle(object_id, payload, is_failure)
