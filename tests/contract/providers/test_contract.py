"""What every provider promises, on every provider."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from runner.errors import ProviderError
from runner.flysim import FlySim
from runner.ids import ClusterId, MachineId, random_id
from runner.providers.base import MachineState, ProviderMachine, Wanted
from runner.worker.zygote import Zygote
from tests.contract.providers.fly_harness import FlyHarness, running_simulator
from tests.contract.providers.harness import Exits, FakeHarness, Harness, LocalHarness, make_spec
from tests.contract.providers.podman import PodmanHarness, running_podman
from tests.contract.providers.scripted import ScriptForker
from tests.contract.providers.zygote_host import LentZygote, running_zygote
from tests.integration.helpers import until

M1, M2 = MachineId("m-1"), MachineId("m-2")


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with running_zygote() as running:
        yield running


@pytest.fixture(scope="module")
def simulator() -> Iterator[FlySim]:
    with running_simulator() as running:
        yield running


@pytest.fixture(params=["fake", "local, scripted", "local, by signals", "local", "fly", "container, saved"])
async def harness(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Harness]:
    made: Harness
    engine = contextlib.AsyncExitStack()
    if request.param == "fake":
        made = FakeHarness()
    elif request.param == "local":
        made = LocalHarness(LentZygote(request.getfixturevalue("zygote")), tmp_path / "logs")
    elif request.param == "fly":
        made = FlyHarness(request.getfixturevalue("simulator"), tmp_path / "logs")
        await made.provider.prepare(())
    elif request.param == "container, saved":
        made = PodmanHarness(*await engine.enter_async_context(running_podman(tmp_path, monkeypatch)), tmp_path)
        await made.provider.prepare(())
    else:
        made = LocalHarness(ScriptForker(), tmp_path / "logs", freezes_by_group=request.param != "local, by signals")
    try:
        yield made
    finally:
        if not (isinstance(made, PodmanHarness) and made.made._is_closed):  # an engine that is closed lists nothing
            for machine in await made.provider.list(made.cluster_id):
                await made.provider.destroy(machine.name)
            await made.provider.close()
        await engine.aclose()
        assert made.left_over() == []


async def test_created_listed_got_and_destroyed(harness: Harness) -> None:
    provider, cluster = harness.provider, harness.cluster_id
    created = await provider.create(make_spec(cluster, M1))
    assert (created.name, created.state) == (M1, MachineState.RUNNING)
    assert created.provider_machine_id
    assert created.created_unix_s > 0
    assert await provider.list(cluster) == (created,)
    assert await provider.get(M1) == created
    await provider.destroy(M1)
    assert await provider.get(M1) is None
    assert await provider.list(cluster) == ()


async def test_the_same_name_again_adopts(harness: Harness) -> None:
    spec = make_spec(harness.cluster_id, M1)
    first = await harness.provider.create(spec)
    assert await harness.provider.create(spec) == first
    assert await harness.provider.list(harness.cluster_id) == (first,)


async def test_the_same_name_at_the_same_time_makes_one_machine(harness: Harness) -> None:
    spec = make_spec(harness.cluster_id, M1)
    made = await asyncio.gather(*(harness.provider.create(spec) for _ in range(5)))
    assert len({machine.provider_machine_id for machine in made}) == 1
    assert len(await harness.provider.list(harness.cluster_id)) == 1


async def test_a_name_may_be_used_again_after_destroy_and_is_another_machine(harness: Harness) -> None:
    spec = make_spec(harness.cluster_id, M1)
    first = await harness.provider.create(spec)
    await harness.provider.destroy(M1)
    second = await harness.provider.create(spec)
    assert second.provider_machine_id != first.provider_machine_id


async def test_destroy_twice_and_of_a_name_that_never_was(harness: Harness) -> None:
    await harness.provider.create(make_spec(harness.cluster_id, M1))
    await asyncio.gather(harness.provider.destroy(M1), harness.provider.destroy(M1))
    await harness.provider.destroy(M1)
    await harness.provider.destroy(MachineId("never-was"))


async def test_calls_on_one_name_take_effect_in_order(harness: Harness) -> None:
    spec = make_spec(harness.cluster_id, M1)
    calls = [harness.provider.create(spec), harness.provider.destroy(M1)]
    await asyncio.gather(*map(asyncio.ensure_future, calls), return_exceptions=True)
    assert await harness.provider.get(M1) is None
    await harness.provider.create(spec)
    await asyncio.gather(harness.provider.destroy(M1), harness.provider.create(spec))
    assert await harness.provider.get(M1) is not None


async def test_an_exit_is_noticed_once_with_a_reason(harness: Harness) -> None:
    exits = Exits(harness.provider)
    await harness.provider.create(make_spec(harness.cluster_id, M1))
    await harness.provider.create(make_spec(harness.cluster_id, M2))
    await harness.end_machine(M1)
    name, reason = await exits.first()
    assert name == M1
    assert "SIGKILL" in reason
    assert [machine.name for machine in await harness.provider.list(harness.cluster_id)] == [M2]
    assert await harness.provider.get(M1) is None
    await harness.provider.destroy(M1)
    assert len(exits.seen) == 1


async def test_a_machine_that_was_destroyed_is_no_exit(harness: Harness) -> None:
    exits = Exits(harness.provider)
    await harness.provider.create(make_spec(harness.cluster_id, M1))
    await harness.provider.destroy(M1)
    await harness.provider.create(make_spec(harness.cluster_id, M2))
    await harness.end_machine(M2)
    await exits.first()
    assert [name for name, _ in exits.seen] == [M2]


async def test_a_boot_that_never_registers_can_be_looked_at_and_destroyed(harness: Harness) -> None:
    """Running is the provider's word, ready is not: nobody listens where this machine would register."""
    await harness.provider.create(make_spec(harness.cluster_id, M1))
    machine = await harness.provider.get(M1)
    assert machine is not None
    assert machine.state is MachineState.RUNNING
    assert await harness.provider.logs(M1) != ()
    await harness.provider.destroy(M1)


async def test_logs_outlive_the_machine_and_are_empty_for_strangers(harness: Harness) -> None:
    await harness.provider.create(make_spec(harness.cluster_id, M1))
    await harness.provider.destroy(M1)
    assert await harness.provider.logs(M1) != ()
    assert await harness.provider.logs(MachineId("never-was")) == ()


async def test_another_cluster_lists_nothing_of_ours(harness: Harness) -> None:
    await harness.provider.create(make_spec(harness.cluster_id, M1))
    assert await harness.provider.list(ClusterId(random_id("c"))) == ()


async def test_start_of_a_running_machine_changes_nothing(harness: Harness) -> None:
    created = await harness.provider.create(make_spec(harness.cluster_id, M1))
    await harness.provider.start(M1)
    assert await harness.provider.get(M1) == created


async def test_start_of_nothing_is_a_typed_error(harness: Harness) -> None:
    with pytest.raises(ProviderError, match="never-was") as caught:
        await harness.provider.start(MachineId("never-was"))
    assert (caught.value.phase, caught.value.machine_id) == ("start", "never-was")


async def test_a_caller_that_gives_up_leaves_a_machine_that_is_known_or_none(harness: Harness) -> None:
    creating = asyncio.ensure_future(harness.provider.create(make_spec(harness.cluster_id, M1)))
    await asyncio.sleep(0)
    creating.cancel()
    await asyncio.wait([creating])
    await harness.provider.destroy(M1)
    assert await harness.provider.get(M1) is None


async def test_many_at_once(harness: Harness) -> None:
    names = [MachineId(f"m-{number}") for number in range(6)]
    await asyncio.gather(*(harness.provider.create(make_spec(harness.cluster_id, name)) for name in names))
    assert {machine.name for machine in await harness.provider.list(harness.cluster_id)} == set(names)
    await asyncio.gather(*(harness.provider.destroy(name) for name in names))
    assert harness.left_over() == []


async def test_close_twice(harness: Harness) -> None:
    await harness.provider.close()
    await harness.provider.close()


# ---- suspending ----


async def suspended(harness: Harness, name: MachineId = M1) -> ProviderMachine:
    """A machine that was created, and is suspended; as it was before."""
    made = await harness.provider.create(make_spec(harness.cluster_id, name))
    await harness.provider.suspend(name)
    return made


async def state_of(harness: Harness, name: MachineId = M1) -> MachineState | None:
    machine = await harness.provider.get(name)
    return machine.state if machine else None


async def runs_on(harness: Harness, made: ProviderMachine) -> bool:
    """Whether it runs, and is the same machine."""
    machine = await harness.provider.get(made.name)
    seen = machine and (machine.provider_machine_id, machine.state)
    return seen == (made.provider_machine_id, MachineState.RUNNING)


async def test_capabilities_say_how_it_suspends_or_why_not(harness: Harness) -> None:
    capabilities = harness.provider.capabilities()
    assert capabilities.suspend == (capabilities.suspend_kind != "")
    if capabilities.suspend_kind != "snapshot":
        assert capabilities.suspend_reason
    small = Wanted("default", make_spec(harness.cluster_id, M1).shape, "", 1, 1)
    assert harness.provider.suspend_obstacle(small) == ""


async def test_a_suspended_machine_is_shown_as_such_and_is_no_exit(harness: Harness) -> None:
    exits = Exits(harness.provider)
    made = await suspended(harness)
    got = await harness.provider.get(M1)
    assert got is not None
    assert (got.state, got.provider_machine_id) == (MachineState.SUSPENDED, made.provider_machine_id)
    assert [each.state for each in await harness.provider.list(harness.cluster_id)] == [MachineState.SUSPENDED]
    # What another machine's exit would bring to light came before it.
    await harness.provider.create(make_spec(harness.cluster_id, M2))
    await harness.end_machine(M2)
    await exits.first()
    assert [name for name, _ in exits.seen] == [M2]


async def test_nothing_of_a_suspended_machine_runs_and_the_same_goes_on(harness: Harness) -> None:
    made = await suspended(harness)
    await until(lambda: harness.running(M1) == 0, 10, "nothing of m-1 runs")
    await harness.provider.start(M1)
    assert await runs_on(harness, made)
    await until(lambda: harness.running(M1) > 0, 10, "m-1 goes on")


async def test_suspend_twice_and_start_twice_change_nothing(harness: Harness) -> None:
    made = await suspended(harness)
    await harness.provider.suspend(M1)
    assert await state_of(harness) is MachineState.SUSPENDED
    await harness.provider.start(M1)
    await harness.provider.start(M1)
    assert await runs_on(harness, made)


async def test_suspended_again_and_again(harness: Harness) -> None:
    made = await suspended(harness)
    for _ in range(3):
        await harness.provider.start(M1)
        await harness.provider.suspend(M1)
    await harness.provider.start(M1)
    assert await runs_on(harness, made)


async def test_two_callers_at_once(harness: Harness) -> None:
    made = await harness.provider.create(make_spec(harness.cluster_id, M1))
    await asyncio.gather(harness.provider.suspend(M1), harness.provider.suspend(M1))
    assert await state_of(harness) is MachineState.SUSPENDED
    await asyncio.gather(harness.provider.start(M1), harness.provider.start(M1))
    assert await runs_on(harness, made)


async def test_a_start_after_a_suspend_that_is_under_way_has_it_run(harness: Harness) -> None:
    made = await harness.provider.create(make_spec(harness.cluster_id, M1))
    suspending = asyncio.ensure_future(harness.provider.suspend(M1))
    await asyncio.sleep(0)
    await asyncio.gather(harness.provider.start(M1), suspending, return_exceptions=True)
    await harness.provider.start(M1)
    assert await runs_on(harness, made)


async def test_stop_discards_what_is_suspended(harness: Harness) -> None:
    exits = Exits(harness.provider)
    await suspended(harness)
    await harness.provider.stop(M1)
    assert await state_of(harness) in {None, MachineState.STOPPED}
    await until(lambda: harness.running(M1) == 0, 10, "nothing of m-1 runs")
    if await state_of(harness) is None:
        with pytest.raises(ProviderError, match="start of machine m-1 failed"):
            await harness.provider.start(M1)
    else:
        await harness.provider.start(M1)
        assert await state_of(harness) is MachineState.RUNNING
    assert exits.seen == []


async def test_destroy_of_a_suspended_machine_leaves_nothing(harness: Harness) -> None:
    exits = Exits(harness.provider)
    await suspended(harness)
    await harness.provider.destroy(M1)
    assert await harness.provider.get(M1) is None
    assert harness.left_over() == []
    assert exits.seen == []


async def test_a_suspended_machine_is_adopted_by_its_name(harness: Harness) -> None:
    made = await suspended(harness)
    again = await harness.provider.create(make_spec(harness.cluster_id, M1))
    assert (again.provider_machine_id, again.state) == (made.provider_machine_id, MachineState.SUSPENDED)


async def test_suspend_of_nothing_is_a_typed_error(harness: Harness) -> None:
    with pytest.raises(ProviderError, match="never-was") as caught:
        await harness.provider.suspend(MachineId("never-was"))
    assert (caught.value.phase, caught.value.machine_id) == ("suspend", "never-was")


async def test_suspend_of_a_machine_that_was_stopped_is_a_typed_error(harness: Harness) -> None:
    await harness.provider.create(make_spec(harness.cluster_id, M1))
    await harness.provider.stop(M1)
    before = await state_of(harness)
    with pytest.raises(ProviderError) as caught:
        await harness.provider.suspend(M1)
    assert (caught.value.phase, caught.value.machine_id) == ("suspend", "m-1")
    assert await state_of(harness) is before


async def test_many_suspended_and_resumed_at_once(harness: Harness) -> None:
    names = [MachineId(f"m-{number}") for number in range(4)]
    await asyncio.gather(*(harness.provider.create(make_spec(harness.cluster_id, name)) for name in names))
    await asyncio.gather(*map(harness.provider.suspend, names))
    assert {each.state for each in await harness.provider.list(harness.cluster_id)} == {MachineState.SUSPENDED}
    await asyncio.gather(*map(harness.provider.start, names))
    assert {each.state for each in await harness.provider.list(harness.cluster_id)} == {MachineState.RUNNING}
