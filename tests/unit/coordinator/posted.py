"""An engine for tests of what is around it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from runner.ids import MachineId


class Posted:
    """An engine that only listens."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.cluster = self
        self.state = "booting"  # of every machine
        self.rows: list[Any] = []  # of the listing
        self.news = asyncio.Event()

    def machine(self, machine_id: MachineId) -> Any:
        return SimpleNamespace(machine_id=machine_id, state=self.state)

    def machines(self, *, after: str = "", limit: int = 100) -> tuple[list[Any], str]:
        """Two to a page."""
        start = int(after or 0)
        return self.rows[start : start + 2], str(start + 2) if len(self.rows) > start + 2 else ""

    def post(self, event: Any) -> None:
        self.events.append(event)
        self.news.set()

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            while not self.events:
                self.news.clear()
                await self.news.wait()
        return self.events.pop(0)
