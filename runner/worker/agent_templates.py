"""The agent's end of its templates' control sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from runner.errors import ProtocolViolationError
from runner.worker.frames import Frame, Kind
from runner.worker.process import receive_packet, send_packet

_RETRY_S = 0.01


class TemplateLink:
    """Packets to and from one template, in order, without blocking."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._waiting: deque[tuple[Kind, tuple[Any, ...], tuple[int, ...]]] = deque()
        self.is_open = True
        loop.add_reader(sock, self._readable)

    def send(self, kind: Kind, *fields: Any, fds: tuple[int, ...] = ()) -> None:
        """Send one packet; `fds` are closed when they have gone."""
        self._waiting.append((kind, fields, fds))
        if len(self._waiting) == 1:
            self._send_waiting()

    def shut_down(self) -> socket.socket:
        """Ask the template to end; the socket that is returned ends when it has."""
        self._detach()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was faster
        return self._sock

    def close(self) -> None:
        """Forget it. Idempotent."""
        self._detach()
        self._sock.close()

    def _detach(self) -> None:
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._sock)
            for _, _, fds in self._waiting:
                _close(fds)
            self._waiting.clear()

    def _send_waiting(self) -> None:
        while self._waiting:
            kind, fields, fds = self._waiting[0]
            try:
                send_packet(self._sock, kind, *fields, fds=fds)
            except BlockingIOError:
                self._loop.call_later(_RETRY_S, self._send_waiting)
                return
            except OSError:
                pass  # the reader sees the end
            self._waiting.popleft()
            _close(fds)

    def _readable(self) -> None:
        try:
            packet = receive_packet(self._sock)
        except BlockingIOError:
            return
        except ProtocolViolationError:
            packet = None
        if packet is None:
            self.close()
            self._on_end()
            return
        frame, fds = packet
        _close(tuple(fds))
        self._on_frame(frame)


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
