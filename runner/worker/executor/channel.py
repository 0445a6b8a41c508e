"""The executor's end of its socket to the agent. The main thread reads; a thread does when others wait for replies.

Whoever holds the pump reads for everybody. Frames for the main thread go to the inbox, all others to their handlers.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from runner.client.waiting import Waiter
from runner.errors import UsageError
from runner.worker.executor.interrupts import InterruptGate
from runner.worker.frames import Decoder, Frame, Kind, encode

_READ_BYTES = 256 << 10


class ExecutorSocket:
    """Frames to and from the agent. `send` may be called from any thread."""

    def __init__(self, sock: socket.socket, gate: InterruptGate) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.gate = gate
        self._main_thread = threading.get_ident()
        self._decoder = Decoder()
        self._handlers: dict[int, Callable[[Frame], None]] = {}
        self._inbox: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._pump = threading.Lock()
        self._sending = threading.Lock()
        self._unsent = bytearray()
        self._reader: threading.Thread | None = None
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._nudge_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # ends the main thread's poll
        self._readable.register(self._nudge_fd, select.POLLIN)
        self._is_forked = False

    def on(self, kind: Kind, handler: Callable[[Frame], None]) -> None:
        """Have frames of this kind handled at once by whoever reads."""
        self._handlers[kind] = handler

    def off(self, kind: Kind) -> None:
        """Have frames of this kind go to the main thread again."""
        self._handlers.pop(kind, None)

    def put(self, frame: Frame) -> None:
        """A frame for the main thread, behind those that it has not taken yet."""
        self._inbox.put(frame)

    def next_frame(self) -> Frame:
        """The next frame for the main thread, which calls this when it has nothing else to do."""
        while True:
            try:
                return self._inbox.get_nowait()
            except queue.Empty:
                pass
            if not self._pump.acquire(blocking=False):
                return self._inbox.get()  # the reader reads
            try:
                self._read(None)
            finally:
                self._pump.release()

    def send(self, kind: Kind, *fields: Any) -> None:
        """Send one frame; blocks while the socket is full. An interrupt leaves no half frame: the rest goes with the next one."""
        if self._is_forked:
            raise UsageError(
                "This process was forked inside a task; runner's functions work only in the task's own process."
                " Send what you have to the parent, and call runner there."
            )
        with self.gate:
            data = encode(kind, *fields)
            with self._sending:
                if not self._unsent:
                    try:
                        sent = self._sock.send(data)
                    except BlockingIOError:
                        sent = 0
                    except OSError:
                        os._exit(0)  # the agent is gone
                    if sent == len(data):
                        return
                    data = data[sent:]
                self._unsent += data
        self._flush()

    def wait(self, waiter: Waiter, timeout_s: float | None) -> bool:
        """Block until `waiter` is done; False when time is over first. The main thread can be interrupted meanwhile."""
        if waiter.done:
            return True
        if threading.get_ident() != self._main_thread:
            self.read_always()
        elif self._pump.acquire(blocking=False):
            try:
                return self._pump_until(waiter, timeout_s)
            finally:
                self._pump.release()
        return waiter.block(timeout_s)

    def fileno(self) -> int:
        """Readable when there are frames."""
        return self._sock.fileno()

    def read_ready(self) -> bool:
        """For the main thread: take in what has come, without waiting. False: a thread reads, now and later."""
        if not self._pump.acquire(blocking=False):
            return False
        try:
            self._read(0)
        finally:
            self._pump.release()
        return True

    def read_always(self) -> None:
        """From now on frames are read whatever the main thread does."""
        if self._reader is None and not self._is_forked:
            self._reader = threading.Thread(target=self._read_for_ever, name="runner-reader", daemon=True)
            self._reader.start()

    def forked(self) -> None:
        """In a child: the socket is the parent's."""
        self._is_forked = True
        self._sock.close()
        os.close(self._nudge_fd)

    def _pump_until(self, waiter: Waiter, timeout_s: float | None) -> bool:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        waiter.wake = self._nudge  # others may finish it: who reads the sockets of actors
        while not waiter.done:
            left_s = None if deadline_s is None else deadline_s - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            self._read(left_s)
        return True

    def _nudge(self) -> None:
        if threading.get_ident() != self._main_thread:
            os.eventfd_write(self._nudge_fd, 1)

    def _read_for_ever(self) -> None:
        while True:
            # While the main thread pumps it reads for everybody; then it is our turn.
            with self._pump:
                self._read(None)

    def _read(self, timeout_s: float | None) -> None:
        """Wait for input and handle it; the caller holds the pump. Only the waiting can be interrupted."""
        ready = self._readable.poll(None if timeout_s is None else timeout_s * 1000)
        if not ready:
            return
        if any(fd == self._nudge_fd for fd, _ in ready):
            os.eventfd_read(self._nudge_fd)
        with self.gate:
            try:
                data = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                os._exit(0)  # the agent is gone, and the machine with it
            for frame in self._decoder.feed(data):
                handler = self._handlers.get(frame[0])
                if handler is None:
                    self._inbox.put(frame)
                else:
                    handler(frame)

    def _flush(self) -> None:
        writable = select.poll()
        writable.register(self._sock, select.POLLOUT)
        while self._unsent:
            writable.poll()
            with self.gate, self._sending:
                try:
                    del self._unsent[: self._sock.send(self._unsent)]
                except BlockingIOError:
                    continue
                except OSError:
                    os._exit(0)
