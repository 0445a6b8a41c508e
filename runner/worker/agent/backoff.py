"""Pauses between tries to reach the coordinator."""

from __future__ import annotations

import asyncio

from runner.rpc.channels import RECONNECT_BACKOFF_S_MAX

BACKOFF_FIRST_S = 0.05


class Backoff:
    """Growing pauses between tries; at most RECONNECT_BACKOFF_S_MAX."""

    def __init__(self) -> None:
        self._next_s = BACKOFF_FIRST_S

    def reset(self) -> None:
        """It works again."""
        self._next_s = BACKOFF_FIRST_S

    async def pause(self) -> None:
        """Wait before the next try."""
        await asyncio.sleep(self._next_s)
        self._next_s = min(2 * self._next_s, RECONNECT_BACKOFF_S_MAX)
