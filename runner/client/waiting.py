"""Blocking until objects are ready, on bare locks: an Event costs several times as much."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


class Waiter:
    """One thread waiting for `needed` of `ids`. All methods but `block` are called under the session's lock."""

    __slots__ = ("_lock", "done", "ids", "needed", "wake", "wake_on_failure")

    def __init__(self, ids: Iterable[str], needed: int, *, wake_on_failure: bool) -> None:
        self.ids = set(ids)
        self.needed = needed
        self.wake_on_failure = wake_on_failure  # get() raises as soon as one value is an error
        self.done = False
        self.wake: Callable[[], None] | None = None  # for a thread that waits in other ways than `block`
        self._lock = threading.Lock()
        self._lock.acquire()

    def object_ready(self, object_id: str, is_failure: bool) -> None:
        """One object is final; ignored unless it is waited for."""
        if object_id not in self.ids or self.done:
            return
        self.ids.discard(object_id)
        self.needed -= 1
        if self.needed <= 0 or (is_failure and self.wake_on_failure):
            self.finish()

    def finish(self) -> None:
        """Wake the thread, whatever is missing."""
        if not self.done:
            self.done = True
            self._lock.release()
            if self.wake is not None:
                self.wake()

    def block(self, timeout_s: float | None) -> bool:
        """Wait in the calling thread; False when the time is over first."""
        if timeout_s is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))
