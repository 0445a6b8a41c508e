"""Destroying machines by id, also those that the API does not show yet; and which are gone though it still shows them."""

from __future__ import annotations

import asyncio

from runner.providers.fly.api import FlyApi
from runner.providers.fly.errors import FlyError, Kind
from runner.providers.fly.lookup import Lookup
from runner.providers.fly.records import GONE_STATES

_POLL_S = 0.5


class Ends:
    """For one cluster and one event loop."""

    def __init__(self, lookup: Lookup, *, lag_s: float) -> None:
        """`lag_s`: for how long a machine that was just created may be invisible."""
        self._lookup = lookup
        self._lag_s = lag_s
        self._ended: set[str] = set()  # ids
        self._visible_by_s: dict[str, float] = {}  # ids that only the answer to their create has shown

    def created(self, machine_id: str) -> None:
        """Its create was answered; nothing else has shown it yet."""
        self._visible_by_s[machine_id] = asyncio.get_running_loop().time() + self._lag_s

    def shown(self, machine_id: str) -> None:
        """The API knows it: from now on a 404 is its end."""
        self._visible_by_s.pop(machine_id, None)

    def is_over(self, machine_id: str) -> bool:
        """Whether it was ended here: a listing under way may still show it."""
        return machine_id in self._ended

    async def end(self, api: FlyApi, machine_id: str, deadline_s: float) -> None:
        """Returns when it is gone. `deadline_s` on the loop's clock.

        Raises:
            FlyError: it may still be there.
        """
        try:
            while not await api.machines.destroy(machine_id, force=True):
                if await self._has_ended(machine_id):
                    break
                await asyncio.sleep(_POLL_S)
            else:
                await api.machines.wait(
                    machine_id, "destroyed", deadline_s=deadline_s, slice_s=10, gone_states=GONE_STATES
                )
        except FlyError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
        self.shown(machine_id)
        self._ended.add(machine_id)

    async def _has_ended(self, machine_id: str) -> bool:
        """Nobody knows it: it has gone, or it was created a moment ago and the API lags."""
        if asyncio.get_running_loop().time() >= self._visible_by_s.get(machine_id, 0.0):
            return True
        machine = await self._lookup.after_end(machine_id)
        return machine is not None and machine.state in GONE_STATES
