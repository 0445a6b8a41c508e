"""A TCP relay between a client and its coordinator that can cut every connection, and refuse new ones for a while."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self


class Proxy:
    """Listens on a port of its own; bytes go on to `target` until `cut`."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.refuses = False
        self.connections = 0
        self.relayed_bytes = 0
        self._cut_at_bytes = 0  # 0: never
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        """Reset every connection that is open now."""
        with self._lock:
            for sock in self._open:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def cut_after(self, size_bytes: int) -> None:
        """Cut once, when this much more has been relayed."""
        self._cut_at_bytes = self.relayed_bytes + size_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.refuses:
                client.close()
                continue
            self.connections += 1
            upstream = socket.create_connection(self._target)
            with self._lock:
                self._open |= {client, upstream}
            for source, sink in ((client, upstream), (upstream, client)):
                thread = threading.Thread(target=self._relay, args=(source, sink), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _count(self, size_bytes: int) -> None:
        with self._lock:
            self.relayed_bytes += size_bytes
            is_due = 0 < self._cut_at_bytes <= self.relayed_bytes
            if is_due:
                self._cut_at_bytes = 0
        if is_due:
            self.cut()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
                self._count(len(data))
        except OSError:
            pass
        with self._lock:
            for sock in (source, sink):
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue
            if source in self._open:
                self._open.discard(source)
                source.close()
