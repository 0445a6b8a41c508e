"""`runner.stream`: what happens to runs, as it happens; each event once and in order, across reconnects."""

from __future__ import annotations

import asyncio
import functools
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from runner.client.events import CLUSTER_KINDS, KINDS, NUMBERS, Event, from_wire
from runner.client.futures import set_soon
from runner.client.requests import ask
from runner.errors import BadOptionsError, CoordinatorUnreachableError, RunnerError, UsageError
from runner.ids import task_of
from runner.objects.refs import ObjectRef
from runner.rpc.gen import client_pb2
from runner.rpc.limits import ITEM_BYTES_MAX

if TYPE_CHECKING:
    from runner.client.grpc_transport import GrpcTransport
    from runner.client.polled import PolledTransport
    from runner.client.session import Session

# The reader on the wire pauses above this many events that nobody has taken yet, and goes on below half of it.
BUFFER_MAX_EVENTS = 20_000
_RETRY_FIRST_S = 0.05
_RETRY_MAX_S = 2.0
_ENDS_MAX = 3
_SUBMITS_ACKED_S = 30.0


class Feed:
    """Reads one watch in the transport's thread, reconnecting at its cursor, and hands each event on."""

    def __init__(
        self, session: Session, transport: GrpcTransport | PolledTransport, request: client_pb2.WatchRequest
    ) -> None:
        self._session = session
        self._transport = transport
        self.request = request  # its from_seq is the cursor
        self._settled: set[str] = set()

    async def run(self, push: Callable[[Event], None], has_room: Callable[[], Awaitable[None]]) -> None:
        """Until the server says that all is told.

        Raises:
            RunnerError: the session is over, or the coordinator refuses the watch.
        """
        backoff_s = _RETRY_FIRST_S
        ends = 0  # in a row, that told nothing
        while True:
            try:
                ends += 1
                async for reply in self._transport.stream("Watch", self.request, client_pb2.WatchReply):
                    backoff_s, ends = _RETRY_FIRST_S, 0
                    self._push_all(reply, push)
                    await has_room()
                if self._is_complete():
                    return
            except CoordinatorUnreachableError:
                ends = 0
            failure = self._session.failure
            if failure is not None:
                raise failure
            await asyncio.sleep(backoff_s)
            if self._session.machine.is_connected and ends >= _ENDS_MAX and self.request.until_done:
                return  # the coordinator is there and knows no more about these tasks
            backoff_s = min(2 * backoff_s, _RETRY_MAX_S)

    def _push_all(self, reply: client_pb2.WatchReply, push: Callable[[Event], None]) -> None:
        for message in reply.events:
            event = from_wire(message)
            if event.is_settled:
                if event.task_id in self._settled:
                    continue  # told again by the end of a watch that was cut
                self._settled.add(event.task_id)
            push(event)
        self.request.from_seq = max(self.request.from_seq, reply.next_seq)

    def _is_complete(self) -> bool:
        if self.request.until_done:
            return self._settled.issuperset(self.request.task_ids)
        return not self.request.follow


class EventStream:
    """Iterator of events, plain or async; one consumer at a time. Ends when all its runs have settled.

    Close it (or use it as a context manager) when leaving early.
    """

    def __init__(self, session: Session, task_ids: Sequence[str], kinds: frozenset[str]) -> None:
        self._transport = _transport(session)
        self._kinds = kinds
        self._queue: queue.SimpleQueue[Event | RunnerError | None] = queue.SimpleQueue()
        self._notify: Callable[[], None] | None = None
        self._is_over = False
        self._unsettled = set(task_ids)
        self._last: Event | None = None  # the end of the last run: nothing comes after it
        # States are always read: they tell the end.
        wanted = [client_pb2.EventKind.Name(NUMBERS[kind]) for kind in sorted((kinds - CLUSTER_KINDS) | {"state"})]
        runs = client_pb2.WatchRequest(task_ids=task_ids, kinds=wanted, until_done=True)
        if (size_bytes := runs.ByteSize()) > ITEM_BYTES_MAX:
            raise BadOptionsError(
                f"stream() was given {len(task_ids)} tasks, whose ids take {size_bytes} bytes; the limit is"
                f" {ITEM_BYTES_MAX}. Give it fewer of them."
            )
        machines = client_pb2.WatchRequest(
            kinds=[client_pb2.EventKind.Name(NUMBERS[kind]) for kind in sorted(kinds & CLUSTER_KINDS)],
            from_seq=session.info.machines_from_seq,
            follow=True,
        )
        feeds = [Feed(session, self._transport, runs)]
        if kinds & CLUSTER_KINDS:
            feeds.append(Feed(session, self._transport, machines))
        self._reading: Future[None] = self._transport.threaded.start(lambda: self._read(feeds))

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        item = None if self._is_over else self._queue.get()
        if item is None or isinstance(item, RunnerError):
            self._finish(item)
            raise StopIteration
        return item

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        item = None if self._is_over else await self._next_item()
        if item is None or isinstance(item, RunnerError):
            self._finish(item)
            raise StopAsyncIteration
        return item

    def close(self) -> None:
        """Stop reading. Idempotent."""
        self._reading.cancel()
        self._is_over = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        reading: Future[None] | None = getattr(self, "_reading", None)
        if reading is not None:
            reading.cancel()

    def _finish(self, item: RunnerError | None) -> None:
        self.close()
        if item is not None:
            raise type(item)(*item.args)

    async def _next_item(self) -> Event | RunnerError | None:
        loop = asyncio.get_running_loop()
        while self._queue.empty():
            arrived: asyncio.Future[None] = loop.create_future()
            self._notify = functools.partial(set_soon, loop, arrived)
            try:
                if self._queue.empty():
                    await arrived
            finally:
                self._notify = None
        return self._queue.get_nowait()

    # ---- in the transport's thread ----
    async def _read(self, feeds: Sequence[Feed]) -> None:
        last: RunnerError | None = None
        others = [asyncio.ensure_future(feed.run(self._push, self._has_room)) for feed in feeds[1:]]
        try:
            await feeds[0].run(self._push, self._has_room)
        except RunnerError as error:
            last = error
        finally:
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            self._let_last_go()
            self._put(last)

    def _push(self, event: Event) -> None:
        if event.is_settled:
            self._unsettled.discard(event.task_id)
        if event.kind not in self._kinds:
            return
        if event.kind not in CLUSTER_KINDS:
            self._let_last_go()
        if event.is_settled and not self._unsettled:
            self._last = event  # what machines have said until now goes before it
        else:
            self._put(event)

    def _let_last_go(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            self._put(last)

    def _put(self, item: Event | RunnerError | None) -> None:
        self._queue.put(item)
        notify = self._notify
        if notify is not None:
            notify()

    async def _has_room(self) -> None:
        await below(self._queue, BUFFER_MAX_EVENTS)


async def below(items: queue.SimpleQueue[Any], limit: int) -> None:
    """Return when the queue holds fewer than `limit` items. Polls: its consumer is any thread, and seldom this slow."""
    while items.qsize() >= limit:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def open_stream(
    session: Session,
    runs: ObjectRef[object] | str | Iterable[ObjectRef[object] | str] | None,
    kinds: str | Iterable[str] | None,
) -> EventStream:
    """A stream of the events of `runs`: refs, names of runs, or None for every run that this session has submitted.

    Raises:
        UsageError: no such run.
        BadOptionsError: an unknown kind.
    """
    chosen = frozenset(KINDS.values() if kinds is None else [kinds] if isinstance(kinds, str) else kinds)
    if unknown := sorted(chosen - set(KINDS.values())):
        raise BadOptionsError(f"kinds has {unknown[0]!r}; valid ones are {', '.join(KINDS.values())}.")
    task_ids = _task_ids(session, runs)
    # A watch may overtake submits that are still on their way.
    if not session.flush(_SUBMITS_ACKED_S) and session.failure is not None:
        raise session.failure
    return EventStream(session, task_ids, chosen)


def _task_ids(session: Session, runs: ObjectRef[object] | str | Iterable[ObjectRef[object] | str] | None) -> list[str]:
    if runs is None:
        if not session.runs:
            raise UsageError("There is nothing to stream: this session has submitted no run (a task with a name).")
        return list(session.runs)
    task_ids: dict[str, None] = {}
    for run in [runs] if isinstance(runs, ObjectRef | str) else runs:
        if isinstance(run, str):
            task_ids.update(dict.fromkeys(_named(session, run)))
            continue
        if not isinstance(run, ObjectRef):
            raise BadOptionsError(f"stream() takes refs or names of runs, not a {type(run).__name__}.")
        task_id = task_of(run.id)
        if task_id is None:
            raise UsageError(f"{run!r} was made by put(): there is no task to watch.")
        task_ids[task_id] = None
    if not task_ids:
        raise UsageError("stream() was given an empty list of runs.")
    return list(task_ids)


def _named(session: Session, name: str) -> list[str]:
    """Ids of the tasks of that name in the cluster."""
    ours = [task_id for task_id, run in session.runs.items() if run == name]
    if ours:
        return ours
    request = client_pb2.ListTasksRequest(name=name, page_size=1000)
    found: list[str] = []
    while True:
        reply = ask(session, "ListTasks", request, client_pb2.ListTasksReply)
        found += [task.task_id for task in reply.tasks]
        if not reply.next_page_token:
            break
        request.page_token = reply.next_page_token
    if not found:
        raise UsageError(f"There is no run called {name!r} in this cluster.")
    return found


def _transport(session: Session) -> GrpcTransport | PolledTransport:
    if not session.info.is_executor:
        return client_transport(session)
    from runner.client.polled import polled_transport

    return polled_transport(session)


def client_transport(session: Session) -> GrpcTransport:
    """The transport of a client's session, which can do more than an executor's.

    Raises:
        UsageError: this is a task.
    """
    if session.info.is_executor:  # asked before gRPC is imported, which executors never do
        raise UsageError("This works in clients only: inside a task there is no connection to the coordinator.")
    from runner.client.grpc_transport import GrpcTransport

    assert isinstance(session.transport, GrpcTransport)
    return session.transport
