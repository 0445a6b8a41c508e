"""Actors as one session sees them: creating, finding, calling, cancelling. Joins channels, links and the session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from runner import config
from runner.client import fork_guard
from runner.client.actors import failures as actor_failures
from runner.client.actors.arguments import Draft, values_of, when_final
from runner.client.actors.channel import ActorChannel, Call, ChannelState, End
from runner.client.actors.link import Link
from runner.client.actors.links import ActorLinks
from runner.client.generators import ObjectRefGenerator
from runner.client.waiting import Waiter
from runner.client.wire import bounded
from runner.errors import BadOptionsError, PendingCallsLimitExceededError, UsageError
from runner.ids import ObjectId, TaskId, return_id, task_of
from runner.objects.refs import ObjectRef
from runner.objects.serialization import serialize_plain
from runner.rpc.actor_frames import STREAMING, ActorKind, Frame
from runner.rpc.gen import client_pb2, types_pb2

if TYPE_CHECKING:
    from runner.client.actors.meta import ActorMeta, MethodMeta
    from runner.client.session import Session

# A thread that waits for answers reads them itself for so long; then it leaves that to the links' thread.
_CLIENT_READ_S = 1.0
_EXECUTOR_READ_S = 0.002  # its CPUs are given back while it waits
_RELAYED_BYTES_MAX = 512 << 10
_ALL_ITEMS = 1 << 40
_DONE = types_pb2.Value(inline=serialize_plain(None)).SerializeToString()


@dataclass(slots=True)
class _Search:
    """A question to the server by name, asked again after a reconnect."""

    operation: bytes
    waiter: Waiter
    found: client_pb2.FoundActor | None = None


class ActorClient:
    """The actors of one session, whose lock it shares. Made when the first one is used."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = session._lock
        self._machine = session.machine
        self._must_relay = config.load().actor_relay
        self._channels: dict[str, ActorChannel] = {}
        self._callers: dict[str, str] = {}  # unanswered calls: call id -> actor
        self._searches: dict[str, _Search] = {}
        self._read_s = _EXECUTOR_READ_S if session.info.is_executor else _CLIENT_READ_S
        self._gate = session.transport.gate
        self.links = ActorLinks(self, self._lock, self._gate)
        self._machine.actors = self
        session.transport.want_callbacks()  # where actors are is told at any time
        fork_guard.guard(self.links)

    # ---- calls ----
    def call(
        self, ref: ObjectRef[Any], meta: ActorMeta, method: MethodMeta, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Call a method of the actor whose handle object is `ref`; see `ActorMethod.remote`.

        Raises:
            PendingCallsLimitExceededError: the actor has `max_pending_calls` unanswered calls of this process.
            NotSerializableError: an argument cannot be sent; says which.
        """
        session = self._session
        channel = self._channels.get(ref.id) or self._open(ref)
        if 0 <= meta.max_pending_calls <= channel.pending:
            raise PendingCallsLimitExceededError(
                f"{meta.class_name} ({channel.actor_id}) has {channel.pending} unanswered calls of this process, and"
                f" max_pending_calls is {meta.max_pending_calls}. Wait for some of them with runner.wait()."
            )
        name = f"{meta.class_name}.{method.name}"
        value, refs, inside = session.outgoing.arguments(name, args, kwargs)
        call_id = session.outgoing.new_id("c")
        object_ids = [return_id(TaskId(call_id), index) for index in range(abs(method.num_returns))]
        returns = (method.num_returns, method.backpressure)
        with self._gate, self._lock:
            seq = channel.next_seq()
            start = (ActorKind.CALL, seq, call_id, method.wire_name, value.SerializeToString())
            draft = Draft(start, returns, refs, bool(value.contained_refs))
            frame = bounded(draft.frame([(each.id, b"") for each in refs]), f"A call of {name}")
            keep = (ref, refs, inside)
            call = Call(seq, call_id, name, method.num_returns, method.retries, frame, keep, method.may_retry)
            call.holds_up = not meta.is_concurrent
            is_waiting = bool(refs) and when_final(self._machine, refs, partial(self._complete, channel, call, draft))
            call.is_ready = not is_waiting and self._fill(channel, call, draft)
            self._machine.local.created(object_ids)
            if method.num_returns == STREAMING:
                self._machine.streams.open(call_id, has_backpressure=method.backpressure > 0, producer=self)
            self._callers[call_id] = ref.id
            channel.call(call)
            self._want_awake(channel)
        result: list[ObjectRef[Any]] = [ObjectRef(object_id, session) for object_id in object_ids]
        if not call.is_ready:
            session.transport.wake()
            self.links.serve()
        self.links.called(channel)
        if method.num_returns == STREAMING:
            stream = self._machine.streams.get(call_id)
            assert stream is not None, "opened with the call"
            return ObjectRefGenerator(session, stream, result[0])
        if len(result) == 1:
            return result[0]
        return result or None  # as in Ray

    def cancel(self, ref: ObjectRef[Any], call_id: str, *, force: bool, recursive: bool) -> None:
        """Ask for the end of the call that makes `ref`; nothing when it is over.

        Raises:
            BadOptionsError: `force`, which would end the actor.
            UsageError: another process has made the call.
        """
        if force:
            raise BadOptionsError(
                f"cancel({ref!r}, force=True) cannot work: it is a call of an actor, and force would end the actor's"
                " process. Leave force out, or use runner.kill(handle)."
            )
        with self._gate, self._lock:
            found = self._find(call_id)
            if found is None:
                if ref.id in self._machine.outcomes or ref.id in self._machine.local:
                    return
                raise UsageError(
                    f"{ref!r} is a result of an actor's call that another process has made: only that one can cancel it."
                )
            channel, call = found
            channel.cancel(call, recursive=recursive)
        self.links.called(channel)

    def wait(self, waiter: Waiter, timeout_s: float | None) -> bool:
        """Block until `waiter` is done; reads the actors' sockets itself where all answers come from there."""
        transport, local = self._session.transport, self._machine.local
        if waiter.done or local.has_none_of(waiter.ids):
            self.links.flush_all()
            return transport.wait(waiter, timeout_s)
        # A client's other threads read what the server says; an executor's main thread has to, and gives its CPUs back.
        otherwise = partial(transport.wait, waiter) if self._session.info.is_executor else waiter.block
        read_s = self._read_s if local.has_all_of(waiter.ids) else 0.0
        return self.links.wait(waiter, timeout_s, read_s, otherwise)

    def close(self, timeout_s: float) -> None:
        """Hang up on all actors. Idempotent."""
        self.links.close(timeout_s)

    # ---- creating and finding ----
    def search(self, request_id: str, operation: bytes, again: bytes) -> client_pb2.FoundActor:
        """Send `operation`, which the server answers by a FoundActor of this id; `again` asks the same after a loss."""
        waiter = Waiter((), 1, wake_on_failure=False)
        search = _Search(again, waiter)
        with self._gate, self._lock:
            self._searches[request_id] = search
            self._machine.drain_dropped()  # handles dropped before this count no more: their actors have no names
            self._machine.operate(operation)
            self._machine.add_waiter(waiter)
        try:
            self._session._block(waiter, None)
        finally:
            with self._gate, self._lock:
                del self._searches[request_id]
        self._session._check_usable()
        assert search.found is not None
        return search.found

    def kill(self, ref: ObjectRef[Any], actor_id: str, *, no_restart: bool) -> None:
        """End the actor whose handle object is `ref`; calls made after this do not reach this life of it."""
        kill = client_pb2.KillActor(actor_id=actor_id, no_restart=no_restart)
        with self._gate, self._lock:
            self._machine.operate(client_pb2.Operation(kill_actor=kill).SerializeToString())
            if (channel := self._channels.get(ref.id)) is not None:
                channel.killed()
        self._session.transport.wake()

    # ---- ActorListener ----
    def told(self, frame: client_pb2.ServerFrame) -> None:
        for update in frame.actors:
            channel = self._channels.get(return_id(TaskId(update.actor_id), 0))
            if channel is not None:
                self._updated(channel, update)
        for piece in frame.actor_frames:
            self.links.relayed(piece.actor_id, piece.incarnation, piece.frames)
        for found in frame.found_actors:
            search = self._searches.get(found.request_id)
            if search is not None:
                search.found = found
                search.waiter.finish()
        self.links.ring()

    def ask_again(self) -> None:
        for search in self._searches.values():
            self._machine.operate(search.operation)
        if self._channels:
            self._watch([channel.actor_id for channel in self._channels.values()])
        for channel in self._channels.values():
            link = self.links.link(channel.actor_id)
            if link is not None and link.sock is None and channel.state is not ChannelState.WAITING:
                self.links.connect_by_relay(channel)  # part of its stream may be lost

    def released(self, object_id: str) -> None:
        channel = self._channels.pop(object_id, None)
        if channel is not None:
            self.links.drop(channel.actor_id)

    # ---- Producer: of the streams that calls make ----
    def read(self, stream_id: str, count: int) -> None:
        if (found := self._find(stream_id)) is not None:
            found[0].read(found[1], count)
            self.links.flush_soon(found[0].actor_id)

    def closed(self, stream_id: str, count: int, *, go_on: bool) -> None:
        if (found := self._find(stream_id)) is None:
            return
        channel, call = found
        if go_on:
            channel.read(call, _ALL_ITEMS)
        else:
            channel.close_stream(call)
        self.links.flush_soon(channel.actor_id)

    # ---- Desk ----
    def frames(self, link: Link, frames: list[Frame]) -> bool:
        for frame in frames:
            try:
                is_accepted = link.channel.received(frame)
            except KeyboardInterrupt as error:  # somebody's Ctrl-C in get(): what has come must not be lost
                link.interrupt = error
                is_accepted = link.channel.received(frame)
            if not is_accepted:
                return False
        return True

    def relay(self, channel: ActorChannel, data: memoryview) -> None:
        for start in range(0, len(data), _RELAYED_BYTES_MAX):
            piece = client_pb2.ActorFrames(
                actor_id=channel.actor_id,
                incarnation=channel.incarnation,
                frames=bytes(data[start : start + _RELAYED_BYTES_MAX]),
            )
            self._machine.operate(client_pb2.Operation(actor_frames=piece).SerializeToString())
        self.links.ring()

    def tidy(self) -> None:
        if self._machine.has_operations:
            self._session.transport.wake()

    # ---- inside; under the lock ----
    def _updated(self, channel: ActorChannel, update: client_pb2.ActorUpdate) -> None:
        incarnation = channel.incarnation
        channel.updated(update)
        self._want_awake(channel)
        if channel.state in (ChannelState.WAITING, ChannelState.DEAD):
            self.links.drop(channel.actor_id)
        elif channel.incarnation != incarnation:
            if self._must_relay or update.host_id != self._session.info.host_id or not update.address:
                self.links.connect_by_relay(channel)
            else:
                self.links.connect(channel)

    def _want_awake(self, channel: ActorChannel) -> None:
        """What is sent to a frozen actor of this host waits there, and the server does not see it."""
        if channel.is_asleep and channel.pending:
            wanted = client_pb2.ActorFrames(actor_id=channel.actor_id, incarnation=channel.incarnation)
            self._machine.operate(client_pb2.Operation(actor_frames=wanted).SerializeToString())
            self.links.ring()

    def _open(self, ref: ObjectRef[Any]) -> ActorChannel:
        """The channel to an actor of which this process holds the handle object."""
        with self._gate, self._lock:
            channel = self._channels.get(ref.id)
            if channel is None:
                actor_id = task_of(ref.id)
                assert actor_id is not None
                desk = _CallDesk(self, self._session)
                channel = desk.channel = ActorChannel(actor_id, self._session.info.client_id, desk)
                self._channels[ref.id] = channel
                self._watch([actor_id])
        self._session.transport.wake()
        return channel

    def _watch(self, actor_ids: Sequence[str]) -> None:
        watch = client_pb2.RefList(object_ids=actor_ids)
        self._machine.operate(client_pb2.Operation(watch_actors=watch).SerializeToString())

    def _find(self, call_id: str) -> tuple[ActorChannel, Call] | None:
        """An unanswered call."""
        channel = self._channels.get(self._callers.get(call_id, ""))
        call = channel.find(call_id) if channel is not None else None
        return None if channel is None or call is None else (channel, call)

    def _ready(self, channel: ActorChannel, call: Call) -> None:
        channel.ready(call)
        if channel.out_bytes:
            self.links.flush_soon(channel.actor_id)

    def _fill(self, channel: ActorChannel, call: Call, draft: Draft) -> bool:
        """All that it needs is final: put the values in. False: the server has to know of some first, and then it is sent."""
        must_wait = draft.must_wait
        if draft.refs:
            reads_files = not self._is_relayed(channel)
            values, has_news = values_of(self._machine, draft.refs, self._session.share, reads_files=reads_files)
            call.frame = draft.frame(values)
            must_wait = must_wait or has_news
        return not (must_wait and self._machine.after_ack(partial(self._ready, channel, call)))

    def _complete(self, channel: ActorChannel, call: Call, draft: Draft) -> None:
        """What it needs has become final."""
        if channel.find(call.call_id) is call and self._fill(channel, call, draft):
            self._ready(channel, call)
        self.links.ring()

    def _is_relayed(self, channel: ActorChannel) -> bool:
        place = channel.place
        return self._must_relay or place is None or place.host_id != self._session.info.host_id

    def forget(self, call: Call) -> None:
        """It is over."""
        self._callers.pop(call.call_id, None)

    def hold(self, channel: ActorChannel, seq: int) -> None:
        """Tell the actor that registered values are held here, as soon as the server knows it."""
        link = self.links.link(channel.actor_id)
        # Without a handle we hang up, and the actor lets go of them: that must not be sooner.
        self._session.borrow(handle_id(channel.actor_id))
        handle: ObjectRef[Any] = ObjectRef(handle_id(channel.actor_id), self._session)

        def release(_handle: ObjectRef[Any] = handle) -> None:
            if self.links.link(channel.actor_id) is link:  # another connection knows nothing of it
                channel.released(seq)
                self.links.flush_soon(channel.actor_id)

        if not self._machine.after_ack(release):
            release()


class _CallDesk:
    """Turns what a channel tells of its calls into outcomes of this session's objects."""

    channel: ActorChannel

    def __init__(self, actors: ActorClient, session: Session) -> None:
        self._actors = actors
        self._local = session.machine.local
        self._streams = session.machine.streams

    def answered(self, call: Call, values: list[bytes], *, is_registered: bool) -> None:
        self._actors.forget(call)
        for index, value in enumerate(values):
            object_id = return_id(TaskId(call.call_id), index)
            self._local.settle(object_id, value, is_failure=False, is_registered=is_registered)
        if call.num_returns == STREAMING:
            self._local.settle(return_id(TaskId(call.call_id), 0), _DONE, is_failure=False)
            self._streams.arrived(call.call_id, call.items, (), is_over=True)

    def failed(self, call: Call, failure: bytes) -> None:
        self._actors.forget(call)
        for index in range(max(call.num_returns, 1)):
            self._local.settle(return_id(TaskId(call.call_id), index), failure, is_failure=True)
        if call.num_returns == STREAMING:
            self._streams.arrived(call.call_id, call.items, (), is_over=True)

    def item(self, call: Call, index: int, value: bytes, *, is_registered: bool) -> None:
        self._streams.arrived(call.call_id, index, (value,), is_registered=is_registered)

    def ended(self, call: Call, end: End, failure: bytes) -> None:
        self.failed(call, actor_failures.failure_of(call, self.channel.actor_id, end, failure))

    def registered(self, seq: int) -> None:
        self._actors.hold(self.channel, seq)


def find_operation(request_id: str, name: str, namespace: str) -> bytes:
    """A serialised operation that asks for an actor by name."""
    find = client_pb2.FindActor(request_id=request_id, name=name, namespace=namespace)
    return client_pb2.Operation(find_actor=find).SerializeToString()


def handle_id(actor_id: str) -> ObjectId:
    """The object that stands for an actor: whoever holds a handle holds a ref to it."""
    return return_id(TaskId(actor_id), 0)
