"""What the coordinator does with a provider that refuses, hangs or loses its replies while machines go to sleep and wake."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from runner.core import events
from runner.core.suspend_events import (
    MachineResumeFailed,
    MachineStarted,
    MachineSurveyed,
    MachineSuspended,
    MachineSuspendFailed,
)
from runner.errors import AuthenticationError
from runner.ids import ClusterId, MachineId
from runner.providers.base import MachineState
from runner.providers.fake import FakeProvider, ProviderFaults
from runner.testing import FakeClock
from tests.unit.coordinator.sleeping import M1, ONE, SOON, Failing, running, settle

pytestmark = pytest.mark.usefixtures("no_pauses")


async def test_a_suspend_and_a_resume_are_each_asked_for_once_however_often_they_are_commanded() -> None:
    clock = FakeClock()
    provider = Failing(clock)
    provider.suspend_s = provider.resume_s = 1.0
    async with running(provider, clock) as (_, sleepers, posted):
        for command in (sleepers.suspend, sleepers.resume):
            command(M1, 1)
            await asyncio.sleep(0)
            command(M1, 1)
            await asyncio.sleep(0)
            clock.advance(1.0)
            await settle(sleepers)
        assert posted.events.pop(0) == MachineSuspended(M1, 1)
        assert provider.calls == ["suspend", "start"]
        assert posted.events == [MachineStarted(M1, 1)]


async def test_a_suspend_whose_reply_is_lost_counts() -> None:
    clock = FakeClock()
    async with running(FakeProvider(clock, ProviderFaults(suspend_lost=1.0)), clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 3)
        assert await posted.next() == MachineSuspended(M1, 3)


async def test_a_suspend_that_fails_leaves_the_machine_running() -> None:
    clock = FakeClock()
    provider = Failing(clock, ProviderFaults(suspend_fails=1.0))
    async with running(provider, clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        failed = await posted.next()
        assert isinstance(failed, MachineSuspendFailed)
        assert failed.reason == "suspend of machine m-1 failed: the fault plan refused it"
        assert provider.calls == ["suspend", "get", "start"], "a save that is still under way is called off"


async def test_a_suspend_that_does_not_return_is_given_up_and_called_off() -> None:
    clock = FakeClock()
    provider = Failing(clock)
    provider.suspend_s = 3600.0
    async with running(provider, clock, SOON) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        failed = await posted.next()
        assert isinstance(failed, MachineSuspendFailed)
        assert failed.reason == "suspend of machine m-1 failed: no answer within 0.05 s"
        assert provider.calls == ["suspend", "get", "start"]


async def test_a_machine_that_ends_while_it_is_suspended_is_told_as_ended() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, suspend_s=5.0)
    async with running(provider, clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        await asyncio.sleep(0)
        provider.end_machine(M1, "killed")
        clock.advance(5.0)
        ended = await posted.next()
        assert isinstance(ended, events.MachineExited)
        assert ended.reason.startswith("it ended while it was suspended: suspend of machine m-1 failed")
        await settle(sleepers)
        assert posted.events == [], "the provider's own word of it is no second end"


async def test_a_suspend_of_which_nothing_is_known_has_failed() -> None:
    clock = FakeClock()
    provider = Failing(clock, suspend=1, get=1)
    async with running(provider, clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        failed = await posted.next()
        assert isinstance(failed, MachineSuspendFailed)
        assert failed.reason.endswith("and what has become of it cannot be had: get of machine m-1 failed: busy")


async def test_an_end_that_belongs_to_the_suspend_is_not_told() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock)
    async with running(provider, clock) as (fleet, sleepers, posted):
        sleepers.suspend(M1, 1)
        fleet._machine_exited(M1, "its process has ended")  # as a micro-VM's does when it is saved
        assert await posted.next() == MachineSuspended(M1, 1)
        await settle(sleepers)
        fleet._machine_exited(M1, "its process has ended")
        await settle(sleepers)
        assert posted.events == []
        provider.end_machine(M1, "updated from outside")
        assert await posted.next() == events.MachineExited(M1, "updated from outside")


async def test_a_resume_that_fails_is_told_and_one_whose_reply_is_lost_has_worked() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, ProviderFaults(resume_fails=1.0))
    async with running(provider, clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        await posted.next()
        sleepers.resume(M1, 1)
        failed = await posted.next()
        assert failed == MachineResumeFailed(M1, 1, "start of machine m-1 failed: the fault plan refused it")
    provider = FakeProvider(clock, ProviderFaults(resume_lost=1.0))
    async with running(provider, clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        await posted.next()
        sleepers.resume(M1, 1)
        await settle(sleepers)
        assert posted.events == [MachineStarted(M1, 1)]


async def test_a_machine_that_ends_as_soon_as_it_is_resumed_is_not_waited_for() -> None:
    class ShortLived(FakeProvider):
        async def start(self, name: MachineId) -> None:
            await FakeProvider.start(self, name)
            self.end_machine(name, "out of memory")

    clock = FakeClock()
    async with running(ShortLived(clock), clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        await posted.next()
        sleepers.resume(M1, 1)
        assert await posted.next() == MachineResumeFailed(M1, 1, "out of memory")


async def test_an_end_that_is_told_while_the_answer_to_the_suspend_is_on_its_way_is_looked_into() -> None:
    class Fleeting(FakeProvider):
        async def suspend(self, name: MachineId) -> None:
            await FakeProvider.suspend(self, name)
            self.end_machine(name, "updated from outside")

    clock = FakeClock()
    async with running(Fleeting(clock), clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        assert await posted.next() == MachineSuspended(M1, 1)
        assert await posted.next() == events.MachineExited(M1, "updated from outside")


async def test_what_is_given_up_has_no_answer() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, suspend_s=5.0)
    async with running(provider, clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        await asyncio.sleep(0)
        sleepers.let_go(M1)
        await asyncio.sleep(0)
        clock.advance(5.0)
        await settle(sleepers)
        assert posted.events == []
        machine = await provider.get(M1)
        assert machine is not None
        assert machine.state is MachineState.RUNNING


@pytest.mark.parametrize("found", ["suspended", "running", "stopped", "gone"])
async def test_a_survey_tells_what_there_is_also_when_the_provider_is_slow_to_answer(found: str) -> None:
    clock = FakeClock()
    provider = Failing(clock, get=3)
    async with running(provider, clock) as (_, sleepers, posted):
        if found == "suspended":
            await FakeProvider.suspend(provider, M1)
        elif found == "stopped":
            await FakeProvider.stop(provider, M1)
        elif found == "gone":
            await provider.destroy(M1)
        sleepers.survey(M1)
        assert await posted.next() == MachineSurveyed(M1, found)


async def test_a_new_coordinator_takes_no_sleeping_machine_for_an_orphan() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock)
    async with running(provider, clock) as (_, sleepers, posted):
        names = [MachineId(f"m-{number}") for number in range(2, 6)]
        for name in names:
            provider.put_orphan(SimpleNamespace(machine_id=name, cluster_id="c"))  # type: ignore[arg-type]
        states = ["suspended", "lost", "resuming", "destroying"]
        posted.rows = [
            SimpleNamespace(
                machine_id=name,
                state=state,
                total=ONE,
                pool="default",
                phases={"requested": 1.0},
                host_id="h",
                generation=2,
            )
            for name, state in zip(names, states, strict=True)
        ]
        sleepers.take_up()
        fleet = sleepers._fleet
        await fleet.sweep()
        assert {(await posted.next()).machine_id for _ in range(2)} == {"m-3", "m-5"}
        left = await provider.list(ClusterId("c"))
        assert {machine.name for machine in left} == {"m-1", "m-2", "m-4"}
        boot = fleet.boot(names[0])
        assert boot is not None
        assert (boot.shape, boot.pool, boot.generation, boot.host_id) == (ONE, "default", 2, "h")
        with pytest.raises(AuthenticationError):
            fleet.admit(names[0], "another token", b"key")


async def test_the_end_of_the_coordinator_does_not_wait_for_a_provider_that_hangs() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, suspend_s=3600.0)
    async with running(provider, clock) as (_, sleepers, posted):
        sleepers.suspend(M1, 1)
        await asyncio.sleep(0)
        await sleepers.close()
        sleepers.resume(M1, 1)
        assert not sleepers._works, "nothing is begun any more"
        assert posted.events == []
