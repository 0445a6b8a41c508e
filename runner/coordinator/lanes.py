"""Lanes to the clients and machines of this host: what their streams would carry, without gRPC in between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Protocol

from runner.coordinator.outbox import Outbox
from runner.errors import ProtocolViolationError
from runner.rpc.gen import types_pb2
from runner.rpc.lanes import LaneDecoder, LaneServer, pack
from runner.rpc.link import Link


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802  protobuf's name


class Lane:
    """One open lane: messages in are handed on at once, the outbox is emptied into it when it is due.

    `ended` is done when the other end has closed it or the outbox was closed; its exception is what `on_message` raised.
    """

    def __init__(
        self,
        sock: socket.socket,
        outbox: Outbox[Any],
        take: Callable[[], _Message | None],
        on_message: Callable[[bytes], None],
        decide_now: Callable[[], None],
        is_due: Callable[[Lane], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._outbox = outbox
        self._take = take
        self._on_message = on_message
        self._decide_now = decide_now
        self._link = Link(loop, sock, LaneDecoder(), self._on_messages, self._broken)
        self._link.on_drained = self.flush
        self._on_due = outbox.on_due = lambda: is_due(self)
        is_due(self)

    def flush(self) -> None:
        """Send what waits, as far as the other end keeps up with reading."""
        while not self._link.is_clogged and (message := self._take()) is not None:
            self._link.send(pack(message.SerializeToString()))
        if self._outbox.closed:
            self._end(None)

    def read_rest(self) -> None:
        """Handle what the other end has sent until now."""
        self._link.read_rest()

    def close(self) -> None:
        """Idempotent."""
        if self._outbox.on_due is self._on_due:  # else a newer lane has the outbox
            self._outbox.on_due = None
        self._link.close()

    def _on_messages(self, messages: list[bytes]) -> None:
        try:
            for message in messages:
                self._on_message(message)
        except Exception as error:
            self._end(error)
        self._decide_now()

    def _broken(self, error: str) -> None:
        self._end(ProtocolViolationError(error) if error else None)

    def _end(self, error: Exception | None) -> None:
        self.close()
        if not self.ended.done():
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)


class Lanes:
    """All lanes of this coordinator."""

    def __init__(self, host_id: str, decide_now: Callable[[], None]) -> None:
        """`decide_now` is called when messages have been handed on, for those who wait for what becomes of them."""
        self._host_id = host_id
        self._decide_now = decide_now
        self._is_gathering = False
        self._server = LaneServer()
        self._due: dict[Lane, None] = {}
        self._is_scheduled = False

    def start(self) -> None:
        """Offer lanes from now on."""
        self._server.start()

    def close(self) -> None:
        """Offer no more. Idempotent."""
        self._server.close()

    def offer(self, host_id: str) -> types_pb2.Lane | None:
        """A lane for a peer that wants one; None when it is on another host."""
        return self._server.offer() if host_id == self._host_id else None

    async def open(
        self,
        offer: types_pb2.Lane,
        outbox: Outbox[Any],
        take: Callable[[], _Message | None],
        on_message: Callable[[bytes], None],
    ) -> Lane:
        """The lane, once the peer has taken up the offer. `take` gives what is to be sent next, None for nothing.

        Raises:
            ProtocolViolationError: it has not in time.
        """
        return Lane(await self._server.taken(offer), outbox, take, on_message, self._decide_now, self._is_due)

    def gather(self) -> None:
        """A turn is carried out: `flush` follows."""
        self._is_gathering = True

    def flush(self) -> None:
        """Send what this turn has for lanes."""
        self._is_gathering = False
        while self._due:
            due, self._due = self._due, {}
            for lane in due:
                lane.flush()

    def _is_due(self, lane: Lane) -> None:
        self._due[lane] = None
        if not (self._is_gathering or self._is_scheduled):
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._is_scheduled = False
        self.flush()
