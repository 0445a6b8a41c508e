"""The actor's end of one caller's byte stream, on a socket or relayed by the agent: what was gathered for it, and what it holds."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from runner.rpc.actor_frames import Decoder
from runner.worker.executor.channel import ExecutorSocket
from runner.worker.frames import Kind

if TYPE_CHECKING:
    from runner.worker.actors.calls import Call

# A caller that takes its answers slower than it calls is not read, and its calls are not run, above this.
UNSENT_BYTES_MAX = 1 << 20
# More than this is not held back for what may follow.
_GATHERED_BYTES_MAX = 64 << 10
# Far below the limit of a message between agent and coordinator.
_RELAYED_BYTES_MAX = 512 << 10


class Carrier(Protocol):
    """How bytes come to a caller."""

    def write(self, data: memoryview) -> int:
        """Give away the first bytes of `data`, without waiting; returns how many.

        Raises:
            OSError: nobody is there any more.
        """

    def watch(self, *, read: bool, write: bool) -> None:
        """Say what is wanted of it: that it has input, that it takes output."""

    def close(self) -> None: ...


class Watcher(Protocol):
    """The part of `select.epoll` that carriers use, from any thread."""

    def modify(self, fd: int, eventmask: int, /) -> None: ...


class SocketCarrier:
    """A connection of a process on this host."""

    def __init__(self, sock: socket.socket, watcher: Watcher, masks: tuple[int, int]) -> None:
        """`masks`: the watcher's words for input and for output."""
        self.sock = sock
        self._watcher = watcher
        self._masks = masks

    def write(self, data: memoryview) -> int:
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    def watch(self, *, read: bool, write: bool) -> None:
        self._watcher.modify(self.sock.fileno(), self._masks[0] * read | self._masks[1] * write)

    def close(self) -> None:
        self.sock.close()


class RelayCarrier:
    """A caller elsewhere: agent and coordinator carry the bytes, and buffer them."""

    def __init__(self, sock: ExecutorSocket, serial: int, relay_id: str) -> None:
        """`relay_id`: what the coordinator calls the caller."""
        self.relay_id = relay_id
        self._sock = sock
        self._serial = serial

    def write(self, data: memoryview) -> int:
        for start in range(0, len(data), _RELAYED_BYTES_MAX):
            piece = bytes(data[start : start + _RELAYED_BYTES_MAX])
            self._sock.send(Kind.ACTOR_OUT, self._serial, self.relay_id, piece)
        return len(data)

    def watch(self, *, read: bool, write: bool) -> None:
        """The agent's socket is read and written for all."""

    def close(self) -> None:
        """Nothing is ours."""


class Channel:
    """One caller. Output may come from any thread; everything else belongs to the main thread."""

    def __init__(self, carrier: Carrier, dirty: set[Channel], on_room: Callable[[Channel], None]) -> None:
        """`dirty` gets this channel whenever something is gathered. `on_room` is called, from any thread and under the
        channel's lock, when it was full and is not any more."""
        self.carrier = carrier
        self._dirty = dirty
        self._on_room = on_room
        self.caller_id = ""  # empty until its HELLO was accepted
        self.decoder = Decoder()
        self.calls: deque[Call] = deque()  # not begun yet
        self.by_seq: dict[int, Call] = {}  # not answered yet
        self.held: dict[int, deque[Any]] = {}  # refs to registered values by seq, one entry a frame, until RELEASED
        self.is_open = True
        self.is_full = False  # too much is unsent
        self._lock = threading.Lock()
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._unsent = memoryview(b"")  # what did not fit when it was sent
        self._is_stuck = False  # the watcher tells when output fits again

    def gather(self, frame: bytes) -> None:
        """Send this with the next `flush`, or now when much has gathered."""
        with self._lock:
            if not self.is_open:
                return
            self._gathered.append(frame)
            self._gathered_bytes += len(frame)
            self._dirty.add(self)
            if self._gathered_bytes >= _GATHERED_BYTES_MAX:
                self._write()

    def flush(self) -> None:
        """Send what was gathered, as far as it fits; the watcher tells when the rest does. Never waits for the caller."""
        with self._lock:
            if self.is_open:
                self._write()

    @property
    def has_output(self) -> bool:
        """Whether something was gathered since the last flush, or did not fit then."""
        return bool(self._gathered) or self._is_stuck

    def release(self, seq: int) -> None:
        """The caller holds the values of the oldest registered frame of this call itself."""
        frames = self.held.get(seq)
        if frames:
            frames.popleft()
            if not frames:
                del self.held[seq]

    def close(self) -> None:
        """Nobody is there: what is unsent goes, and what was held for the caller too."""
        with self._lock:
            self._drop_output()
            self.carrier.close()
        self.held.clear()

    def _drop_output(self) -> None:
        self.is_open = self.is_full = self._is_stuck = False
        self._gathered.clear()
        self._gathered_bytes = 0
        self._unsent = memoryview(b"")

    def _write(self) -> None:
        try:
            while self._unsent or self._gathered:
                if not self._unsent:
                    gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
                    self._unsent = memoryview(gathered[0] if len(gathered) == 1 else b"".join(gathered))
                self._unsent = self._unsent[self.carrier.write(self._unsent) :]
                if self._unsent:
                    break
        except OSError:  # the watcher sees it too, and then the channel goes
            self._drop_output()
            return
        is_stuck = bool(self._unsent)
        is_full = is_stuck and len(self._unsent) + self._gathered_bytes >= UNSENT_BYTES_MAX
        if is_stuck != self._is_stuck or is_full != self.is_full:
            had_room, self._is_stuck, self.is_full = not self.is_full, is_stuck, is_full
            self.carrier.watch(read=not is_full, write=is_stuck)
            if not had_room and not is_full:
                self._on_room(self)
