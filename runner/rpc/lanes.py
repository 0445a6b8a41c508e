"""Both ends of a lane: an abstract Unix socket that carries a stream's messages between two processes of one host.

A lane belongs to a gRPC stream, over which its address and a secret for one connection were told, and ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Callable

import msgpack

from runner.errors import ProtocolViolationError
from runner.rpc.gen import types_pb2
from runner.rpc.limits import MESSAGE_BYTES_MAX
from runner.rpc.peers import is_own

SECRET_BYTES = 32
# Between the offer and the connection lie two processes' turns, however slow the machine is.
OFFER_S = 10.0
_BACKLOG = 128
_SEND_BUFFER_BYTES = 1 << 20

pack: Callable[[bytes], bytes] = msgpack.packb


class LaneDecoder:
    """Cuts a lane's bytes into messages."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=4 * MESSAGE_BYTES_MAX)

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """All messages that `data` completes, in order.

        Raises:
            ProtocolViolationError: no lane carries this. It is of no use afterwards.
        """
        try:
            self._unpacker.feed(data)
            messages = list(self._unpacker)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ProtocolViolationError(f"the lane holds no message: {type(error).__name__} {error}") from None
        for message in messages:
            if type(message) is not bytes:
                raise ProtocolViolationError(f"the lane carried a {type(message).__name__}; messages are bytes")
        return messages


def connect(lane: types_pb2.Lane) -> socket.socket | None:
    """Take up an offer. None: the socket cannot be reached, as in a container with a network of its own."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        sock.settimeout(OFFER_S)
        sock.connect(f"\0{lane.address}")
        if not is_own(sock):  # who offered it has ended, and somebody else has taken its name
            raise PermissionError(lane.address)
        sock.sendall(lane.secret)
        sock.setblocking(False)
    except OSError:
        sock.close()
        return None
    return sock


class LaneServer:
    """Listens for those to whom a lane was offered. Lives in one event loop."""

    def __init__(self) -> None:
        self._offers: dict[bytes, asyncio.Future[socket.socket]] = {}
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}  # connected, and have not said their secret
        self._sock: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._address = ""

    def start(self) -> None:
        """Listen, in the running loop. Without this nothing is offered."""
        self._loop = asyncio.get_running_loop()
        self._address = f"runner-lane-{secrets.token_hex(12)}"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._sock.bind(f"\0{self._address}")
        self._sock.listen(_BACKLOG)
        self._loop.add_reader(self._sock, self._accept)

    def offer(self) -> types_pb2.Lane | None:
        """Where and with which secret one peer may connect; None when nobody listens here."""
        if self._sock is None or self._loop is None:
            return None
        secret = secrets.token_bytes(SECRET_BYTES)
        self._offers[secret] = self._loop.create_future()
        self._loop.call_later(OFFER_S, self._expire, secret)
        return types_pb2.Lane(address=self._address, secret=secret)

    async def taken(self, lane: types_pb2.Lane) -> socket.socket:
        """The socket of the peer to whom this was offered.

        Raises:
            ProtocolViolationError: it did not come within OFFER_S.
        """
        arrived = self._offers.get(lane.secret)
        if arrived is None:
            raise ProtocolViolationError(f"the lane was not told to its peer within {OFFER_S:g} s; connect again")
        try:
            async with asyncio.timeout(OFFER_S):
                return await asyncio.shield(arrived)
        except BaseException as error:
            if arrived.done():
                arrived.result().close()
            if isinstance(error, TimeoutError):
                raise ProtocolViolationError(f"nobody took up the lane within {OFFER_S:g} s; connect again") from None
            raise
        finally:
            self._offers.pop(lane.secret, None)

    def close(self) -> None:
        """Offer nothing more. Idempotent."""
        if self._sock is not None and self._loop is not None:
            self._loop.remove_reader(self._sock)
            self._sock.close()
            self._sock = None
            for sock, late in list(self._waiting.items()):
                late.cancel()
                self._drop(sock)

    def _expire(self, secret: bytes) -> None:
        """Its stream has ended before anybody waited for the peer, or nobody came."""
        arrived = self._offers.pop(secret, None)
        if arrived is not None and arrived.done():
            arrived.result().close()

    def _accept(self) -> None:
        assert self._sock is not None
        assert self._loop is not None
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._waiting[sock] = self._loop.call_later(OFFER_S, self._drop, sock)
        self._loop.add_reader(sock, self._greeted, sock)

    def _greeted(self, sock: socket.socket) -> None:
        assert self._loop is not None
        self._waiting.pop(sock).cancel()
        self._loop.remove_reader(sock)
        secret = b""
        with contextlib.suppress(OSError):
            secret = sock.recv(SECRET_BYTES)  # sent in one piece, and so short that it arrives in one
        taken = self._offers.get(secret)
        if taken is None or taken.done():
            sock.close()
        else:
            taken.set_result(sock)

    def _drop(self, sock: socket.socket) -> None:
        assert self._loop is not None
        del self._waiting[sock]
        self._loop.remove_reader(sock)
        sock.close()
