"""When a coordinator that was booted for a client ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# How often it is looked whether anybody is there.
LOOK_S = 1.0


class Alone:
    """Since when nobody has been there. Pure: the time is told to it."""

    def __init__(self, limit_s: float, now_s: float) -> None:
        """`now_s`: the start, which counts as if a client had just left."""
        self._limit_s = limit_s
        self._wanted_s = now_s
        self._looked_s = now_s

    def look(self, now_s: float, *, is_wanted: bool, patience_s: float = 2 * LOOK_S) -> bool:
        """Whether it has been alone for as long as it may be.

        Looked for at intervals: a gap of more than `patience_s` since the last look is a stall of this process, in which a
        client could not have come back, and does not count.
        """
        stalled_s = max(0.0, now_s - self._looked_s - patience_s)
        self._looked_s = now_s
        self._wanted_s = now_s if is_wanted else self._wanted_s + stalled_s
        return now_s - self._wanted_s >= self._limit_s


async def end_when_alone(
    limit_s: float, is_wanted: Callable[[], bool], now_s: Callable[[], float], stop: Callable[[str], None]
) -> None:
    """Call `stop` once nobody has been there for `limit_s` seconds; then return."""
    alone = Alone(limit_s, now_s())
    while True:
        await asyncio.sleep(min(LOOK_S, limit_s / 4))
        if alone.look(now_s(), is_wanted=is_wanted()):
            stop(f"no client and no detached work has been there for {limit_s:g} s")
            return
