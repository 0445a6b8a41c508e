"""The sockets of an actor: who may connect, who has sent what. One poll serves all callers, the agent and wake-ups."""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import secrets
import select
import socket
import threading
import time
from collections import deque
from typing import Any, Protocol

from runner.client import fork_guard
from runner.errors import ProtocolViolationError
from runner.rpc import peers
from runner.rpc.actor_frames import PROTOCOL, ActorKind, encode
from runner.worker.actors.channel import Channel, RelayCarrier, SocketCarrier
from runner.worker.executor.channel import ExecutorSocket
from runner.worker.frames import Frame, Kind

_READ_BYTES = 256 << 10
_BACKLOG = 512
_MASKS = (select.EPOLLIN, select.EPOLLOUT)
_HELLO = int(ActorKind.HELLO)


class Desk(Protocol):
    """Who deals with what callers send."""

    def frames(self, channel: Channel, frames: list[list[Any]]) -> None:
        """These came from an accepted caller, in order.

        Raises:
            ProtocolViolationError: no caller may send this.
        """

    def has_room(self, channel: Channel) -> None:
        """Its output was full, and is not any more."""

    def gone(self, channel: Channel) -> None:
        """The caller has ended or left."""


class Switchboard:
    """Belongs to the main thread, but for `wake` and `flush`."""

    def __init__(self, agent: ExecutorSocket, serial: int, incarnation: int) -> None:
        self.address = f"\0runner-{secrets.token_hex(8)}"
        self.secret = secrets.token_bytes(16)
        self.desk: Desk | None = None
        self.polled_s = 0.0  # when it was polled last
        self._agent = agent
        self._serial = serial
        self._incarnation = incarnation
        self._main_thread = threading.get_ident()
        self._by_fd: dict[int, Channel] = {}
        self._relays: dict[str, Channel] = {}
        self._dirty: set[Channel] = set()
        self._roomy: deque[Channel] = deque()  # their output was full, and is not any more
        self._incoming: deque[tuple[str, bytes]] = deque()  # of relayed callers
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.setblocking(False)
        self._listener.bind(self.address)
        self._listener.listen(_BACKLOG)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # for the moment when there are no others
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._reads_agent = False
        agent.on(Kind.ACTOR_IN, self._relayed)
        fork_guard.guard(self)

    def read_agent(self) -> None:
        """Poll the agent's socket too, as long as no thread reads it."""
        self._epoll.register(self._agent.fileno(), select.EPOLLIN)
        self._reads_agent = True

    def fileno(self) -> int:
        """Readable when `poll` has something to do."""
        return self._epoll.fileno()

    def wake(self) -> None:
        """End a `poll` that waits. From any thread, and from signal handlers."""
        with contextlib.suppress(OSError):  # closed: nobody polls any more
            os.eventfd_write(self._wake_fd, 1)

    def poll(self, timeout_s: float | None) -> None:
        """Take in what has come; waits at most `timeout_s` for it, None: until something comes."""
        if self._incoming or self._roomy:
            timeout_s = 0
        for fd, mask in self._epoll.poll(timeout_s):
            channel = self._by_fd.get(fd)
            if channel is not None:
                self._serve(channel, mask)
            elif fd == self._wake_fd:
                os.eventfd_read(fd)
            elif fd == self._listener.fileno():
                self._accept()
            elif not self._agent.read_ready():  # a thread reads it now
                self._epoll.unregister(fd)
                self._reads_agent = False
        while self._incoming:
            self._take_relayed(*self._incoming.popleft())
        while self._roomy:
            channel = self._roomy.popleft()
            if self.desk is not None:
                self.desk.has_room(channel)
        self.polled_s = time.monotonic()

    def flush(self) -> None:
        """Send what was gathered for anybody."""
        dirty = self._dirty
        while dirty:
            try:
                channel = dirty.pop()
            except KeyError:  # another thread was faster
                return
            channel.flush()

    def drain(self, timeout_s: float) -> None:
        """Take in nothing new, and wait until everybody has all answers, at most `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        self._listener.close()
        poller = select.poll()
        while stuck := [fd for fd, channel in self._by_fd.items() if channel.has_output]:
            for fd in stuck:
                self._by_fd[fd].flush()
                poller.register(fd, select.POLLOUT)
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return
            if any(channel.has_output for channel in self._by_fd.values()):
                poller.poll(left_s * 1000)
            for fd in stuck:
                poller.unregister(fd)
        for channel in self._relays.values():
            channel.flush()

    def close(self) -> None:
        """Hang up on everybody."""
        for channel in self.channels():
            channel.close()
        self._by_fd.clear()
        self._relays.clear()
        self._listener.close()
        self._epoll.close()
        os.close(self._wake_fd)
        if self._spare_fd >= 0:
            os.close(self._spare_fd)
        self._wake_fd = self._spare_fd = -1

    def forked(self) -> None:
        """In a child: callers must see the end of this process, whatever its children do."""
        for fd in [*self._by_fd, self._listener.fileno(), self._wake_fd, self._spare_fd, self._epoll.fileno()]:
            if fd >= 0:
                os.close(fd)

    def channels(self) -> list[Channel]:
        """All callers that are there."""
        return [*self._by_fd.values(), *self._relays.values()]

    def _new_channel(self, carrier: SocketCarrier | RelayCarrier) -> Channel:
        return Channel(carrier, self._dirty, self._has_room)

    def _has_room(self, channel: Channel) -> None:
        """Called from any thread."""
        self._roomy.append(channel)
        self.wake()

    # ---- sockets ----
    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError as error:  # it was gone again, or
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away()
            return
        sock.setblocking(False)
        channel = self._new_channel(SocketCarrier(sock, self._epoll, _MASKS))
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        self._by_fd[sock.fileno()] = channel
        if not peers.is_own(sock):
            self._refuse(channel, f"this actor belongs to user {os.geteuid()}, not to {peers.user_of(sock)}")

    def _turn_away(self) -> None:
        """No descriptors are left: hang up on who knocks, who then goes through the server. Else no poll would wait again."""
        if self._spare_fd >= 0:
            os.close(self._spare_fd)
        self._spare_fd = -1
        with contextlib.suppress(OSError):
            self._listener.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _serve(self, channel: Channel, mask: int) -> None:
        if mask & select.EPOLLOUT:
            channel.flush()
        if not mask & ~select.EPOLLOUT:
            return
        assert isinstance(channel.carrier, SocketCarrier)
        try:
            data = channel.carrier.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(channel, data)
        else:
            self._hang_up(channel)

    def _hang_up(self, channel: Channel) -> None:
        if isinstance(channel.carrier, SocketCarrier):
            fd = channel.carrier.sock.fileno()
            if self._by_fd.pop(fd, None) is not None:
                self._epoll.unregister(fd)
        elif isinstance(channel.carrier, RelayCarrier) and self._relays.get(channel.carrier.relay_id) is channel:
            del self._relays[channel.carrier.relay_id]
        channel.close()
        if channel.caller_id and self.desk is not None:
            self.desk.gone(channel)

    # ---- relayed callers ----
    def _relayed(self, frame: Frame) -> None:
        """Called by whoever reads the agent's socket."""
        if frame[1] == self._serial and self._wake_fd >= 0:
            self._incoming.append((frame[2], frame[3]))
            if threading.get_ident() != self._main_thread:
                self.wake()

    def _take_relayed(self, relay_id: str, data: bytes) -> None:
        """No bytes at all: the caller is gone."""
        channel = self._relays.get(relay_id)
        if not data:
            if channel is not None:
                self._hang_up(channel)
            return
        if channel is None:
            carrier = RelayCarrier(self._agent, self._serial, relay_id)
            channel = self._relays[relay_id] = self._new_channel(carrier)
        self._take(channel, data)

    def _begin_again(self, channel: Channel, carrier: RelayCarrier) -> Channel:
        """A relayed caller has lost its place in the stream: what it sent before counts as from a caller that is gone."""
        self._hang_up(channel)
        channel = self._relays[carrier.relay_id] = self._new_channel(carrier)
        return channel

    # ---- frames ----
    def _take(self, channel: Channel, data: bytes) -> None:
        try:
            frames = channel.decoder.feed(data)
            carrier = channel.carrier
            if channel.caller_id and frames and frames[0][0] == _HELLO and isinstance(carrier, RelayCarrier):
                channel = self._begin_again(channel, carrier)
            if not channel.caller_id and frames:
                self._greet(channel, frames.pop(0))
            if channel.caller_id and frames and self.desk is not None:
                self.desk.frames(channel, frames)
        except ProtocolViolationError as error:
            self._refuse(channel, str(error))

    def _greet(self, channel: Channel, frame: list[Any]) -> None:
        if frame[0] != _HELLO:
            self._refuse(channel, "the first frame of a caller is HELLO")
            return
        _, protocol, secret, caller_id, incarnation = frame
        if protocol != PROTOCOL:
            self._refuse(channel, f"this actor speaks protocol {PROTOCOL}, the caller {protocol!r}")
        elif not isinstance(secret, bytes) or not hmac.compare_digest(secret, self.secret):
            self._refuse(channel, "that is not this actor's secret")
        elif incarnation != self._incarnation:
            self._refuse(channel, f"this is incarnation {self._incarnation} of the actor, not {incarnation!r}")
        elif not isinstance(caller_id, str) or not caller_id:
            self._refuse(channel, "a caller has an id")
        else:
            channel.caller_id = caller_id
            channel.gather(encode(ActorKind.WELCOME))
            channel.flush()

    def _refuse(self, channel: Channel, text: str) -> None:
        channel.gather(encode(ActorKind.REFUSED, text))
        channel.flush()
        self._hang_up(channel)
