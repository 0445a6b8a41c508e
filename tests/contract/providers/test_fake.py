"""The faults of the fake provider: what a cloud does to its callers."""

from __future__ import annotations

import asyncio

import pytest

from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig, MachineState
from runner.testing import FakeClock, FakeProvider, FaultPlan, ProviderFaults
from tests.contract.providers.harness import Exits, make_spec

C1, M1, M2 = ClusterId("c-1"), MachineId("m-1"), MachineId("m-2")


async def test_a_lost_reply_leaves_a_machine_that_is_adopted_by_its_name() -> None:
    provider = FakeProvider(FakeClock(), ProviderFaults(reply_lost=1.0))
    with pytest.raises(ProviderError, match="the reply was lost"):
        await provider.create(make_spec(C1, M1))
    found = await provider.get(M1)
    assert found is not None
    assert await provider.create(make_spec(C1, M1)) == found


async def test_a_refusal_creates_nothing() -> None:
    provider = FakeProvider(FakeClock(), ProviderFaults(create_fails=1.0))
    with pytest.raises(ProviderError) as caught:
        await provider.create(make_spec(C1, M1))
    assert caught.value.phase == "create"
    assert caught.value.log_lines
    assert await provider.list(C1) == ()


async def test_no_capacity() -> None:
    provider = FakeProvider(FakeClock(), machines_max=1)
    await provider.create(make_spec(C1, M1))
    with pytest.raises(ProviderError, match="no capacity"):
        await provider.create(make_spec(C1, M2))


def test_a_slow_create_takes_its_time_on_the_clock() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, ProviderFaults(slow=1.0, slow_s=300.0), create_s=10.0)

    async def main() -> None:
        begun_s = clock.monotonic_s()
        await provider.create(make_spec(C1, M1))
        assert 10.0 < clock.monotonic_s() - begun_s <= 310.0

    clock.run(main())


def test_a_machine_destroyed_while_it_is_created() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, create_s=10.0)

    async def main() -> None:
        creating = asyncio.ensure_future(provider.create(make_spec(C1, M1)))
        await clock.sleep(5.0)
        await provider.destroy(M1)
        with pytest.raises(ProviderError, match="destroyed meanwhile"):
            await creating
        assert await provider.get(M1) is None

    clock.run(main())


def test_a_caller_that_times_out_does_not_stop_the_cloud() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, create_s=10.0)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(provider.create(make_spec(C1, M1)), 5.0)
        await clock.sleep(10.0)
        assert await provider.get(M1) is not None

    clock.run(main())


def test_an_early_exit_happens_within_its_time_and_is_reported() -> None:
    clock = FakeClock()
    provider = FakeProvider(clock, ProviderFaults(exits_early=1.0, exit_within_s=60.0))

    async def main() -> None:
        exits = Exits(provider)
        await provider.create(make_spec(C1, M1))
        begun_s = clock.monotonic_s()
        while not exits.seen:
            await clock.sleep(1.0)
        assert clock.monotonic_s() - begun_s <= 61.0
        assert exits.seen == [(M1, "exited by the fault plan")]

    clock.run(main())


async def test_a_machine_that_never_registers_runs_but_boots_nobody() -> None:
    booted: list[BootConfig] = []
    mute = FakeProvider(FakeClock(), ProviderFaults(never_registers=1.0), boot=booted.append)
    await mute.create(make_spec(C1, M1))
    assert booted == []
    loud = FakeProvider(FakeClock(), boot=booted.append)
    await loud.create(make_spec(C1, M1))
    assert [boot.machine_id for boot in booted] == [M1]


async def test_suspend_resume_and_stop_start_boot_again() -> None:
    booted: list[BootConfig] = []
    provider = FakeProvider(FakeClock(), boot=booted.append)
    await provider.create(make_spec(C1, M1))
    for pause in (provider.suspend, provider.stop):
        await pause(M1)
        await provider.start(M1)
        machine = await provider.get(M1)
        assert machine is not None
        assert machine.state is MachineState.RUNNING
    assert len(booted) == 3
    lines = " ".join(await provider.logs(M1))
    assert all(word in lines for word in ("created", "suspended", "resumed", "stopped", "started"))


async def test_an_orphan_is_listed() -> None:
    provider = FakeProvider(FakeClock())
    provider.put_orphan(make_spec(C1, M1))
    assert [machine.name for machine in await provider.list(C1)] == [M1]


async def test_the_same_seed_gives_the_same_faults() -> None:
    async def outcomes(seed: int) -> list[str]:
        provider = FakeProvider(FakeClock(), FaultPlan(seed).provider_faults(create_fails=0.5))
        seen = []
        for number in range(20):
            try:
                await provider.create(make_spec(C1, f"m-{number}"))
                seen.append("made")
            except ProviderError:
                seen.append("refused")
        return seen

    assert await outcomes(3) == await outcomes(3)
    assert await outcomes(3) != await outcomes(4)
