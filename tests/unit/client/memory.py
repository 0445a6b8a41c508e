"""A transport without a network: tests read what was sent, and say what comes back."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from runner.client import context
from runner.client.remote_function import RemoteFunction
from runner.client.session import Session
from runner.client.session_info import SessionInfo
from runner.client.task_errors import failure_from_exception
from runner.client.waiting import Waiter
from runner.objects.serialization import Buffer, Serialized, serialize
from runner.options import parse_options
from runner.rpc.gen import client_pb2, types_pb2


class MemoryTransport:
    """Implements `runner.client.transport.Transport`; `sent` has every operation in order."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.sent: list[client_pb2.Operation] = []
        self.seqs: list[int] = []
        self.answers: dict[str, bytes] = {}  # object id -> a serialised ObjectReady, given at once when asked for
        self.uploads: dict[str, bytes] = {}
        self.acks = True
        self.calls: list[str] = []

    def attach(self, session: Session) -> None:
        self.session = session
        session.connected(0)

    def wake(self) -> None:
        assert self.session is not None
        while (request := self.session.take_frame()) is not None:
            frame = client_pb2.SessionRequest.FromString(request).frame
            self.seqs.append(frame.seq)
            self.sent.extend(frame.operations)
            if self.acks:
                self.deliver(acked_seq=frame.seq)

    def deliver(self, ready: list[client_pb2.ObjectReady] | None = None, acked_seq: int = 0) -> None:
        assert self.session is not None
        frame = client_pb2.ServerFrame(acked_seq=acked_seq, ready=ready or [])
        self.session.deliver(client_pb2.SessionReply(frame=frame).SerializeToString())

    def succeed(self, object_id: str, value: Any) -> None:
        inline = types_pb2.Value(inline=serialize(value).to_bytes()).SerializeToString()
        self.deliver([client_pb2.ObjectReady(object_id=object_id, value=inline)])

    def fail(self, object_id: str, error: BaseException | types_pb2.Failure) -> None:
        failure = error if isinstance(error, types_pb2.Failure) else failure_from_exception(error)
        ready = client_pb2.ObjectReady(object_id=object_id, failure=failure.SerializeToString())
        self.deliver([ready])

    @property
    def gate(self) -> AbstractContextManager[None]:
        return nullcontext()

    def wait(self, waiter: Waiter, timeout_s: float | None) -> bool:
        return waiter.block(timeout_s)

    def blocked(self) -> None:
        self.calls.append("blocked")

    def unblocked(self) -> None:
        self.calls.append("unblocked")

    def want_callbacks(self) -> None:
        self.calls.append("want_callbacks")

    def fetch(self, object_id: str, segment: types_pb2.Segment) -> Buffer:
        return self.uploads[segment.path]

    def upload(self, object_id: str, serialized: Serialized) -> types_pb2.Segment:
        self.uploads[object_id] = serialized.to_bytes()
        return types_pb2.Segment(host_id="elsewhere", path=object_id, size_bytes=serialized.total_bytes)

    def close(self, timeout_s: float) -> None:
        self.calls.append("close")

    # ---- reading what was sent ----
    def kinds(self) -> list[str]:
        return [operation.WhichOneof("op") or "" for operation in self.sent]

    def submits(self) -> list[types_pb2.TaskSpec]:
        return [operation.submit for operation in self.sent if operation.WhichOneof("op") == "submit"]


def open_session(
    store_path: str = "", *, is_executor: bool = False, embedded: bool = True, cluster_id: str = "k-1"
) -> tuple[Session, MemoryTransport]:
    """A current session on a memory transport."""
    transport = MemoryTransport()
    info = SessionInfo(
        client_id="c-1",
        cluster_id=cluster_id,
        host_id="here",
        store_path=store_path,
        embedded=embedded,
        is_executor=is_executor,
    )
    session = Session(info, transport)
    transport.attach(session)
    context.set_session(session)
    return session, transport


def make_double() -> Any:
    """A function that is sent by value: no module has to be shipped for it."""

    def double(x: int = 1, *rest: Any, **named: Any) -> Any:
        return 2 * x

    return double


double = make_double()


def remote(**options: Any) -> RemoteFunction[..., Any]:
    return RemoteFunction(double, parse_options(options))


def soon(action: Any, delay_s: float = 0.02) -> threading.Thread:
    thread = threading.Timer(delay_s, action)
    thread.daemon = True
    thread.start()
    return thread
