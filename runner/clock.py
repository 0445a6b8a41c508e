"""The three clocks that the shells read. The core gets times as arguments."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where a shell gets the time from; tests pass a fake one."""

    def monotonic_s(self) -> float:
        """Seconds that never go back; stands still while the host is suspended."""
        ...

    def boottime_s(self) -> float:
        """Seconds that never go back and go on while the host is suspended: leases are measured on it."""
        ...

    def unix_s(self) -> float:
        """Wall clock, seconds since 1970; may jump."""
        ...


class SystemClock:
    """The clocks of this host."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def boottime_s(self) -> float:
        return _boottime_s()

    def unix_s(self) -> float:
        return time.time()


def _boottime_s() -> float:
    # CLOCK_BOOTTIME is Linux only; elsewhere the monotonic clock is the nearest thing.
    clock_id = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock_id is None else time.clock_gettime(clock_id)
