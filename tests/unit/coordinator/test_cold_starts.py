"""Machines whose snapshot is not to be used: stopped first, then booted by the same name."""

from __future__ import annotations

import asyncio

import pytest

from runner.core import events
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig, MachineState
from runner.providers.fake import FakeProvider, ProviderFaults
from runner.testing import FakeClock
from tests.unit.coordinator.sleeping import M1, Failing, running, settle

pytestmark = pytest.mark.usefixtures("no_pauses")


async def test_a_cold_start_stops_first_and_starts_what_is_left() -> None:
    clock = FakeClock()
    provider = Failing(clock, stop=2)
    async with running(provider, clock) as (fleet, sleepers, posted):
        sleepers.suspend(M1, 1)
        await posted.next()
        boot = fleet.boot(M1)
        assert boot is not None
        boot.generation, boot.phases["registered"] = 1, clock.unix_s()
        of_first_boot = boot.overdue
        provider.calls.clear()
        clock.advance(60.0)
        sleepers.cold_start(M1, "it did not wake")
        await settle(sleepers)
        assert provider.calls == ["stop", "get"] * 2 + ["stop", "get", "start"]
        assert [m.state for m in await provider.list(ClusterId("c"))] == [MachineState.RUNNING]
        assert fleet.phases(M1) == {"requested": 0.0}, "they are counted anew"
        assert boot.generation == 0
        assert boot.overdue is not None
        assert boot.overdue is not of_first_boot, "its agent has the time of one boot once more"


async def test_a_machine_of_which_a_stop_leaves_nothing_is_created_again_by_its_name() -> None:
    clock = FakeClock()
    boots: list[BootConfig] = []

    class NoDisk(FakeProvider):
        async def stop(self, name: MachineId) -> None:
            await self.destroy(name)

    provider = NoDisk(clock, boot=boots.append)
    async with running(provider, clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        await posted.next()
        sleepers.cold_start(M1, "it did not wake")
        created = await posted.next()
        assert created == events.MachineCreated(M1, "fake-2")
        assert len(boots) == 2
        assert boots[0].join_token == boots[1].join_token
        assert boots[0].cpus == boots[1].cpus


async def test_people_are_told_of_a_machine_that_cannot_be_stopped_and_nothing_is_started() -> None:
    clock = FakeClock()
    told: list[str] = []
    provider = Failing(clock, stop=1000)
    async with running(provider, clock) as (fleet, sleepers, posted):
        fleet.tell = told.append
        sleepers.suspend(M1, 1)
        await posted.next()
        sleepers.cold_start(M1, "it did not wake")
        async with asyncio.timeout(5):
            while not told:
                await asyncio.sleep(0)
        assert told[0].startswith("machine m-1 cannot be stopped, which must come before its cold start; tried again: ")
        assert "start" not in provider.calls


async def test_a_cold_start_that_fails_is_a_failed_boot() -> None:
    clock = FakeClock()
    provider = Failing(clock, start=1)
    async with running(provider, clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        await posted.next()
        sleepers.cold_start(M1, "it did not wake")
        assert await posted.next() == events.MachineBootFailed(
            M1, "its cold start failed: start of machine m-1 failed: busy"
        )


async def test_a_cold_start_ends_a_resume_that_hangs() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, ProviderFaults(resume_hangs=1.0))
    async with running(provider, clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        await posted.next()
        sleepers.resume(M1, 1)
        await asyncio.sleep(0)
        sleepers.cold_start(M1, "its agent did not register again within 60 s")
        await settle(sleepers)
        machine = await provider.get(M1)
        assert machine is not None
        assert (machine.state, machine.detail) == (MachineState.RUNNING, "started")
        assert posted.events == []


async def test_nothing_is_started_for_a_machine_that_is_to_go() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock)
    async with running(provider, clock) as (fleet, sleepers, posted):
        sleepers.suspend(M1, 1)
        await posted.next()
        sleepers.cold_start(M1, "it did not wake")
        sleepers.let_go(M1)
        fleet.destroy(M1, "removal requested")
        assert await posted.next() == events.MachineDestroyed(M1)
        await settle(sleepers)
        assert await provider.list(ClusterId("c")) == ()
