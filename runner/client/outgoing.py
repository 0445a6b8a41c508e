"""What a session sends, made from Python values: ids, arguments, put values, functions."""

from __future__ import annotations

import itertools
import secrets
import threading
from typing import TYPE_CHECKING, Any

from runner.client.calls import PickledFunction, PreparedCall, register_operations
from runner.client.checks import check_own
from runner.client.context import current_task
from runner.client.pickling_errors import bad_argument, not_serializable
from runner.client.wire import bounded
from runner.ids import ObjectId, TaskId
from runner.objects import arguments
from runner.objects.refs import ObjectRef
from runner.objects.serialization import Serialized, serialize
from runner.objects.store import Store
from runner.objects.values import INLINE_MAX_BYTES, to_wire
from runner.rpc.gen import client_pb2, types_pb2

if TYPE_CHECKING:
    from runner.client.session import Session


class Outgoing:
    """Part of one session, whose lock it shares."""

    def __init__(self, session: Session, lock: threading.RLock) -> None:
        self._session = session
        self._lock = lock
        store_path = session.info.store_path
        self._store = Store(store_path) if store_path else None
        self._stem = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self._functions: set[str] = set()

    def new_id(self, prefix: str) -> str:
        """An id that no other session makes."""
        return f"{prefix}-{self._stem}-{next(self._numbers):x}"

    def arguments(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[types_pb2.Value, list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """The arguments of a call of `name` as they are sent, the refs it waits for, and those inside the arguments.
        All of these must stay alive until the call is queued. Large arguments are put first.

        Raises:
            NotSerializableError: an argument cannot be sent; says which.
        """
        try:
            packed, refs = arguments.pack(args, kwargs)
        except Exception as error:
            raise bad_argument(name, args, kwargs, error) from None
        check_own(self._session, refs)
        value = types_pb2.Value()
        inside: list[ObjectRef[Any]] = []
        if isinstance(packed, bytes) and len(packed) <= INLINE_MAX_BYTES:
            value.inline = packed
        else:
            whole = packed if isinstance(packed, Serialized) else serialize((args, kwargs))
            if whole.total_bytes <= INLINE_MAX_BYTES:
                value.inline = whole.to_bytes()
                inside = whole.contained_refs
                value.contained_refs.extend(ref.id for ref in inside)
            else:
                refs = [*refs, self.put(whole)]
                value.inline = arguments.WHOLE
        return value, refs, inside

    def spec(
        self, call: PreparedCall, task_id: TaskId, args: tuple[Any, ...], kwargs: dict[str, Any], name: str
    ) -> tuple[bytes, Any]:
        """The serialised TaskSpec, and what must stay alive until it is queued."""
        value, refs, inside = self.arguments(call.name, args, kwargs)
        dependencies = [ref.id for ref in refs]
        for object_id in dependencies:
            self._session.share(object_id)
        spec = types_pb2.TaskSpec(task_id=task_id, args=value, dependencies=dependencies, name=name)
        if call.is_anywhere and (task := current_task()) is not None and task.is_group_for_children:
            spec.group_id, spec.group_for_children = task.group_id, True
        return call.constant + spec.SerializeToString(), (inside, refs)

    def put(self, serialized: Serialized, object_id: ObjectId | None = None) -> ObjectRef[Any]:
        """Store a value, under a new id or one that nobody else gives a value."""
        object_id = object_id or ObjectId(self.new_id("o"))
        value = self._to_wire(serialized, object_id)
        put = client_pb2.Operation(put=client_pb2.Put(object_id=object_id, value=value))
        operation = bounded(put.SerializeToString(), "The value")
        session = self._session
        with self._lock:
            session.machine.put(object_id, operation, value.SerializeToString())
            is_full = session.machine.is_full
        ref: ObjectRef[Any] = ObjectRef(object_id, session)
        session.transport.wake()
        if is_full:
            session.wait_for_room()
        return ref

    def serialize(self, value: Any, name: str) -> Serialized:
        """Encode `value`, called `name` in the error.

        Raises:
            NotSerializableError: says where in it the culprit is.
        """
        try:
            return serialize(value)
        except Exception as error:
            raise not_serializable(value, name, error) from None

    def register(self, function: PickledFunction) -> None:
        """Send a function, once per session; what it needs goes first."""
        if function.function_id in self._functions:
            return
        blob, keep = function.blob, function.contained_refs
        if function.is_large:
            # Above the message limit: the function travels as an object, and its blob only says which one.
            ref = self.put(function.serialized())
            blob, keep = function.stand_in(ref), [ref]
        with self._lock:
            for content_id, operation in register_operations(function, blob, keep):
                if content_id not in self._functions:
                    self._functions.add(content_id)
                    self._session.machine.operate(operation)

    def _to_wire(self, serialized: Serialized, object_id: str) -> types_pb2.Value:
        session = self._session
        if self._store is not None:
            return to_wire(serialized, object_id, self._store, session.info.host_id)
        value = types_pb2.Value(contained_refs=[ref.id for ref in serialized.contained_refs])
        if serialized.total_bytes <= INLINE_MAX_BYTES:
            value.inline = serialized.to_bytes()
        else:
            value.segment.CopyFrom(session.transport.upload(object_id, serialized))
        return value
