"""Waiting in tests: for a condition, with a deadline and words for when it does not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

POLL_S = 0.02


def wait_until(condition: Callable[[], object], limit_s: float, what: str) -> float:
    """Poll until `condition()` is true; returns how long that took.

    Raises:
        AssertionError: it was not within `limit_s`; says `what` was waited for.
    """
    begin_s = time.monotonic()
    while not condition():
        assert time.monotonic() - begin_s < limit_s, f"not within {limit_s:g} s: {what}"
        time.sleep(POLL_S)
    return time.monotonic() - begin_s


async def until(condition: Callable[[], object], limit_s: float, what: str) -> None:
    """As `wait_until`, in an event loop that goes on meanwhile."""
    begin_s = time.monotonic()
    while not condition():
        assert time.monotonic() - begin_s < limit_s, f"not within {limit_s:g} s: {what}"
        await asyncio.sleep(POLL_S)


async def let_pass(seconds: float, why: str) -> None:
    """As `pause`, in an event loop that goes on meanwhile."""
    assert why
    await asyncio.sleep(seconds)


def is_alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def wait_gone(pids: Iterable[int], limit_s: float) -> float:
    """Wait until none of the processes is alive; returns how long that took."""
    wanted = list(pids)
    return wait_until(lambda: not any(map(is_alive, wanted)), limit_s, f"the end of the processes {wanted}")


def pause(seconds: float, why: str) -> None:
    """Let real time pass where time itself is the thing under test; `why` is for the reader."""
    assert why
    time.sleep(seconds)


def let_stay(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Look for this long whether `condition()` stays true.

    Raises:
        AssertionError: it did not; says `what` was to stay.
    """
    begin_s = time.monotonic()
    while time.monotonic() < begin_s + seconds:
        assert condition(), f"did not stay for {seconds:g} s: {what}"
        time.sleep(POLL_S)
