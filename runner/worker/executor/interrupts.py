"""Cancelling one attempt and no other: SIGINT says "look", a shared page says which attempt is meant.

The agent writes the attempt's serial into the page before the signal is sent. The handler raises only while user code of that very
attempt runs, so a signal that comes late hits nothing.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps in enums, which takes longer than all else here
import mmap
import os
import signal
import threading
from types import FrameType, TracebackType

PAGE_BYTES = mmap.PAGESIZE
_SERIAL_BYTES = 8


class TaskInterrupt(KeyboardInterrupt):
    """Raised inside user code when its task is cancelled or out of time. Not an Exception, so that `except Exception` lets it pass."""


class CancelPage:
    """The shared page; both ends map the same memory."""

    def __init__(self, fd: int) -> None:
        """Map `fd`, which stays the caller's."""
        self._map = mmap.mmap(fd, PAGE_BYTES)

    @staticmethod
    def create() -> int:
        """A descriptor of new memory, zero: nobody is meant."""
        fd = os.memfd_create("runner-cancel", os.MFD_CLOEXEC)
        os.ftruncate(fd, PAGE_BYTES)
        return fd

    def request(self, serial: int) -> None:
        """Mean this attempt."""
        self._map[:_SERIAL_BYTES] = serial.to_bytes(_SERIAL_BYTES, "little")

    @property
    def requested(self) -> int:
        """Which attempt is meant; 0 for none."""
        return int.from_bytes(self._map[:_SERIAL_BYTES], "little")

    def close(self) -> None:
        """Unmap."""
        self._map.close()


class InterruptGate:
    """Lets interrupts through to the user code of one attempt at a time. Belongs to the main thread."""

    def __init__(self, page: CancelPage) -> None:
        self._page = page
        self._pid = os.getpid()
        self._thread = threading.get_ident()
        self._handler = self._on_signal  # one object, to be recognised
        self._serial = 0  # whose user code runs; 0: nobody's
        self._shields = 0
        self._is_pending = False
        self.was_raised = False  # in the attempt that runs, or ran last

    def install(self) -> None:
        """Take over SIGINT."""
        signal.signal(signal.SIGINT, self._handler)

    def open(self, serial: int) -> None:
        """User code of this attempt runs from now on: anything from here to `shut` may raise TaskInterrupt, once."""
        if _signal.getsignal(signal.SIGINT) is not self._handler:  # the last attempt's user code took it
            self.install()
        self.was_raised = self._is_pending = False
        self._serial = serial
        if self._page.requested == serial:  # asked for before it began
            self._on_signal(signal.SIGINT, None)

    def shut(self) -> bool:
        """It is over. When this was called nothing raises any more. True: the attempt was asked to end before."""
        serial, self._serial = self._serial, 0
        return self.was_raised or self._page.requested == serial

    @property
    def is_requested(self) -> bool:
        """Whether the attempt that runs was asked to end."""
        return self._serial != 0 and self._page.requested == self._serial

    def __enter__(self) -> None:
        """Inside the context the main thread is not interrupted, but right after it."""
        if threading.get_ident() == self._thread:
            self._shields += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.get_ident() != self._thread:
            return
        self._shields -= 1
        if self._is_pending and not self._shields:
            self._on_signal(signal.SIGINT, None)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            raise KeyboardInterrupt  # a child that user code forked: not the agent's doing
        if not self._serial or self._page.requested != self._serial or self.was_raised:
            return
        if self._shields:
            self._is_pending = True
            return
        self.was_raised = True
        raise TaskInterrupt
