"""What the fleet's shell does with a provider that refuses, lags and forgets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from runner.coordinator.admission import JoinKey
from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.fleet import Fleet
from runner.core import events
from runner.core.values import CPU, UNIT, make_shape
from runner.errors import AuthenticationError, ProviderError
from runner.ids import ClusterId, MachineId
from runner.pools import Pool
from runner.providers.base import BootConfig, Capabilities, MachineSpec, ProviderMachine, provider_error
from runner.providers.fake import FakeProvider, ProviderFaults
from runner.testing import FakeClock
from tests.unit.coordinator.posted import Posted

ONE = make_shape({CPU: UNIT})
M1 = MachineId("m-1")


@contextlib.asynccontextmanager
async def running(provider: FakeProvider, clock: FakeClock) -> AsyncIterator[tuple[Fleet, Posted]]:
    posted = Posted()
    engine: Any = posted
    config = CoordinatorConfig(home="/nowhere", pools=(Pool(min=1, size="large"),))
    secrets: Any = {"cluster_id": ClusterId("c"), "ca_pem": b"", "join_key": JoinKey(b"secret")}
    fleet = Fleet(engine=engine, provider=provider, clock=clock, config=config, **secrets)
    tasks = asyncio.ensure_future(fleet.run())
    await asyncio.sleep(0)
    try:
        yield fleet, posted
    finally:
        await fleet.close()
        await tasks


def a_spec(name: str) -> MachineSpec:
    boot = BootConfig("127.0.0.1:9", b"", "token", MachineId(name), ClusterId("c"))
    return MachineSpec(ClusterId("c"), MachineId(name), ONE, boot)


async def test_a_machine_is_created_once_with_its_pools_size_and_a_token_of_its_own():
    clock, specs = FakeClock(), []

    class Watched(FakeProvider):
        async def create(self, spec: MachineSpec) -> ProviderMachine:
            specs.append(spec)
            return await FakeProvider.create(self, spec)

    provider = Watched(clock)
    async with running(provider, clock) as (fleet, posted):
        for name in ("m-1", "m-2", "m-1"):
            fleet.create(MachineId(name), ONE, "default")
        assert {(await posted.next()).machine_id for _ in range(2)} == {"m-1", "m-2"}
        assert [(spec.machine_id, spec.pool, spec.size) for spec in specs] == [
            ("m-1", "default", "large"),
            ("m-2", "default", "large"),
        ]
        tokens = {spec.boot.join_token for spec in specs}
        assert len(tokens) == 2
        with pytest.raises(AuthenticationError):
            fleet.admit(M1, specs[1].boot.join_token, b"key")


async def test_a_create_whose_reply_is_lost_is_adopted():
    clock = FakeClock()
    provider = FakeProvider(clock, ProviderFaults(reply_lost=1.0))
    async with running(provider, clock) as (fleet, posted):
        fleet.create(M1, ONE, "default")
        event = await posted.next()
        assert isinstance(event, events.MachineCreated)
        assert event.provider_machine_id == "fake-1"


@pytest.mark.parametrize("is_permanent", [True, False])
async def test_a_create_that_fails_is_told_by_its_own_reason_also_when_nothing_can_be_looked_up(is_permanent: bool):
    class Down(FakeProvider):
        async def create(self, spec: MachineSpec) -> ProviderMachine:
            raise provider_error("create", spec, "the token has expired", is_permanent=is_permanent)

        async def get(self, name: MachineId) -> ProviderMachine | None:
            raise provider_error("get", name, "no answer")

    clock = FakeClock()
    async with running(Down(clock), clock) as (fleet, posted):
        fleet.create(M1, ONE, "default")
        failed = await posted.next()
        assert isinstance(failed, events.MachineBootFailed)
        assert failed.reason.startswith("create of machine m-1 failed: the token has expired")
        assert failed.is_permanent is is_permanent


async def test_no_room_is_told_apart_from_other_refusals():
    clock = FakeClock()
    async with running(FakeProvider(clock, machines_max=0), clock) as (fleet, posted):
        fleet.create(M1, ONE, "default")
        event = await posted.next()
        assert isinstance(event, events.MachineBootFailed)
        assert (event.is_capacity, event.is_permanent) == (True, False)
        assert "no capacity: all 0 machines exist" in event.reason


async def test_a_machine_that_ends_while_it_boots_is_told_with_its_last_lines():
    clock = FakeClock()
    provider = FakeProvider(clock)
    async with running(provider, clock) as (fleet, posted):
        fleet.create(M1, ONE, "default")
        assert isinstance(await posted.next(), events.MachineCreated)
        clock.advance(2.0)
        fleet.note_phase(M1, "agent_up", clock.unix_s())
        provider.end_machine(M1, "exit status 3")
        event = await posted.next()
        assert isinstance(event, events.MachineExited)
        assert event.reason.splitlines() == [
            "exit status 3; it came as far as 'agent up' after 2.0 s",
            "  1700000000.000 created",
            "  1700000000.000 started",
            "  1700000002.000 exit status 3",
        ]


async def test_a_machine_that_served_is_told_by_the_providers_reason_alone():
    clock = FakeClock()
    provider = FakeProvider(clock)
    async with running(provider, clock) as (fleet, posted):
        fleet.create(M1, ONE, "default")
        await posted.next()
        boot = fleet.boot(M1)
        assert boot is not None
        boot.generation = 1
        provider.end_machine(M1, "exit status 3")
        assert await posted.next() == events.MachineExited(M1, "exit status 3")


@pytest.mark.parametrize("state", ["boot_failed", "draining"])
async def test_a_machine_that_never_registered_is_told_of_before_it_is_destroyed(state: str):
    clock = FakeClock()
    told: list[tuple[str, str]] = []
    async with running(FakeProvider(clock), clock) as (fleet, posted):
        fleet.on_boot_failed = lambda boot, why: told.append((boot.pool, why))
        fleet.create(M1, ONE, "default")
        await posted.next()
        posted.state = state
        fleet.destroy(M1, "its agent did not register within 120 s")
        assert await posted.next() == events.MachineDestroyed(M1)
    story = (
        "machine m-1: its agent did not register within 120 s; it came as far as 'created' after 0.0 s; "
        "the provider says: started\n  1700000000.000 created\n  1700000000.000 started"
    )
    assert told == ([("default", story)] if state == "boot_failed" else [])


async def test_what_the_provider_refused_is_told_once():
    clock = FakeClock()
    told: list[str] = []
    async with running(FakeProvider(clock, ProviderFaults(create_fails=1.0)), clock) as (fleet, posted):
        fleet.on_boot_failed = lambda _, why: told.append(why)
        fleet.create(M1, ONE, "default")
        event = await posted.next()
        assert isinstance(event, events.MachineBootFailed)
        assert event.reason.startswith("create of machine m-1 failed")
        posted.state = "boot_failed"
        fleet.destroy(M1, event.reason)
        assert await posted.next() == events.MachineDestroyed(M1)
    assert told == []


async def test_a_provider_whose_log_cannot_be_read_hides_no_end():
    clock = FakeClock()

    class NoLogs(FakeProvider):
        async def logs(self, name: MachineId) -> tuple[str, ...]:
            raise ValueError("not JSON")

    provider = NoLogs(clock)
    async with running(provider, clock) as (fleet, posted):
        fleet.create(M1, ONE, "default")
        await posted.next()
        provider.end_machine(M1, "exit status 3")
        event = await posted.next()
        assert isinstance(event, events.MachineExited)
        assert event.reason.startswith("exit status 3")
        posted.state = "boot_failed"
        fleet.destroy(M1, "no")
        assert await posted.next() == events.MachineDestroyed(M1)


async def test_a_refusal_is_what_it_was_also_when_the_provider_cannot_be_asked_about_the_machine():
    clock = FakeClock()

    class Refusing(FakeProvider):
        async def create(self, spec: MachineSpec) -> ProviderMachine:
            raise provider_error("create", spec, "no such image", is_permanent=True)

        async def get(self, name: MachineId) -> ProviderMachine | None:
            raise provider_error("get", name, "connection refused")

    async with running(Refusing(clock), clock) as (fleet, posted):
        fleet.create(M1, ONE, "default")
        event = await posted.next()
        assert isinstance(event, events.MachineBootFailed)
        assert event.is_permanent
        assert "no such image" in event.reason


async def test_an_end_waits_for_machines_of_an_earlier_coordinator_too():
    clock = FakeClock()
    tries = []

    class Busy(FakeProvider):
        async def destroy(self, name: MachineId) -> None:
            tries.append(name)
            if len(tries) == 1:
                raise provider_error("destroy", name, "try again")
            await FakeProvider.destroy(self, name)

    provider = Busy(clock)
    provider.put_orphan(a_spec("m-9"))
    async with running(provider, clock) as (fleet, _):
        fleet.destroy(MachineId("m-9"), "the coordinator restarted")
        while not tries:
            await asyncio.sleep(0)
    assert await provider.list(ClusterId("c")) == ()
    assert fleet.is_gone


async def test_what_the_provider_warns_of_before_the_boot_is_kept():
    clock = FakeClock()
    async with running(FakeProvider(clock, machines_max=3), clock) as (fleet, _):
        await fleet.prepare([Pool(min=8)])
        assert fleet.warnings == ("8 machines are wanted; there is room for 3",)


async def test_a_sweep_ends_what_has_no_row_and_nothing_else():
    clock = FakeClock()
    provider = FakeProvider(clock)
    async with running(provider, clock) as (fleet, posted):
        fleet.create(M1, ONE, "default")
        await posted.next()
        provider.put_orphan(a_spec("m-9"))
        await fleet.sweep()
        assert (await posted.next()) == events.MachineDestroyed(MachineId("m-9"))
        assert [machine.name for machine in await provider.list(ClusterId("c"))] == ["m-1"]


class Elsewhere(FakeProvider):
    """Its machines outlive the coordinator."""

    destroys = 0

    def capabilities(self) -> Capabilities:
        return replace(FakeProvider.capabilities(self), is_remote=True)


@pytest.mark.parametrize(("starts_s", "at_most_s"), [(5, 10), (610, 65)])
def test_machines_that_turn_up_late_are_swept_soon_after_a_start_and_later_still(starts_s: int, at_most_s: int):
    clock = FakeClock()
    provider = Elsewhere(clock)
    begun_s = clock.monotonic_s()
    gone_after_s: list[float] = []

    async def scene() -> None:
        async with running(provider, clock) as (_, posted):
            loop = asyncio.get_running_loop()
            loop.call_later(starts_s, provider.put_orphan, a_spec("m-9"))
            await asyncio.wait_for(posted.news.wait(), 1000)
            assert await posted.next() == events.MachineDestroyed(MachineId("m-9"))
            gone_after_s.append(clock.monotonic_s() - begun_s - starts_s)

    clock.run(scene())
    assert 0 < gone_after_s[0] < at_most_s


def test_an_orphan_that_cannot_be_destroyed_is_tried_by_one():
    clock = FakeClock()

    class Stuck(Elsewhere):
        async def destroy(self, name: MachineId) -> None:
            self.destroys += 1
            raise ProviderError("its host does not answer")

    provider = Stuck(clock)

    async def scene() -> None:
        async with running(provider, clock):
            provider.put_orphan(a_spec("m-9"))
            await asyncio.sleep(3600)

    clock.run(scene())
    assert 60 <= provider.destroys <= 70  # once a minute in the end, however often it was looked for


def test_a_boot_that_is_overdue_says_how_far_it_came_and_what_the_machine_wrote():
    clock = FakeClock()
    said: list[Any] = []

    async def scene() -> None:
        async with running(FakeProvider(clock), clock) as (fleet, posted):
            fleet.create(M1, ONE, "default")
            assert isinstance(await posted.next(), events.MachineCreated)
            await asyncio.sleep(121)
            said.append(await posted.next())

    clock.run(scene())
    assert isinstance(said[0], events.MachineBootFailed)
    first, *lines = said[0].reason.splitlines()
    assert first == (
        "its agent did not register within 120 s; it came as far as 'created' after 0.0 s; the provider says: started"
    )
    assert [line.split()[1] for line in lines] == ["created", "started"]


async def test_phases_of_a_machine_whose_clock_is_wrong_are_set_right():
    clock = FakeClock()
    async with running(FakeProvider(clock), clock) as (fleet, _):
        for name, ahead_s in (("m-1", 3600.0), ("m-2", -3600.0), ("m-3", 0.5)):
            machine_id = MachineId(name)
            fleet.create(machine_id, ONE, "default")
            clock.advance(1.0)
            fleet.set_clock(machine_id, clock.unix_s() + ahead_s)
            fleet.note_machine_phase(machine_id, "agent_up", clock.unix_s() + ahead_s)
            assert fleet.phases(machine_id)["agent_up"] == pytest.approx(1.5 if ahead_s == 0.5 else 1.0)


def test_a_machine_that_cannot_be_destroyed_is_told_once():
    clock = FakeClock()
    told: list[str] = []

    class Stuck(FakeProvider):
        async def destroy(self, name: MachineId) -> None:
            raise ProviderError("the token has expired")

    async def scene() -> None:
        async with running(Stuck(clock), clock) as (fleet, _):
            fleet.tell = told.append
            fleet.create(M1, ONE, "default")
            fleet.destroy(M1, "drained")
            await asyncio.sleep(600)

    clock.run(scene())
    assert told == ["machine m-1 cannot be destroyed and may go on costing; tried again: the token has expired"]
