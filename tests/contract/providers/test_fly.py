"""The fly provider where the simulated cloud misbehaves: nothing is lost, nothing is extra, and errors say why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.errors import ProviderError
from runner.flysim import FlySim
from runner.flysim.settings import Delay, Region
from runner.ids import MachineId
from runner.providers.base import MachineState
from tests.contract.providers.fly_harness import FlyHarness, running_simulator
from tests.contract.providers.harness import Exits, make_spec
from tests.integration.helpers import let_pass, until

# The suite of all providers runs on this one in `make test`; what is special to it, with the long tests.
pytestmark = pytest.mark.long
M1 = MachineId("m-1")
MakeHarness = Callable[..., Any]


@pytest.fixture(scope="module")
def simulator() -> Iterator[FlySim]:
    regions = (Region("iad", capacity=4, hosts=2), Region("ord"), Region("fra", capacity=0))
    with running_simulator(regions=regions, capacity_face="mixed") as running:
        yield running


@pytest.fixture
async def make(simulator: FlySim, tmp_path: Path) -> AsyncIterator[MakeHarness]:
    made: list[FlyHarness] = []

    async def one(**options: Any) -> FlyHarness:
        harness = FlyHarness(simulator, tmp_path / "logs", **options)
        made.append(harness)
        await harness.provider.prepare(())
        return harness

    try:
        yield one
    finally:
        defaults = {"lost_reply_rate": 0.0, "lost_reply_as": "cut", "error_rate": 0.0, "launch_failure_rate": 0.0}
        simulator.inject("settings", settings=defaults | {"rate_limit": False})
        for harness in made:
            for machine in await harness.provider.list(harness.cluster_id):
                await harness.provider.destroy(machine.name)
            await harness.provider.close()
        assert [str(each) for each in simulator.processes()] == []


def names(count: int) -> list[MachineId]:
    return [MachineId(f"m-{number}") for number in range(count)]


async def create_all(harness: FlyHarness, count: int) -> list[Any]:
    creates = (harness.provider.create(make_spec(harness.cluster_id, name)) for name in names(count))
    return await asyncio.gather(*creates, return_exceptions=True)


@pytest.mark.parametrize("how", ["cut", "408"])
async def test_lost_replies_make_no_second_machine(how: str, make: MakeHarness, simulator: FlySim) -> None:
    harness = await make()
    simulator.inject("settings", settings={"lost_reply_rate": 0.5, "lost_reply_as": how})
    made = await create_all(harness, 8)
    assert [machine.state for machine in made] == [MachineState.RUNNING] * 8
    simulator.inject("settings", settings={"lost_reply_rate": 0.0})
    listed = await harness.provider.list(harness.cluster_id)
    assert sorted(machine.name for machine in listed) == sorted(names(8))
    assert {machine.provider_machine_id for machine in listed} == {machine.provider_machine_id for machine in made}


async def test_errors_of_the_server_are_survived(make: MakeHarness, simulator: FlySim) -> None:
    harness = await make()
    simulator.inject("settings", settings={"error_rate": 0.3})
    made = await create_all(harness, 6)
    assert [machine.state for machine in made] == [MachineState.RUNNING] * 6
    await asyncio.gather(*(harness.provider.destroy(name) for name in names(6)))
    assert await harness.provider.list(harness.cluster_id) == ()


async def test_a_full_region_falls_back_to_the_next(make: MakeHarness) -> None:
    harness = await make(regions=["fra", "iad", "ord"])
    made = await create_all(harness, 6)
    assert sorted(machine.region for machine in made) == ["iad"] * 4 + ["ord"] * 2


async def test_no_room_anywhere_is_said_and_leaves_nothing(make: MakeHarness) -> None:
    harness = await make(regions=["fra", "iad"])
    made = await create_all(harness, 6)
    full = [error for error in made if isinstance(error, ProviderError)]
    assert [(error.is_capacity, error.is_permanent) for error in full] == [(True, False)] * 2
    assert len(await harness.provider.list(harness.cluster_id)) == 4


async def test_a_launch_that_fails_is_destroyed_and_says_why(make: MakeHarness, simulator: FlySim) -> None:
    harness = await make(wait_slice_s=1)
    simulator.inject("settings", settings={"launch_failure_rate": 1.0})
    with pytest.raises(ProviderError) as caught:
        await harness.provider.create(make_spec(harness.cluster_id, M1))
    assert caught.value.phase == "boot"
    assert caught.value.log_lines
    assert await harness.provider.list(harness.cluster_id) == ()


async def test_an_image_that_does_not_exist(make: MakeHarness) -> None:
    harness = await make(image="registry.example/nothing:1")
    with pytest.raises(ProviderError, match="check that image 'registry.example/nothing:1' exists") as caught:
        await harness.provider.create(make_spec(harness.cluster_id, M1))
    assert caught.value.is_permanent


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"token": "fm2_expired"}, "wrong or expired"),
        ({"app": "missing-app", "org": None}, "'missing-app' does not exist"),
        ({"regions": ["xyz"]}, "no region xyz"),
    ],
)
async def test_what_can_never_work_is_refused_before_the_first_machine(
    options: dict[str, Any], words: str, simulator: FlySim, tmp_path: Path
) -> None:
    harness = FlyHarness(simulator, tmp_path, **options)
    with pytest.raises(ProviderError, match=words) as caught:
        await harness.provider.prepare(())
    assert caught.value.is_permanent
    await harness.provider.close()


async def test_the_documented_limit_is_kept_and_not_run_into(make: MakeHarness, simulator: FlySim) -> None:
    harness = await make(rates={"create_machine": (10, 3)})
    limits = {"rate_limit": True, "actions_per_s": 11.0, "actions_burst": 4, "gets_per_s": 100.0}
    simulator.inject("settings", settings=limits)
    begun_s = time.monotonic()
    made = await create_all(harness, 13)
    assert [machine.state for machine in made] == [MachineState.RUNNING] * 13
    assert time.monotonic() - begun_s >= 0.95
    simulator.inject("settings", settings={"rate_limit": False})
    assert len(await harness.provider.list(harness.cluster_id)) == 13


async def test_a_provider_that_goes_down_reports_no_end(make: MakeHarness, simulator: FlySim) -> None:
    harness = await make()
    exits = Exits(harness.provider)
    await harness.provider.create(make_spec(harness.cluster_id, M1))
    simulator.inject("down", seconds=1.5)
    await let_pass(2.0, "it is down for 1.5 s, and is asked meanwhile")
    assert exits.seen == []
    await harness.end_machine(M1)
    name, reason = await exits.first()
    assert (name, "SIGKILL" in reason) == (M1, True)


async def test_suspend_and_resume_keep_the_machine_and_stop_ends_it(make: MakeHarness, simulator: FlySim) -> None:
    harness = await make()
    created = await harness.provider.create(make_spec(harness.cluster_id, M1))
    await harness.provider.suspend(M1)
    await harness.provider.start(M1)
    assert await harness.provider.get(M1) == created
    await harness.provider.stop(M1)
    found = await harness.provider.get(M1)
    assert found is None or found.state is MachineState.STOPPED
    assert simulator.processes() == []


async def test_destroy_while_the_cloud_still_boots_it(make: MakeHarness, simulator: FlySim) -> None:
    harness = await make()
    simulator.inject("settings", settings={"create_delay": {"median_s": 0.5, "spread": 0.0}})
    try:
        creating = asyncio.ensure_future(harness.provider.create(make_spec(harness.cluster_id, M1)))
        await let_pass(0.2, "the create is on its way, and takes 0.5 s")
        await harness.provider.destroy(M1)
        with pytest.raises(ProviderError, match="destroyed meanwhile"):
            await creating
        assert await harness.provider.list(harness.cluster_id) == ()
    finally:
        simulator.inject("settings", settings={"create_delay": {"median_s": Delay(0.02).median_s, "spread": 0.0}})


async def test_a_start_cancels_a_suspend_that_is_under_way(make: MakeHarness, simulator: FlySim) -> None:
    """As if it had never happened: the same process goes on, and nobody waits for a copy that is not wanted any more."""
    harness = await make()
    made = await harness.provider.create(make_spec(harness.cluster_id, M1))
    await until(lambda: harness.running(M1) > 0, 10, "its agent runs")
    pids = {each.process.pid for each in simulator.processes()}
    simulator.inject("settings", settings={"suspend_delay": {"median_s": 30.0, "spread": 0.0}})
    try:
        suspending = asyncio.ensure_future(harness.provider.suspend(M1))
        await until(lambda: harness.running(M1) == 0, 10, "it stands still")
        async with asyncio.timeout(10):
            await harness.provider.start(M1)
        with pytest.raises(ProviderError, match="started or ended meanwhile"):
            await suspending
        assert await harness.provider.get(M1) == made
        await until(lambda: harness.running(M1) > 0, 10, "it goes on")
        assert {each.process.pid for each in simulator.processes()} >= pids
    finally:
        simulator.inject("settings", settings={"suspend_delay": {"median_s": Delay(0.02).median_s, "spread": 0.0}})


@pytest.mark.parametrize("end", ["stop", "destroy"])
async def test_what_ends_a_machine_does_not_wait_for_its_suspend(
    end: str, make: MakeHarness, simulator: FlySim
) -> None:
    harness = await make()
    await harness.provider.create(make_spec(harness.cluster_id, M1))
    simulator.inject("settings", settings={"suspend_delay": {"median_s": 30.0, "spread": 0.0}})
    try:
        suspending = asyncio.ensure_future(harness.provider.suspend(M1))
        await until(lambda: harness.running(M1) == 0, 10, "it stands still")
        async with asyncio.timeout(10):
            await getattr(harness.provider, end)(M1)
        with pytest.raises(ProviderError, match="started or ended meanwhile"):
            await suspending
        await until(lambda: simulator.processes() == [], 10, "nothing of it is left")
    finally:
        simulator.inject("settings", settings={"suspend_delay": {"median_s": Delay(0.02).median_s, "spread": 0.0}})


async def test_a_resume_that_is_cold_is_told_by_nobody(make: MakeHarness, simulator: FlySim) -> None:
    harness = await make()
    made = await harness.provider.create(make_spec(harness.cluster_id, M1))
    await until(lambda: harness.running(M1) > 0, 10, "its agent runs")
    before = {each.process.pid for each in simulator.processes()}
    await harness.provider.suspend(M1)
    simulator.inject("lose_snapshot", machine=made.provider_machine_id)
    await harness.provider.start(M1)
    await until(lambda: harness.running(M1) > 0, 10, "a new agent runs")
    assert await harness.provider.get(M1) == made
    assert {each.process.pid for each in simulator.processes()} & before == set()
