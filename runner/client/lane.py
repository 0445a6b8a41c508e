"""The client's end of its lane: the thread that waits for a value sends its own frames and reads its own replies.

So one call there and back wakes no other thread here. What nobody waits for is read by the connection's thread.
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from typing import TYPE_CHECKING

from runner.client.loop_thread import LoopThread
from runner.client.waiting import Waiter
from runner.errors import ProtocolViolationError
from runner.rpc.lanes import LaneDecoder, pack

if TYPE_CHECKING:
    from runner.client.session import Session

_READ_BYTES = 256 << 10
# In a burst of calls frames leave this far apart, so that each carries many; a call on its own leaves at once.
_BURST_S = 0.001


class ClientLane:
    """Carries one connection's frames. `wake`, `send` and `wait` may be called from any thread, all else in the loop's."""

    def __init__(self, sock: socket.socket, threaded: LoopThread) -> None:
        self._sock = sock
        self._threaded = threaded
        self._session: Session | None = None
        self._decoder = LaneDecoder()
        self._unsent = bytearray()
        self._sending = threading.Lock()
        self._is_due = False  # there is something to send, whoever is sending now
        self._is_delayed = False  # the loop's thread will send in a moment
        self._sent_s = 0.0
        self._is_open = True
        self.ended: asyncio.Future[None] = threaded.loop.create_future()
        # Who reads holds the pump. The loop watches the socket through `_watch`, from which a waiting thread can
        # take it out without a word to the loop.
        self._pump = threading.Lock()
        self._watch = select.epoll()
        self._watch.register(sock, select.EPOLLIN)
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)

    def begin(self, session: Session, again: list[bytes]) -> None:
        """Send these first, and from now on what the session has."""
        self._unsent += b"".join(map(pack, again))
        self._session = session
        self._threaded.loop.add_reader(self._watch.fileno(), self._on_readable)
        self.send()

    def close(self) -> None:
        """Idempotent. A thread that waits goes on waiting for the session."""
        if self._is_open:
            self._is_open = False
            self._threaded.loop.remove_reader(self._watch.fileno())
            self._threaded.loop.remove_writer(self._sock)
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes who polls it
            with self._pump, self._sending:
                self._watch.close()
                self._sock.close()

    # ---- out ----
    def wake(self) -> None:
        """Send soon what the session has: at once, unless something was sent just now."""
        session = self._session
        if session is None or not (session.dropped or session.machine.has_operations):
            return
        if time.monotonic() - self._sent_s > _BURST_S:
            self.send()
        elif not self._is_delayed:
            self._is_delayed = True
            self._threaded.soon(self._send_later)

    def send(self) -> None:
        """Send what the session has. Never blocks; what does not fit into the socket follows."""
        # A thread that finds another one sending leaves its frames to that one, which looks again after it has let go.
        self._is_due = True
        while self._is_due and self._sending.acquire(blocking=False):
            try:
                self._is_due = False
                self._send_all()
            except BaseException:  # Ctrl-C: perhaps half a frame is lost
                self._break()
                raise
            finally:
                self._sending.release()

    def _send_all(self) -> None:
        session = self._session
        if session is None or not self._is_open:
            return
        if self._unsent:
            self._write()
        while not self._unsent and (frame := session.take_frame()) is not None:
            self._unsent += pack(frame)
            self._write()
        self._sent_s = time.monotonic()

    def _write(self) -> None:
        try:
            del self._unsent[: self._sock.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._unsent.clear()  # whoever reads sees the end
            return
        if self._unsent:
            self._threaded.soon(self._await_room)

    def _await_room(self) -> None:
        if self._is_open:
            self._threaded.loop.add_writer(self._sock, self._on_room)

    def _on_room(self) -> None:
        self._threaded.loop.remove_writer(self._sock)
        self.send()

    def _send_later(self) -> None:
        self._threaded.loop.call_later(_BURST_S, self._send_delayed)

    def _send_delayed(self) -> None:
        self._is_delayed = False
        self.send()

    # ---- in ----
    def wait(self, waiter: Waiter, timeout_s: float | None) -> bool:
        """As `Transport.wait`."""
        self.send()
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        if self._pump.acquire(blocking=False):
            try:
                if self._pump_until(waiter, deadline_s):
                    return True
            finally:
                self._pump.release()
        left_s = None if deadline_s is None else deadline_s - time.monotonic()
        return waiter.block(left_s)

    def _pump_until(self, waiter: Waiter, deadline_s: float | None) -> bool:
        """Read for everybody until `waiter` is done; False when the time is over, or there is no lane now."""
        if (
            not self._is_open or self._session is None
        ):  # has ended, or is not begun: a thread may be faster than the loop
            return waiter.done
        self._watch.modify(self._sock, 0)
        try:
            while not waiter.done:
                left_s = None if deadline_s is None else deadline_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    return False
                if self._readable.poll(None if left_s is None else left_s * 1000) and not self._read():
                    return False
            return True
        finally:
            self._watch.modify(self._sock, select.EPOLLIN)

    def _on_readable(self) -> None:
        if self._pump.acquire(blocking=False):
            try:
                self._read()
            finally:
                self._pump.release()

    def _read(self) -> bool:
        """Take in what is there; the caller holds the pump. False: the lane has ended."""
        session = self._session
        assert session is not None
        try:
            data = self._receive()
            if data is None:
                return True
            for reply in self._decoder.feed(data):
                session.deliver(reply)
        except ProtocolViolationError:
            data = b""
        except BaseException:  # Ctrl-C: replies may be lost, so the session has to ask again
            self._break()
            raise
        if not data:
            self._break()
        return bool(data)

    def _receive(self) -> bytes | None:
        """What has come: None for nothing, no bytes for the end."""
        try:
            return self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _break(self) -> None:
        """End this lane, from any thread; the session goes on with the next one."""
        self._threaded.soon(self._end)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
