"""Looks at what attempts with a memory limit use, and at what the kernel killed for memory."""

from __future__ import annotations

from runner.worker.process import descendants_of, oom_kills, pss_bytes, rss_bytes

POLL_S = 0.25


def used_bytes(pid: int, limit_bytes: int) -> int | None:
    """What `pid` and its descendants use, if that is more than the limit; else None.

    First the cheap count, in which shared pages count for each process; only above the limit the exact one.
    """
    pids = [pid, *descendants_of(pid)]
    if rss_bytes(pids) <= limit_bytes:
        return None
    exact = pss_bytes(pids)
    return exact if exact > limit_bytes else None


class OomCounter:
    """Whether the kernel has killed for memory since somebody last looked."""

    def __init__(self) -> None:
        self._seen = oom_kills()

    def look(self) -> None:
        """What happened so far explains nothing that happens later."""
        self._seen = oom_kills()

    def has_risen(self) -> bool:
        """True when a kill for memory happened since the last look."""
        return oom_kills() > self._seen
