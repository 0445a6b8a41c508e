"""The faults of the fake provider around a suspend: each path of a coordinator can be driven."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers.base import MachineState, Wanted
from runner.providers.fake import FakeProvider, ProviderFaults
from runner.testing import FakeClock
from tests.contract.providers.harness import make_spec

C1, M1 = ClusterId("c-1"), MachineId("m-1")


class Cloud:
    """A provider with one machine, and what it did to it."""

    def __init__(self, **faults: float) -> None:
        self.seen: list[str] = []
        self.clock = FakeClock()
        self.provider = FakeProvider(
            self.clock,
            ProviderFaults(**faults),  # type: ignore[arg-type]  # by name
            boot=lambda _: self.seen.append("boot"),
            halt=lambda _: self.seen.append("halt"),
            freeze=lambda _: self.seen.append("freeze"),
            thaw=lambda _: self.seen.append("thaw"),
        )

    async def state(self) -> MachineState | None:
        machine = await self.provider.get(M1)
        return machine.state if machine else None

    def strike(self, **faults: float) -> None:
        """From now on."""
        self.provider.faults = replace(ProviderFaults(), **faults)  # type: ignore[arg-type]  # by name

    async def suspended(self) -> None:
        await self.provider.create(make_spec(C1, M1))
        await self.provider.suspend(M1)


async def test_a_machine_with_memory_is_frozen_and_thawed() -> None:
    cloud = Cloud()
    await cloud.suspended()
    await cloud.provider.start(M1)
    assert cloud.seen == ["boot", "freeze", "thaw"]


async def test_a_suspend_that_fails_changes_nothing() -> None:
    cloud = Cloud(suspend_fails=1.0)
    with pytest.raises(ProviderError, match="suspend of machine m-1 failed: the fault plan"):
        await cloud.suspended()
    assert (await cloud.state(), cloud.seen) == (MachineState.RUNNING, ["boot"])


async def test_a_suspend_whose_reply_is_lost_has_happened() -> None:
    cloud = Cloud(suspend_lost=1.0)
    with pytest.raises(ProviderError, match="the reply was lost"):
        await cloud.suspended()
    assert (await cloud.state(), cloud.seen) == (MachineState.SUSPENDED, ["boot", "freeze"])
    await cloud.provider.suspend(M1)


async def test_a_resume_that_fails_leaves_it_suspended_and_stop_discards_it() -> None:
    cloud = Cloud(resume_fails=1.0)
    await cloud.suspended()
    with pytest.raises(ProviderError, match="start of machine m-1 failed: the fault plan"):
        await cloud.provider.start(M1)
    assert await cloud.state() is MachineState.SUSPENDED
    await cloud.provider.stop(M1)
    await cloud.provider.start(M1)
    assert cloud.seen == ["boot", "freeze", "halt", "boot"]


async def test_a_resume_whose_reply_is_lost_has_happened() -> None:
    cloud = Cloud(resume_lost=1.0)
    await cloud.suspended()
    with pytest.raises(ProviderError, match="the reply was lost"):
        await cloud.provider.start(M1)
    assert (await cloud.state(), cloud.seen) == (MachineState.RUNNING, ["boot", "freeze", "thaw"])


async def test_a_cold_resume_says_nothing_and_boots() -> None:
    cloud = Cloud(resume_cold=1.0)
    await cloud.suspended()
    await cloud.provider.start(M1)
    assert (await cloud.state(), cloud.seen) == (MachineState.RUNNING, ["boot", "freeze", "halt", "boot"])


async def test_a_snapshot_that_vanishes_makes_the_next_resume_cold_and_no_other() -> None:
    cloud = Cloud()
    await cloud.suspended()
    cloud.provider.lose_snapshot(M1)
    assert await cloud.state() is MachineState.SUSPENDED
    await cloud.provider.start(M1)
    assert cloud.seen == ["boot", "freeze", "halt", "boot"]
    await cloud.provider.suspend(M1)
    await cloud.provider.start(M1)
    assert cloud.seen[4:] == ["freeze", "thaw"]


async def test_a_mute_resume_runs_and_is_never_heard() -> None:
    cloud = Cloud(resume_mute=1.0)
    await cloud.suspended()
    await cloud.provider.start(M1)
    assert (await cloud.state(), cloud.seen) == (MachineState.RUNNING, ["boot", "freeze"])


@pytest.mark.parametrize("end", ["stop", "destroy"])
async def test_a_resume_that_hangs_ends_with_the_machine_for_all_who_wait(end: str) -> None:
    cloud = Cloud(resume_hangs=1.0)
    await cloud.suspended()
    starts = [asyncio.ensure_future(cloud.provider.start(M1)) for _ in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not any(start.done() for start in starts)
    await getattr(cloud.provider, end)(M1)
    for start in starts:
        with pytest.raises(ProviderError, match="it was ended meanwhile"):
            await start


async def test_a_stop_that_fails_keeps_the_snapshot() -> None:
    cloud = Cloud(stop_fails=1.0)
    await cloud.suspended()
    with pytest.raises(ProviderError, match="stop of machine m-1 failed"):
        await cloud.provider.stop(M1)
    cloud.strike()
    await cloud.provider.start(M1)
    assert cloud.seen == ["boot", "freeze", "thaw"]


def test_suspend_and_resume_take_their_time_and_may_be_overtaken_by_destroy() -> None:
    cloud = Cloud()
    cloud.provider.suspend_s, cloud.provider.resume_s = 2.0, 3.0

    async def main() -> None:
        await cloud.suspended()
        await cloud.provider.start(M1)
        assert cloud.clock.monotonic_s() - begun_s == 5.0
        suspending = asyncio.ensure_future(cloud.provider.suspend(M1))
        await cloud.clock.sleep(1.0)
        await cloud.provider.destroy(M1)
        with pytest.raises(ProviderError, match="no machine has this name"):
            await suspending

    begun_s = cloud.clock.monotonic_s()
    cloud.clock.run(main())


def test_a_start_ends_a_suspend_that_is_under_way() -> None:
    cloud = Cloud()
    cloud.provider.suspend_s = 2.0

    async def main() -> None:
        await cloud.provider.create(make_spec(C1, M1))
        suspending = asyncio.ensure_future(cloud.provider.suspend(M1))
        await cloud.clock.sleep(1.0)
        await cloud.provider.start(M1)
        with pytest.raises(ProviderError, match="it was started meanwhile"):
            await suspending
        assert (await cloud.state(), cloud.seen) == (MachineState.RUNNING, ["boot"])

    cloud.clock.run(main())


async def test_machines_that_cannot_be_suspended_say_why() -> None:
    wanted = Wanted("default", make_spec(C1, M1).shape, "", 1, 1)
    provider = FakeProvider(FakeClock(), can_suspend=False)
    assert provider.suspend_obstacle(wanted) == provider.capabilities().suspend_reason != ""
    await provider.create(make_spec(C1, M1))
    with pytest.raises(ProviderError, match="switched off for this test"):
        await provider.suspend(M1)
    picky = FakeProvider(FakeClock(), obstacle="it has swap")
    assert (picky.capabilities().suspend_kind, picky.suspend_obstacle(wanted)) == ("snapshot", "it has swap")
