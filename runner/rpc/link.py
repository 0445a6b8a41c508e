"""One end of a Unix stream socket in an event loop: messages in by callback, bytes out without blocking."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from runner.errors import ProtocolViolationError

_READ_BYTES = 256 << 10
_buffer = memoryview(bytearray(_READ_BYTES))  # one for all links: each read is used up before the next

Message = TypeVar("Message")


class Decoder(Protocol[Message]):
    """Cuts a byte stream into messages."""

    def feed(self, data: bytes | memoryview) -> list[Message]: ...


class Link(Generic[Message]):
    """Thinner than an asyncio transport: no-ops pass through here thousands of times a second."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        decoder: Decoder[Message],
        on_messages: Callable[[list[Message]], None],
        on_end: Callable[[str], None],
    ) -> None:
        """`on_end` is called once, with the protocol error or an empty string; the link is closed by then."""
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._decoder = decoder
        self._on_messages = on_messages
        self._on_end = on_end
        self._unsent = bytearray()
        self._is_paused = False
        self.on_drained: Callable[[], None] = lambda: None  # what did not fit into the socket has gone
        self.is_open = True
        loop.add_reader(sock, self._readable)

    @property
    def is_clogged(self) -> bool:
        """Whether the other end does not read as fast as we send."""
        return bool(self._unsent)

    def send(self, data: bytes) -> None:
        """Queue `data`; what does not fit into the socket goes when it does. Silent when the link has ended."""
        if not self.is_open:
            return
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # the reader sees the end
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(self._sock, self._writable)
        self._unsent += data

    def pause(self, *, is_paused: bool) -> None:
        """Stop or go on reading: the other end's sends then block."""
        if is_paused == self._is_paused or not self.is_open:
            return
        self._is_paused = is_paused
        if is_paused:
            self._loop.remove_reader(self._sock)
        else:
            self._loop.add_reader(self._sock, self._readable)

    def read_rest(self) -> None:
        """Handle what the other end managed to send before it ended."""
        while self.is_open and self._readable():
            pass

    def close(self) -> None:
        """End without calling `on_end`. Idempotent."""
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._sock)
            self._loop.remove_writer(self._sock)
            self._sock.close()

    def _readable(self) -> bool:
        try:
            count = self._sock.recv_into(_buffer)
        except BlockingIOError:
            return False
        except OSError:
            count = 0
        if not count:
            self._end("")
            return False
        try:
            messages = self._decoder.feed(_buffer[:count])
        except ProtocolViolationError as error:
            self._end(str(error))
            return False
        if messages:
            self._on_messages(messages)
        return True

    def _writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._sock)
            self.on_drained()

    def _end(self, error: str) -> None:
        self.close()
        self._on_end(error)
