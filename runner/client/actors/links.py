"""Connections to actors on this host: one Unix socket each, one epoll for all, read by whoever waits for an answer.

A thread that waits in `get` reads the sockets itself and is not woken by anybody. The links' own thread connects, sends
what callers have gathered, and reads while nobody else does; it stands back as long as somebody has read a moment ago.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from runner.client.actors.channel import ActorChannel, ChannelState
from runner.client.actors.link import RETRY_FIRST_S, Link, raise_late, receive
from runner.client.waiting import Waiter
from runner.errors import ProtocolViolationError
from runner.rpc.actor_frames import Frame
from runner.rpc.peers import is_own

STAND_BACK_S = 0.01
RETRY_MAX_S = 1.0
# More calls than these are sent in batches by the thread, with what else was gathered until it runs.
_SENT_AT_ONCE = 8
_GATHERED_BYTES_MAX = 64 << 10


class Desk(Protocol):
    """Who deals with what arrives, and carries what sockets cannot."""

    def frames(self, link: Link, frames: list[Frame]) -> bool:
        """An actor's answers; False: it refuses us. Called under the session's lock. An interrupt that comes meanwhile is
        put into `link.interrupt`.

        Raises:
            ProtocolViolationError: no actor may send this.
        """

    def relay(self, channel: ActorChannel, data: memoryview) -> None:
        """Send through the server. Called under the session's lock."""

    def tidy(self) -> None:
        """Send what the session has gathered meanwhile. Called without the lock."""


class ActorLinks:
    """The links of one session, whose lock it shares. `gate` keeps interrupts out of what must not be cut in two."""

    def __init__(self, desk: Desk, lock: AbstractContextManager[object], gate: AbstractContextManager[None]) -> None:
        self._desk = desk
        self._lock = lock
        self._gate = gate
        self._links: dict[str, Link] = {}  # by actor
        self._by_fd: dict[int, Link] = {}
        self._wanted: dict[str, tuple[ActorChannel, float, float]] = {}  # to connect: when, and the wait after that
        self._to_flush: list[Link] = []
        self._to_close: list[Link] = []
        self._epoll = select.epoll()
        self._nudge_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # ends the poll of a thread that reads
        self._bell_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # wakes our thread
        self._epoll.register(self._nudge_fd, select.EPOLLIN)
        self._pump = threading.Lock()  # whoever has it reads for all
        self._pumper = 0  # the thread in `wait` that has it
        self._pumped_s = 0.0
        self._others = 0  # threads that wait and do not read
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="runner-actors", daemon=True)
        self._thread.start()

    # ---- under the session's lock ----
    def connect(self, channel: ActorChannel) -> None:
        """A connection is wanted; one that there was is closed."""
        self.drop(channel.actor_id)
        self._wanted[channel.actor_id] = (channel, 0.0, RETRY_FIRST_S)
        self.ring()

    def connect_by_relay(self, channel: ActorChannel) -> None:
        """Go through the server; a connection that there was is closed."""
        self.drop(channel.actor_id)
        link = self._links[channel.actor_id] = Link(channel)
        link.unsent = memoryview(channel.hello())
        self.flush_soon(channel.actor_id)

    def drop(self, actor_id: str) -> None:
        """Neither a connection nor the wish for one is left."""
        self._wanted.pop(actor_id, None)
        link = self._links.pop(actor_id, None)
        if link is not None:
            link.is_open = False
            self._to_close.append(link)
            self.ring()

    def link(self, actor_id: str) -> Link | None:
        """The link of a channel, if it has one."""
        return self._links.get(actor_id)

    def flush_soon(self, actor_id: str) -> None:
        """Have the thread send what is gathered."""
        link = self._links.get(actor_id)
        if link is not None and not link.is_flush_wanted:
            link.is_flush_wanted = True
            self._to_flush.append(link)
            self.ring()

    def ring(self) -> None:
        """Have the thread look at what is to be done."""
        if not self._is_closed:
            os.eventfd_write(self._bell_fd, 1)

    # ---- without the lock ----
    def called(self, channel: ActorChannel) -> None:
        """A call was made: send it now, or with others."""
        if not channel.out_bytes:
            return
        with self._gate, self._lock:
            link = self._links.get(channel.actor_id)
            if link is None:
                return
            if channel.in_flight <= _SENT_AT_ONCE or channel.out_bytes >= _GATHERED_BYTES_MAX:
                self._flush(link)
            else:
                self.flush_soon(channel.actor_id)

    def flush_all(self) -> None:
        """Send everything that was left for the thread."""
        if self._to_flush:
            with self._gate, self._lock:
                links, self._to_flush = self._to_flush, []
                for link in links:
                    self._flush(link)

    def wait(
        self, waiter: Waiter, timeout_s: float | None, read_s: float, otherwise: Callable[[float | None], bool]
    ) -> bool:
        """Wait for `waiter`: at most `read_s` by reading here, after that `otherwise`, while the thread reads."""
        self.flush_all()
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        if read_s and self._pump.acquire(blocking=False):
            try:
                self._read_until(waiter, read_s if timeout_s is None else min(read_s, timeout_s))
            finally:
                self._pumper = 0
                self._pump.release()
                if self._others:
                    self.ring()
        if waiter.done:
            return True
        with self._lock:
            self._others += 1
            self.ring()
        try:
            return otherwise(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
        finally:
            with self._lock:
                self._others -= 1

    def serve(self) -> None:
        """Somebody waits without reading and cannot be counted: the thread reads from now on, until somebody else does."""
        self._pumped_s = 0.0
        self.ring()

    def close(self, timeout_s: float) -> None:
        """Hang up on everybody and end the thread. Idempotent."""
        if self._is_closed:
            return
        self.flush_all()
        with self._lock:
            for actor_id in list(self._links):
                self.drop(actor_id)
            self._wanted.clear()
            self.ring()
            self._is_closed = True
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._epoll.close()
            os.close(self._nudge_fd)
            os.close(self._bell_fd)

    def forked(self) -> None:
        """In a child: actors must see the end of the parent, whatever its children do."""
        if self._is_closed:
            return
        self._is_closed = True
        for fd in [*self._by_fd, self._nudge_fd, self._bell_fd, self._epoll.fileno()]:
            os.close(fd)
        for link in self._by_fd.values():
            if link.sock is not None:
                link.sock.detach()

    # ---- reading ----
    def _read_until(self, waiter: Waiter, read_s: float) -> None:
        self._pumper = threading.get_ident()
        waiter.wake = self._nudge
        until_s = time.monotonic() + read_s
        while not waiter.done:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                break
            self._read(left_s)
        waiter.wake = None
        self._pumped_s = time.monotonic()

    def _nudge(self) -> None:
        if threading.get_ident() != self._pumper:
            os.eventfd_write(self._nudge_fd, 1)

    def _read(self, timeout_s: float) -> None:
        """Wait for input and handle it; the caller holds the pump. Only the waiting can be interrupted."""
        for fd, mask in self._epoll.poll(timeout_s):
            with self._gate:
                link = self._by_fd.get(fd)
                if link is not None:
                    self._serve(link, mask)
                elif fd == self._nudge_fd:
                    _drain(fd)

    def _serve(self, link: Link, mask: int) -> None:
        assert link.sock is not None
        is_served = False
        try:
            data = receive(link.sock) if mask & ~select.EPOLLOUT else None
            with self._lock:
                if data is not None and not (data and self._take_in(link, data)):
                    self._hang_up(link)
                elif link.unsent or link.channel.out_bytes:
                    self._flush(link)
            is_served = True
        finally:
            if not is_served:  # Ctrl-C between bytes and their meaning
                with self._lock:
                    self._hang_up(link)
        self._desk.tidy()
        raise_late(link)

    def _take_in(self, link: Link, data: bytes) -> bool:
        """Bytes of an actor; False: they make no sense, or it refuses us."""
        if not link.is_open:
            return False
        try:
            return self._desk.frames(link, link.decoder.feed(data))
        except ProtocolViolationError:
            return False

    def relayed(self, actor_id: str, incarnation: int, data: bytes) -> None:
        """Bytes of an actor that came through the server. Called under the lock."""
        link = self._links.get(actor_id)
        if link is None or link.sock is not None or link.channel.incarnation != incarnation:
            return
        if not self._take_in(link, data):
            self._hang_up(link)
        elif link.channel.out_bytes:
            self.flush_soon(actor_id)
        raise_late(link)

    def _hang_up(self, link: Link) -> None:
        """The connection is gone; try again unless the server says otherwise meanwhile."""
        channel = link.channel
        if self._links.get(channel.actor_id) is not link:
            return
        was_open = channel.state is ChannelState.OPEN
        wait_s = RETRY_FIRST_S if was_open else link.retry_s
        self.drop(channel.actor_id)
        channel.broken()
        if channel.state is ChannelState.LOCATED and link.sock is not None and not was_open:
            self.connect_by_relay(channel)  # it has no descriptors left, or ends: the server knows
            self._links[channel.actor_id].retry_s = wait_s
        elif channel.state is ChannelState.LOCATED:
            self._wanted[channel.actor_id] = (channel, time.monotonic() + wait_s, min(2 * wait_s, RETRY_MAX_S))
        self.ring()

    def _flush(self, link: Link) -> None:
        """Send what is gathered for a link; what does not fit goes when the actor takes more. Under the lock."""
        link.is_flush_wanted = False
        if not link.is_open:
            return
        while data := link.unsent or memoryview(link.channel.take()):
            if link.sock is None:
                self._desk.relay(link.channel, data)
                link.unsent = memoryview(b"")
                continue
            try:
                link.unsent = data[link.sock.send(data) :]
            except BlockingIOError:
                link.unsent = data
            except OSError:  # whoever reads sees its end
                link.unsent = memoryview(b"")
                return
            if link.unsent:
                break
        if link.sock is not None and link.is_stuck != bool(link.unsent):
            link.is_stuck = bool(link.unsent)
            self._watch(link, select.EPOLLIN | (select.EPOLLOUT if link.is_stuck else 0))

    def _watch(self, link: Link, mask: int) -> None:
        if link.sock is not None and link.is_open:
            self._epoll.modify(link.sock.fileno(), mask)

    # ---- the thread ----
    def _run(self) -> None:
        bell, both = select.poll(), select.poll()
        bell.register(self._bell_fd, select.POLLIN)
        both.register(self._bell_fd, select.POLLIN)
        both.register(self._epoll.fileno(), select.POLLIN)
        while True:
            next_s = self._do_chores()
            if self._is_closed:
                return
            stands_back = self._pumper != 0 or (not self._others and time.monotonic() - self._pumped_s < STAND_BACK_S)
            if stands_back:
                next_s = STAND_BACK_S if next_s is None else min(next_s, STAND_BACK_S)
            ready = (bell if stands_back else both).poll(None if next_s is None else next_s * 1000)
            fds = [fd for fd, _ in ready]
            if self._bell_fd in fds:
                _drain(self._bell_fd)
            if len(fds) > (self._bell_fd in fds) and self._pump.acquire(blocking=False):
                try:
                    self._read(0)
                finally:
                    self._pump.release()

    def _do_chores(self) -> float | None:
        """Close, connect and send what is due; returns in how many seconds there is more, None: when told."""
        self.flush_all()
        with self._lock:
            for link in self._to_close:
                self._close(link)
            self._to_close.clear()
            now_s = time.monotonic()
            for channel, at_s, wait_s in list(self._wanted.values()):
                if at_s <= now_s:
                    self._try_connect(channel, wait_s)
            next_s = min((at_s for _, at_s, _ in self._wanted.values()), default=None)
        self._desk.tidy()
        return None if next_s is None else max(0.001, next_s - time.monotonic())

    def _close(self, link: Link) -> None:
        link.is_open = False
        if link.sock is not None and self._by_fd.pop(link.sock.fileno(), None) is not None:
            self._epoll.unregister(link.sock.fileno())
            link.sock.close()

    def _try_connect(self, channel: ActorChannel, wait_s: float) -> None:
        assert channel.place is not None
        name = channel.place.address
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # there are no descriptors left
            self.connect_by_relay(channel)
            return
        try:
            sock.connect(name if name.startswith("\0") else f"\0{name}")
            if not is_own(sock):  # the actor has ended, and somebody else has taken its name
                raise PermissionError(name)
        except BlockingIOError:  # very many want to
            sock.close()
            self._wanted[channel.actor_id] = (channel, time.monotonic() + wait_s, min(2 * wait_s, RETRY_MAX_S))
            return
        except OSError:  # it has ended, or its machine has a network of its own: the server knows
            sock.close()
            self.connect_by_relay(channel)
            return
        del self._wanted[channel.actor_id]
        link = Link(channel, sock)
        self._links[channel.actor_id] = self._by_fd[sock.fileno()] = link
        link.retry_s = wait_s
        link.unsent = memoryview(channel.hello())
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._flush(link)


def _drain(fd: int) -> None:
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        pass
