"""One machine of a fleet, to be put to sleep and woken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from runner.coordinator.admission import JoinKey
from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.fleet import Fleet
from runner.coordinator.sleepers import CallLimits, Sleepers
from runner.core import events
from runner.core.values import CPU, UNIT, make_shape
from runner.ids import ClusterId, MachineId
from runner.pools import Pool
from runner.providers.base import ProviderMachine, provider_error
from runner.providers.fake import FakeProvider, ProviderFaults
from runner.testing import FakeClock
from tests.unit.coordinator.posted import Posted

ONE = make_shape({CPU: UNIT})
M1 = MachineId("m-1")
SOON = CallLimits(suspend_s=0.05, start_s=0.05, stop_s=0.05, get_s=0.05)


class Failing(FakeProvider):
    """Raises what is in `failures` instead of doing it, as often as is said there."""

    def __init__(self, clock: FakeClock, faults: ProviderFaults | None = None, **failures: int) -> None:
        super().__init__(clock, faults or ProviderFaults())
        self.failures = failures
        self.calls: list[str] = []

    async def _maybe(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        self.calls.append(name)
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            raise provider_error(name, M1, "busy")
        return await call()

    async def suspend(self, name: MachineId) -> None:
        await self._maybe("suspend", lambda: FakeProvider.suspend(self, name))

    async def start(self, name: MachineId) -> None:
        await self._maybe("start", lambda: FakeProvider.start(self, name))

    async def stop(self, name: MachineId) -> None:
        await self._maybe("stop", lambda: FakeProvider.stop(self, name))

    async def get(self, name: MachineId) -> ProviderMachine | None:
        found: ProviderMachine | None = await self._maybe("get", lambda: FakeProvider.get(self, name))
        return found


@contextlib.asynccontextmanager
async def running(
    provider: FakeProvider, clock: FakeClock, limits: CallLimits | None = None
) -> AsyncIterator[tuple[Fleet, Sleepers, Posted]]:
    """A fleet with m-1, which runs."""
    posted = Posted()
    engine: Any = posted
    config = CoordinatorConfig(home="/nowhere", pools=(Pool(min=1),))
    fleet = Fleet(
        engine=engine,
        provider=provider,
        clock=clock,
        config=config,
        cluster_id=ClusterId("c"),
        ca_pem=b"",
        join_key=JoinKey(b"secret"),
    )
    sleepers = Sleepers(engine, provider, fleet, limits)
    tasks = asyncio.ensure_future(fleet.run())
    await asyncio.sleep(0)
    fleet.create(M1, ONE, "default")
    assert isinstance(await posted.next(), events.MachineCreated)
    posted.state = "ready"
    try:
        yield fleet, sleepers, posted
    finally:
        await sleepers.close()
        await fleet.close()
        await tasks


async def settle(sleepers: Sleepers) -> None:
    """Until nothing is being done with m-1."""
    async with asyncio.timeout(5):
        while M1 in sleepers._works or sleepers._others:
            await asyncio.sleep(0)
    for _ in range(10):  # for what may follow without anybody who knows of it
        await asyncio.sleep(0)
