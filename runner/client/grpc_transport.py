"""A session over gRPC: one bidirectional stream that reconnects, and plain calls beside it."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import grpc
import grpc.aio

from runner.client import transfer
from runner.client.greeting import EOF, greet, quietly_write
from runner.client.lane import ClientLane
from runner.client.loop_thread import LoopThread
from runner.client.waiting import Waiter
from runner.errors import (
    AuthenticationError,
    CoordinatorUnreachableError,
    InternalError,
    ProtocolViolationError,
    RunnerError,
    VersionMismatchError,
)
from runner.objects.serialization import Buffer, Serialized
from runner.rpc import lanes
from runner.rpc.channels import client_channel
from runner.rpc.gen import client_pb2, types_pb2
from runner.rpc.status import from_rpc_error

if TYPE_CHECKING:
    from runner.client.session import Session

BACKOFF_FIRST_S = 0.05
BACKOFF_MAX_S = 2.0
CALL_TIMEOUT_S = 30.0
# How long a collected ref may wait until the coordinator hears of it, when nothing else is sent.
RELEASE_EVERY_S = 0.1
_REASON_S = 1.0
_SERVICE = "/runner.v1.Client/"
# Trying again cannot help.
_FINAL = (AuthenticationError, VersionMismatchError, ProtocolViolationError)


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802  protobuf's name


Reply = TypeVar("Reply")
_log = logging.getLogger("runner")


class GrpcTransport:
    """Connects one session to a coordinator. All methods are thread-safe."""

    def __init__(
        self,
        address: str,
        ca_pem: bytes,
        token: str,
        client_id: str,
        *,
        lost_after_s: float,
        is_alive: Callable[[], bool],
    ) -> None:
        self.address = address
        self._ca_pem = ca_pem
        self._token = token
        self._client_id = client_id
        self._lost_after_s = lost_after_s
        self._is_alive = is_alive  # False: the coordinator's process is known to have ended
        self._threaded = LoopThread()
        self._session: Session | None = None
        self._channel: Any = None  # the stubs of grpc.aio know half of what a channel can do
        self._call: Any = None  # the open stream
        self._lane: ClientLane | None = None  # where its frames go, on the coordinator's host
        self._may_have_lane = True
        self._is_closing = False
        self._is_woken = False
        self._is_ticking = False
        self._to_write = asyncio.Event()

    # ---- opening ----
    def connect(self, timeout_s: float) -> client_pb2.Welcome:
        """Open the stream for the first time and return the coordinator's welcome.

        The session must then be given to `attach`.

        Raises:
            CoordinatorUnreachableError: nobody answered within `timeout_s`.
            AuthenticationError, VersionMismatchError: it refused us, or is another cluster.
        """
        try:
            return self._threaded.call(lambda: self._first_connect(timeout_s))
        except grpc.RpcError as error:
            raise self._translate(error) from None

    def attach(self, session: Session) -> None:
        """Start moving frames."""
        self._session = session
        self._threaded.start(self._run)

    async def _first_connect(self, timeout_s: float) -> client_pb2.Welcome:
        deadline_s = time.monotonic() + timeout_s
        last: RunnerError = CoordinatorUnreachableError(
            f"no coordinator answers at {self.address} within {timeout_s:g} s; check the address and that it runs there"
        )
        self._channel = client_channel(self.address, self._ca_pem, self._token)
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline_s - time.monotonic()):
                    return await self._open()
            except TimeoutError:
                raise last from None
            except RunnerError as error:
                last = error
            if isinstance(last, _FINAL) or not self._is_alive() or time.monotonic() + backoff_s >= deadline_s:
                raise last
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)

    async def _open(self) -> client_pb2.Welcome:
        """A new stream, greeted and welcomed, with a lane where there is one.

        Raises:
            RunnerError: there is none; one of `_FINAL` means that there will be none.
        """
        call = self._channel.stream_stream(f"{_SERVICE}Session")()
        wants_lane, self._may_have_lane = self._may_have_lane, True
        try:
            welcome = await greet(call, self._client_id, self.address, wants_lane=wants_lane)
            if welcome.HasField("lane"):
                self._lane = self._open_lane(welcome.lane)
        except grpc.RpcError as error:
            call.cancel()
            raise self._translate(error) from None
        except BaseException:
            call.cancel()
            raise
        self._call = call
        return welcome

    def _open_lane(self, offer: types_pb2.Lane) -> ClientLane:
        sock = lanes.connect(offer)
        if sock is None:
            self._may_have_lane = False  # the next stream does without
            raise CoordinatorUnreachableError(f"the lane {offer.address} cannot be reached")
        return ClientLane(sock, self._threaded)

    # ---- the life of the stream ----
    async def _run(self) -> None:
        """Serve streams, one after the other, until closed or beyond hope."""
        session = self._session
        assert session is not None
        try:
            acked_seq = 0
            while True:
                error = await self._serve(session, acked_seq)
                session.disconnected()
                if self._is_closing:
                    return
                acked_seq = await self._reconnect(error)
        except RunnerError as error:
            session.fail(error)
        except Exception as error:
            session.fail(InternalError(f"the session's connection failed: {type(error).__name__}: {error}"))
            raise

    async def _serve(self, session: Session, acked_seq: int) -> RunnerError:
        """Move frames on the open stream until it ends; returns why."""
        call, lane = self._call, self._lane
        reader = asyncio.ensure_future(self._read(session, call))
        writer: asyncio.Task[None] | None = None
        try:
            again = session.connected(acked_seq)
            if lane is None:
                for request in again:
                    await quietly_write(call, request)
                writer = asyncio.ensure_future(self._write(session, call))
                return await reader
            lane.begin(session, again)
            ends: list[asyncio.Future[Any]] = [reader, lane.ended]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            # Who closed the lane says why on the stream.
            await asyncio.wait([reader], timeout=_REASON_S)
            if reader.done():
                return await reader
            return CoordinatorUnreachableError(f"the lane to the coordinator at {self.address} broke")
        finally:
            self._lane = None
            if lane is not None:
                lane.close()
            ending: list[asyncio.Future[Any]] = [reader] if writer is None else [reader, writer]
            for task in ending:
                task.cancel()
            await asyncio.wait(ending)
            call.cancel()

    async def _read(self, session: Session, call: Any) -> RunnerError:
        try:
            while True:
                reply = await call.read()
                if reply is EOF:
                    return CoordinatorUnreachableError(f"the coordinator at {self.address} ended the session")
                session.deliver(reply)
        except grpc.RpcError as error:
            return self._translate(error)
        except asyncio.InvalidStateError:
            return CoordinatorUnreachableError(f"the connection to the coordinator at {self.address} broke")

    async def _write(self, session: Session, call: Any) -> None:
        while True:
            while (request := session.take_frame()) is not None:
                if not await quietly_write(call, request):
                    return  # the reader learns why
            await self._to_write.wait()
            self._to_write.clear()

    async def _reconnect(self, error: RunnerError) -> int:
        """Open a new stream, however long it takes; returns the number of the last frame that arrived.

        Raises:
            RunnerError: it cannot succeed any more.
        """
        lost_at_s = time.monotonic()
        backoff_s = BACKOFF_FIRST_S
        while True:
            if isinstance(error, _FINAL):
                raise error
            if not self._is_alive():
                raise CoordinatorUnreachableError(
                    f"the coordinator at {self.address} has ended; call runner.init() again"
                )
            if time.monotonic() - lost_at_s > self._lost_after_s:
                raise CoordinatorUnreachableError(
                    f"the coordinator at {self.address} has not answered for {self._lost_after_s:g} s ({error})"
                )
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    return (await self._open()).acked_seq
            except TimeoutError:
                continue
            except RunnerError as failed:
                error = failed

    # ---- Transport ----
    @property
    def gate(self) -> AbstractContextManager[None]:
        return nullcontext()

    def wake(self) -> None:
        if (lane := self._lane) is not None:
            lane.wake()
            if self._is_ticking:
                return
        # Racing threads may both call the loop; never may none of them.
        if not self._is_woken:
            self._is_woken = True
            self._threaded.soon(self._woken)

    def wait(self, waiter: Waiter, timeout_s: float | None) -> bool:
        if self._threaded.is_current():
            raise InternalError("a blocking call in the connection's own thread would never end")
        if (lane := self._lane) is not None:
            return lane.wait(waiter, timeout_s)
        return waiter.block(timeout_s)

    def blocked(self) -> None:
        """A client holds no resources."""

    unblocked = blocked

    def want_callbacks(self) -> None:
        """Replies are always read."""

    def fetch(self, object_id: str, segment: types_pb2.Segment) -> Buffer:
        return self._blocking(
            lambda: transfer.fetch(self.stream, object_id, segment.size_bytes, self._reconnected), None
        )

    def upload(self, object_id: str, serialized: Serialized) -> types_pb2.Segment:
        return self._blocking(lambda: self._upload(object_id, serialized), None)

    def close(self, timeout_s: float) -> None:
        self._is_closing = True
        try:
            self._threaded.call(self._end, timeout_s)
        except (TimeoutError, RuntimeError):
            pass
        self._threaded.stop(max(timeout_s, 0.5))
        # A remote function may keep this session for long; gRPC keeps its descriptors as long as one of these lives.
        self._channel = self._call = self._session = None

    async def _end(self) -> None:
        """Half-close: the coordinator then knows that we leave on purpose."""
        if self._call is not None and not self._call.done():
            try:
                await self._call.done_writing()
                await asyncio.wait_for(self._call.code(), 1.0)
            except (grpc.RpcError, TimeoutError, asyncio.InvalidStateError):
                pass
        if self._channel is not None:
            await self._channel.close()

    async def _upload(self, object_id: str, serialized: Serialized) -> types_pb2.Segment:
        """From the start again after a cut: what had arrived was dropped there."""
        while True:
            try:
                return await transfer.upload(self._channel, f"{_SERVICE}Upload", object_id, serialized)
            except grpc.RpcError as error:
                await self._reconnected(self._translate(error))
            except CoordinatorUnreachableError as error:
                await self._reconnected(error)

    async def _reconnected(self, error: RunnerError) -> None:
        """Return once the session has a stream, after `error` ended another call.

        Raises:
            RunnerError: `error`, when the connection is not to blame; why the session is over, when it is.
        """
        backoff_s = BACKOFF_FIRST_S
        session = self._session
        if not isinstance(error, CoordinatorUnreachableError) or session is None:
            raise error
        while True:
            # Also when there seems to be a stream: it may not have noticed yet.
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
            backoff_s = min(2 * backoff_s, BACKOFF_MAX_S)
            if (failure := session.failure) is not None:
                raise type(failure)(*failure.args)
            if session.machine.is_connected:
                return

    # ---- other calls ----
    def request(self, method: str, message: _Message, reply: type[Reply], timeout_s: float = CALL_TIMEOUT_S) -> Reply:
        """One plain call, from any thread but the connection's own."""

        async def call() -> Reply:
            data = await self._channel.unary_unary(f"{_SERVICE}{method}")(
                message.SerializeToString(), timeout=timeout_s
            )
            parsed: Reply = reply.FromString(data)  # type: ignore[attr-defined]
            return parsed

        return self._blocking(call, timeout_s + 5.0)

    async def stream(self, method: str, message: _Message, reply: type[Reply]) -> AsyncIterator[Reply]:
        """A call with a stream of replies; in the connection's thread only.

        Raises:
            RunnerError: the typed error behind a failed call.
        """
        call = self._channel.unary_stream(f"{_SERVICE}{method}")(message.SerializeToString())
        try:
            while (data := await call.read()) is not EOF:
                yield reply.FromString(data)  # type: ignore[attr-defined]
        except grpc.RpcError as error:
            raise self._translate(error) from None
        finally:
            call.cancel()

    @property
    def threaded(self) -> LoopThread:
        """Where streams are read."""
        return self._threaded

    def _blocking(self, make: Callable[[], Coroutine[Any, Any, Reply]], timeout_s: float | None) -> Reply:
        if self._threaded.is_current():
            raise InternalError("a blocking call in the connection's own thread would never end")
        try:
            return self._threaded.call(make, timeout_s)
        except grpc.RpcError as error:
            raise self._translate(error) from None
        except TimeoutError:
            raise CoordinatorUnreachableError(f"the coordinator at {self.address} did not answer in time") from None

    def _woken(self) -> None:
        self._is_woken = False
        self._to_write.set()
        if not self._is_ticking:
            self._tick()

    def _tick(self) -> None:
        """Collected refs wake nobody; look for them as long as there are any refs."""
        session = self._session
        self._is_ticking = session is not None and session.machine.holds_refs and not self._is_closing
        if self._is_ticking and session is not None:
            if session.dropped:
                self.wake()
            self._threaded.loop.call_later(RELEASE_EVERY_S, self._tick)

    def _translate(self, error: grpc.RpcError) -> RunnerError:
        return from_rpc_error(error, self.address, ca_pem=self._ca_pem)
