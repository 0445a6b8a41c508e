"""Copies what containers print into their log files, without a thread for each."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from pathlib import Path
from typing import Any

_READ_BYTES = 64 * 1024
_HEADER = struct.Struct(">BxxxL")  # stream, size of the chunk that follows


class OutputPump:
    """One container's stdout and stderr, from the engine's attach connection to a file, until the container ends.

    Attached before the start, it also has what an image without `runner` says, and needs no engine that keeps logs: an
    auto-removed container takes its logs along.
    """

    def __init__(self, stream: Any, log: Path) -> None:
        """`stream`: what `attach_socket` gave; owned from now on. Call inside the event loop."""
        self._stream = stream
        self._socket: socket.socket = getattr(stream, "_sock", stream)
        self._socket.setblocking(False)
        self._log = log.open("ab", buffering=0)
        self._pending = bytearray()
        self._loop = asyncio.get_running_loop()
        self.ended = asyncio.Event()
        self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Stop copying. Idempotent."""
        if self.ended.is_set():
            return
        self.ended.set()
        self._loop.remove_reader(self._socket)
        # The socket by itself too: the SDK's connection holds it, and would close it whenever that is collected.
        for each in (getattr(self._stream, "_response", None), self._stream, self._socket):
            if each is not None:
                with contextlib.suppress(OSError, ValueError):  # they share a socket, and one close is enough
                    each.close()
        self._log.close()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._pending += data
        with contextlib.suppress(OSError):  # a full disk loses lines, not machines
            for chunk in self._chunks():
                self._log.write(chunk)

    def _chunks(self) -> list[bytes]:
        """The whole chunks so far."""
        found = []
        while len(self._pending) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._pending)
            end = _HEADER.size + size
            if kind > 2:  # no framing: an engine that gives the container a terminal
                found.append(bytes(self._pending))
                self._pending.clear()
            elif len(self._pending) < end:
                break
            else:
                found.append(bytes(self._pending[_HEADER.size : end]))
                del self._pending[:end]
        return found
