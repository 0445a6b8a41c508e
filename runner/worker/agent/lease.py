"""How long an agent may believe that the coordinator still counts on it. Times are CLOCK_BOOTTIME seconds."""

from __future__ import annotations

import enum


class LeaseState(enum.Enum):
    """What the lease allows now."""

    HELD = "everything"
    UNSURE = "what runs goes on, nothing starts"
    LOST = "nothing runs"
    OVER = "the machine ends"


class Lease:
    """Renewed by acknowledgements, counted from when the acknowledged frame was *sent*.

    Without `is_used` (embedded: the life pipe tells) only clock gaps count.
    """

    def __init__(self, *, is_used: bool, lost_after_s: float, destroy_after_s: float) -> None:
        self._is_used = is_used
        self._lost_after_s = lost_after_s
        self._destroy_after_s = max(destroy_after_s, lost_after_s)
        self._renewed_s: float | None = None  # None: not registered yet
        self._fresh_after_s: float | None = None  # an older acknowledgement proves nothing

    def renew(self, sent_s: float) -> None:
        """What was sent at `sent_s` has been received."""
        if self._renewed_s is None or sent_s > self._renewed_s:
            self._renewed_s = sent_s
        if self._fresh_after_s is not None and sent_s >= self._fresh_after_s:
            self._fresh_after_s = None

    def stop(self) -> None:
        """The machine is about to be suspended: nothing runs out until the next `renew`."""
        self._renewed_s = self._fresh_after_s = None

    def doubt(self, now_s: float) -> None:
        """A gap in time was noticed: wait for one round trip that began after it."""
        self._fresh_after_s = now_s

    def state(self, now_s: float) -> LeaseState:
        """What is allowed at `now_s`."""
        if self._is_used and self._renewed_s is not None:
            silent_s = now_s - self._renewed_s
            if silent_s >= self._destroy_after_s:
                return LeaseState.OVER
            if silent_s >= self._lost_after_s:
                return LeaseState.LOST
        return LeaseState.HELD if self._fresh_after_s is None else LeaseState.UNSURE

    def next_change_s(self, now_s: float) -> float | None:
        """When the state changes if nothing is heard."""
        if not self._is_used or self._renewed_s is None:
            return None
        lost_s = self._renewed_s + self._lost_after_s
        return lost_s if now_s < lost_s else self._renewed_s + self._destroy_after_s
