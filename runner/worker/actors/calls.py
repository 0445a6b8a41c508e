"""One call of an actor: what it asks for, and its answer as frames."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from runner.client.pickling_errors import not_serializable
from runner.client.session import Session
from runner.client.task_errors import failure_from_exception
from runner.client.wire import varint
from runner.errors import ObjectLostError, ProtocolViolationError, StoreFullError
from runner.ids import ObjectId, TaskId, item_id, return_id
from runner.objects import arguments
from runner.objects.refs import ObjectRef, load_ref
from runner.objects.serialization import Serialized, is_plain, serialize, serialize_plain
from runner.objects.values import INLINE_MAX_BYTES
from runner.rpc.actor_frames import REGISTERED, STREAMING, ActorKind, encode
from runner.rpc.gen import types_pb2
from runner.worker.executor.returns import INLINE_BYTES_MAX

if TYPE_CHECKING:
    from runner.hooks import ResumeContext
    from runner.worker.actors.channel import Channel
    from runner.worker.executor.api import RunningTask

_VALUE_INLINE = b"\x0a"  # types_pb2.Value.inline = 1, length-delimited

Prepared = tuple[tuple[Any, ...], dict[str, Any]]
Decode = Callable[[str, bytes], Any]


class Call:
    """One CALL frame on its way. To the user's code it is the context, see `runner.client.context.TaskContext`."""

    __slots__ = (
        "actor", "args", "backpressure", "borrowed", "call_id", "channel", "children", "dependencies", "group", "has_begun",
        "is_cancelled", "is_closed", "is_made", "items_read", "look", "method", "moved", "must_wait", "num_returns", "running", "seq",
    )  # fmt: skip

    def __init__(self, channel: Channel, frame: list[Any], actor: RunningTask) -> None:
        """Raises ProtocolViolationError."""
        self.seq: int
        self.call_id: str
        self.method: str
        _, self.seq, self.call_id, method, self.args, self.dependencies, self.num_returns, self.backpressure = frame
        if not (type(self.call_id) is type(method) is str and type(self.args) is bytes):
            raise ProtocolViolationError(f"not a call: {repr(frame)[:80]}")
        self.method, _, self.group = method.partition("@")
        self.channel = channel
        self.actor = actor
        self.has_begun = False
        self.is_cancelled = False
        self.is_closed = False  # nobody reads its stream on
        self.is_made = False  # its answer, which may still wait for the coordinator: a cancel comes too late
        self.items_read = 0
        self.must_wait = False  # the answer names values that the coordinator must know first
        self.borrowed: list[str] = []  # objects of which refs came with the arguments
        self.children: list[tuple[str, Callable[[str], None]]] = []  # what it has submitted, and how to cancel it
        self.moved: Callable[[], None] | None = None  # tell a stream that waits of READ, CLOSE_STREAM and CANCEL
        self.look: Callable[[], None] | None = None  # take in what has come, where nobody does meanwhile
        self.running: Any = None  # the asyncio task

    @property
    def is_stream(self) -> bool:
        return bool(self.num_returns == STREAMING)

    @property
    def is_over(self) -> bool:
        """Whether nobody wants more items of its stream."""
        return self.is_cancelled or self.is_closed or not self.channel.is_open

    def may_make(self, index: int) -> bool:
        """Whether the stream may make its item `index` now."""
        return not self.channel.is_full and (not self.backpressure or index - self.items_read < self.backpressure)

    # ---- TaskContext ----
    @property
    def task_id(self) -> str:
        return self.call_id

    @property
    def task_name(self) -> str:
        return self.actor.class_name + "." + self.method

    @property
    def actor_id(self) -> str:
        return self.actor.actor_id

    @property
    def actor_name(self) -> str:
        return self.actor.actor_name

    @property
    def actor_meta(self) -> bytes:
        return self.actor.actor_meta

    @property
    def attempt(self) -> int:
        return self.actor.attempt

    @property
    def machine_id(self) -> str:
        return self.actor.machine_id

    @property
    def gpu_ids(self) -> tuple[int, ...]:
        return self.actor.gpu_ids

    @property
    def group_id(self) -> str:
        return self.actor.group_id

    @property
    def is_group_for_children(self) -> bool:
        return self.actor.is_group_for_children

    @property
    def resources(self) -> Mapping[str, float]:
        return self.actor.resources

    def report(self, values: Mapping[str, Any], *, step: int | None, checkpoint: Any) -> None:
        """For the actor as a whole: its creation task has the metrics and the checkpoint."""
        self.actor.report(values, step=step, checkpoint=checkpoint)

    def mark_phase(self, name: str) -> None:
        self.actor.mark_phase(name)

    def ready_to_snapshot(self) -> ResumeContext | None:
        return self.actor.ready_to_snapshot()

    def get_checkpoint(self) -> Any:
        return self.actor.get_checkpoint()

    def is_canceled(self) -> bool:
        if self.look is not None:
            self.look()
        return self.is_cancelled

    # ---- the arguments ----
    def missing(self) -> list[ObjectRef[Any]]:
        """The dependencies whose values did not come along and must be asked for."""
        return [load_ref(ObjectId(object_id)) for object_id, value in self.dependencies if not value]

    def unpack(self, asked: Sequence[Any], decode: Decode) -> Prepared:
        """Decode the arguments; `asked` are the values of `missing`. They are not kept."""
        value = types_pb2.Value.FromString(self.args)
        if self.dependencies:
            self.borrowed.extend(object_id for object_id, payload in self.dependencies if not payload)
            given = iter(asked)
            values = [
                self._decoded(object_id, payload, decode) if payload else next(given)
                for object_id, payload in self.dependencies
            ]
            self.dependencies = ()
        else:
            values = []
        self.args = b""
        self.borrowed.extend(value.contained_refs)
        return arguments.unpack(value, values)

    def _decoded(self, object_id: str, payload: bytes, decode: Decode) -> Any:
        self.borrowed.extend(types_pb2.Value.FromString(payload).contained_refs)
        return decode(object_id, payload)


class Answers:
    """Makes the frames that answer calls. Frames are gathered in the caller's channel, to be flushed by whoever calls."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def returned(self, call: Call, result: Any) -> bytes:
        """A RESULT; when `call.must_wait` is set then, the coordinator has to know what was queued before this is sent.

        Raises:
            ValueError: another number of values came back.
            NotSerializableError: one of them cannot be pickled.
            StoreFullError: a large one found no space.
        """
        if call.num_returns == 1 and is_plain((result,)):
            payload = serialize_plain(result)
            if len(payload) <= INLINE_MAX_BYTES:
                return encode(ActorKind.RESULT, call.seq, (_inline(payload),), 0)
        encoded = [_serialized(value) for value in split(result, call)]
        ids = [return_id(TaskId(call.call_id), index) for index in range(len(encoded))]
        values, flags = self._values(call, encoded, ids)
        return encode(ActorKind.RESULT, call.seq, values, flags)

    def ended(self, call: Call) -> bytes:
        """The stream is done, or was cancelled."""
        if call.is_cancelled:
            return self.cancelled(call)
        return encode(ActorKind.RESULT, call.seq, (), 0)

    def item(self, call: Call, index: int, value: Any) -> bytes:
        """An ITEM; otherwise as `returned`."""
        if is_plain((value,)):
            payload = serialize_plain(value)
            if len(payload) <= INLINE_MAX_BYTES:
                return encode(ActorKind.ITEM, call.seq, index, _inline(payload), 0)
        values, flags = self._values(call, [_serialized(value)], [item_id(TaskId(call.call_id), index)])
        return encode(ActorKind.ITEM, call.seq, index, values[0], flags)

    def raised(self, call: Call, error: BaseException) -> bytes:
        """A FAILURE because of what user code raised."""
        failure = failure_from_exception(error)
        if isinstance(error, StoreFullError):
            failure.kind = types_pb2.FAILURE_KIND_STORE_FULL
        return self._failed(call, failure, is_retryable=isinstance(error, Exception))

    def unloadable(self, call: Call, error: BaseException) -> bytes:
        """A FAILURE because the arguments did not arrive."""
        failure = failure_from_exception(error)
        if isinstance(error, ObjectLostError):
            failure.kind = types_pb2.FAILURE_KIND_OBJECT_LOST
        elif isinstance(error, StoreFullError):
            failure.kind = types_pb2.FAILURE_KIND_STORE_FULL
        elif not hasattr(error, "remote_traceback"):  # else a task's error: it is told as it is
            failure.kind = types_pb2.FAILURE_KIND_SETUP
            failure.message = (
                f"the arguments of {call.task_name} could not be loaded on the machine: {type(error).__name__}: {error};"
                " check that what they need is installed there"
            )
        return self._failed(call, failure)

    def cancelled(self, call: Call) -> bytes:
        """A FAILURE because the caller wanted no result."""
        message = f"{call.call_id} ({call.task_name}) was cancelled"
        return self._failed(call, types_pb2.Failure(kind=types_pb2.FAILURE_KIND_CANCELLED, message=message))

    def keeps_refs(self, call: Call) -> bool:
        """Whether refs that came with the arguments live on in this process."""
        if not call.borrowed:
            return False
        session = self._session
        with session._lock:
            session.machine.drain_dropped()
            return any(object_id in session.machine._counts for object_id in call.borrowed)

    def _failed(self, call: Call, failure: types_pb2.Failure, *, is_retryable: bool = False) -> bytes:
        failure.task_id, failure.task_name, failure.attempt = call.call_id, call.task_name, call.attempt
        failure.machine_id = call.machine_id
        return encode(ActorKind.FAILURE, call.seq, failure.SerializeToString(), is_retryable, 0)

    def _values(self, call: Call, encoded: list[Serialized], ids: list[ObjectId]) -> tuple[list[bytes], int]:
        """Serialised values. One that is large, or holds refs, makes all of them objects of the cluster."""
        sizes = [each.total_bytes for each in encoded]
        if max(sizes, default=0) <= INLINE_MAX_BYTES and sum(sizes) <= INLINE_BYTES_MAX:
            if not any(each.contained_refs for each in encoded):
                return [_inline(each.to_bytes()) for each in encoded], 0
        session = self._session
        refs = [session.outgoing.put(each, object_id) for each, object_id in zip(encoded, ids, strict=True)]
        # And what they hold: where the caller has promised these ids already, its own word will pin it, later.
        kept = (refs, [each.contained_refs for each in encoded])
        call.channel.held.setdefault(call.seq, deque()).append(kept)
        call.must_wait = True
        return [session.machine.outcomes[object_id].payload for object_id in ids], REGISTERED


def split(result: Any, call: Call) -> list[Any]:
    """One value per return.

    Raises:
        ValueError: another number of values came back.
    """
    wanted = call.num_returns
    if wanted == 1:
        return [result]
    if wanted == 0:
        return []
    is_many = isinstance(result, tuple | list | Iterator)
    values = list(result) if is_many else [result]
    if len(values) != wanted:
        raise ValueError(
            f"{call.task_name} returned {len(values)} values but num_returns={wanted}; return a tuple of that length"
        )
    return values


def items_of(result: Any, call: Call) -> Any:
    """The iterator, or async iterator, of a streaming call.

    Raises:
        TypeError: the method returned something else.
    """
    if inspect.isasyncgen(result) or hasattr(result, "__anext__"):
        return result
    try:
        return iter(result)
    except TypeError:
        raise TypeError(
            f"{call.task_name} returned a {type(result).__name__} but was called with num_returns='streaming';"
            " yield the items, or call it without"
        ) from None


def _inline(payload: bytes) -> bytes:
    """A serialised types_pb2.Value without refs."""
    return b"".join((_VALUE_INLINE, varint(len(payload)), payload))


def _serialized(value: Any) -> Serialized:
    try:
        return serialize(value)
    except Exception as error:
        raise not_serializable(value, "return value", error) from None
