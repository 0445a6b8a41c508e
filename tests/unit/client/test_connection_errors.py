"""Errors of the connection that come at bad moments: none ends a session that could go on, none leaves a waiter behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc.aio
import pytest

from runner.client import grpc_transport
from runner.client.grpc_transport import GrpcTransport
from runner.client.session import Session
from runner.errors import ClusterError, CoordinatorUnreachableError
from runner.ids import ObjectId
from runner.rpc.gen import client_pb2
from runner.rpc.version import local_peer
from tests.unit.client.memory import MemoryTransport


class ScriptedCall:
    """A stream whose first write or first read ends as told."""

    def __init__(self, write: Exception | None, read: Any) -> None:
        self._write = write
        self._read = read

    async def write(self, request: bytes) -> None:
        if self._write is not None:
            raise self._write

    async def read(self) -> Any:
        return self._read

    def cancel(self) -> None:
        pass


class ScriptedChannel:
    def __init__(self, *calls: ScriptedCall) -> None:
        self._calls = iter(calls)

    def stream_stream(self, method: str) -> Callable[[], ScriptedCall]:
        return lambda: next(self._calls)


@pytest.fixture
def connecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[GrpcTransport]:
    transport = GrpcTransport("127.0.0.1:1", b"", "", "c-1", lost_after_s=60, is_alive=lambda: True)
    monkeypatch.setattr(grpc_transport, "BACKOFF_FIRST_S", 0.001)
    yield transport
    transport.threaded.stop(1)


def test_only_final_errors_end_a_reconnect(connecting: GrpcTransport) -> None:
    welcome = client_pb2.SessionReply(welcome=client_pb2.Welcome(peer=local_peer(), acked_seq=7))
    connecting._channel = ScriptedChannel(
        ScriptedCall(None, grpc.aio.EOF),  # type: ignore[attr-defined]  # missing in the stubs
        ScriptedCall(asyncio.InvalidStateError("RPC already finished."), None),
        ScriptedCall(None, welcome.SerializeToString()),
    )
    assert asyncio.run(connecting._reconnect(CoordinatorUnreachableError("cut"))) == 7


def fails_after_the_check(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session ends between a call's look at it and the call's wait."""

    def check() -> None:
        monkeypatch.undo()
        session.fail(ClusterError("over"))

    monkeypatch.setattr(session, "_check_usable", check)


def test_awaiting_a_ref_while_the_session_ends(
    session: Session, transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read() -> None:
        fails_after_the_check(session, monkeypatch)
        await asyncio.wait_for(wrapped(), 5)

    async def wrapped() -> None:
        class Awaitable:
            def __await__(self) -> Any:
                return session.await_ref(ObjectId("t-1.0"))

        await Awaitable()

    with pytest.raises(ClusterError, match="over"):
        asyncio.run(read())


def test_a_future_made_while_the_session_ends(
    session: Session, transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_after_the_check(session, monkeypatch)
    future = session.future_of(ObjectId("t-1.0"))
    with pytest.raises(ClusterError, match="over"):
        future.result(5)
