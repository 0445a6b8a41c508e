"""Finding machines: by name, by cluster, and after their end; one listing at a time for all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from runner.ids import ClusterId, MachineId
from runner.providers.fly.api import FlyApi
from runner.providers.fly.errors import FlyError, Kind
from runner.providers.fly.model import Machine
from runner.providers.fly.records import CLUSTER_TAG, GONE_STATES, MACHINE_TAG


class _Shared:
    """A listing that those who ask at about the same time share: at most one under way and one to come."""

    def __init__(self, fetch: Callable[[], Awaitable[tuple[Machine, ...]]]) -> None:
        self._fetch = fetch
        self._running: asyncio.Task[tuple[Machine, ...]] | None = None
        self._next: asyncio.Task[tuple[Machine, ...]] | None = None

    async def get(self) -> tuple[Machine, ...]:
        """The answer to a request that was sent after this call began."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._run(self._running))
            self._next.add_done_callback(_seen)
        return await asyncio.shield(self._next)

    async def close(self) -> None:
        """End what is under way."""
        tasks = [task for task in (self._running, self._next) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, before: asyncio.Task[tuple[Machine, ...]] | None) -> tuple[Machine, ...]:
        try:
            if before is not None:
                await asyncio.wait([before])
            else:
                await asyncio.sleep(0)  # those who ask in the same turn share it
        finally:
            self._running, self._next = self._next, None
        try:
            return await self._fetch()
        finally:
            self._running = None


class Lookup:
    """Machines of one cluster. Listing is limited to about one a second per app, so callers share one."""

    def __init__(self, api: FlyApi, cluster_id: ClusterId) -> None:
        self._api = api
        self._cluster_id = cluster_id
        self._listing = _Shared(lambda: self.of_cluster(cluster_id))
        self._deleted = _Shared(lambda: api.machines.list({CLUSTER_TAG: cluster_id}, include_deleted=True))

    async def all(self) -> tuple[Machine, ...]:
        """What exists, as of a moment after this call began."""
        return await self._listing.get()

    async def named(self, name: MachineId) -> tuple[Machine, ...]:
        """Those of this name that are not gone. One, unless the API lags behind."""
        return tuple(
            each
            for each in await self.all()
            if each.config.metadata.get(MACHINE_TAG) == name and each.state not in GONE_STATES
        )

    async def of_cluster(self, cluster_id: ClusterId) -> tuple[Machine, ...]:
        """The machines that carry that cluster's tag."""
        return await self._api.machines.list({CLUSTER_TAG: cluster_id})

    async def after_end(self, machine_id: str) -> Machine | None:
        """A machine that ended, with its events; None where the API has forgotten it."""
        try:
            return await self._api.machines.get(machine_id)
        except FlyError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
        return next((each for each in await self._deleted.get() if each.id == machine_id), None)

    async def close(self) -> None:
        """End what is under way."""
        await self._listing.close()
        await self._deleted.close()


def _seen(done: asyncio.Task[tuple[Machine, ...]]) -> None:
    if not done.cancelled():
        done.exception()
