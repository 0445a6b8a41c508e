"""Suspending machines: who can be, how it is waited for, and what becomes of one that does not come."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner.core.values import CPU, GPU, MEMORY, UNIT, make_shape
from runner.errors import ProviderError
from runner.providers.base import MachineState, Wanted
from runner.providers.fly.provider import FlyProvider
from tests.unit.providers.fly.scripted import M1, OK, ONE, Answer, ScriptedFly, machine, make_spec, refused
from tests.unit.providers.fly.test_boot import GET, LIST, WAIT, with_provider
from tests.unit.providers.fly.test_life import Ends
from tests.unit.providers.fly.test_life import fly as fly  # the fixture

NOT_YET = refused(408, "machine failed to reach desired state, suspended, currently suspending", after_s=1)
SUSPEND, START = f"POST {ONE}/suspend", f"POST {ONE}/start"


def test_suspend_and_resume(fly: ScriptedFly, tmp_path: Path) -> None:
    """1.2 suspend, start; 1.5 started -> suspended -> started."""
    fly.on(f"POST {ONE}/suspend", Answer(200, OK))
    fly.on(f"POST {ONE}/start", Answer(200, {"previous_state": "suspended", "migrated": False, "new_host": ""}))

    async def work(provider: FlyProvider) -> None:
        ends = Ends(provider)
        await provider.create(make_spec())
        await provider.suspend(M1)
        fly.on(GET, Answer(200, machine("suspended"))).on(LIST, Answer(200, [machine("suspended")]))
        found = await provider.get(M1)
        assert found is not None and found.state is MachineState.SUSPENDED
        await asyncio.sleep(30)
        await provider.start(M1)
        assert ends.seen == []

    with_provider(fly, tmp_path, work)
    assert [call.query["state"] for call in fly.calls(WAIT)] == ["started", "suspended", "started"]
    assert fly.calls(WAIT)[1].query["instance_id"] == machine()["instance_id"], "an update drops the snapshot"


def test_a_suspend_that_does_not_come_is_called_off(fly: ScriptedFly, tmp_path: Path) -> None:
    """1.5: suspending --start--> started."""
    fly.on(SUSPEND, Answer(200, OK)).on(START, Answer(200, {"previous_state": "suspending"}))

    async def work(provider: FlyProvider) -> None:
        await provider.create(make_spec())
        fly.on(WAIT, NOT_YET).on(GET, Answer(200, machine("suspending")))
        with pytest.raises(ProviderError, match="suspend of machine m-1 failed") as caught:
            await provider.suspend(M1)
        assert (caught.value.phase, caught.value.is_permanent) == ("suspend", False)

    with_provider(fly, tmp_path, work, suspend_deadline_s=3)
    assert len(fly.calls(START)) == 1


@pytest.mark.parametrize("seen", ["started", "stopped"])
def test_a_suspend_that_somebody_ended_is_seen_and_nothing_is_started(seen, fly: ScriptedFly, tmp_path: Path) -> None:
    fly.on(SUSPEND, Answer(200, OK))

    async def work(provider: FlyProvider) -> None:
        await provider.create(make_spec())
        fly.on(WAIT, NOT_YET).on(
            GET, Answer(200, machine()), Answer(200, machine("suspending")), Answer(200, machine(seen))
        )
        with pytest.raises(ProviderError, match=f"it is {seen} instead of suspended"):
            await provider.suspend(M1)

    with_provider(fly, tmp_path, work)
    assert fly.calls(START) == []


def test_a_suspend_that_is_refused_starts_nothing(fly: ScriptedFly, tmp_path: Path) -> None:
    fly.on(SUSPEND, refused(400, "failed_precondition: unable to suspend machine from current state: 'stopped'"))

    async def work(provider: FlyProvider) -> None:
        await provider.create(make_spec())
        with pytest.raises(ProviderError, match="unable to suspend"):
            await provider.suspend(M1)

    with_provider(fly, tmp_path, work)
    assert fly.calls(START) == []


def test_a_suspended_machine_is_not_suspended_again(fly: ScriptedFly, tmp_path: Path) -> None:
    async def work(provider: FlyProvider) -> None:
        await provider.create(make_spec())
        fly.on(GET, Answer(200, machine("suspended")))
        await provider.suspend(M1)

    with_provider(fly, tmp_path, work)
    assert fly.calls(SUSPEND) == []


@pytest.mark.parametrize(
    ("options", "wanted", "words"),
    [
        ({}, {CPU: UNIT}, ""),
        ({"cpu_kind": "shared"}, {CPU: 8 * UNIT}, ""),
        ({}, {CPU: 2 * UNIT}, "size performance-2x cannot be suspended: it has 4096 MB"),
        ({}, {CPU: UNIT, MEMORY: 3 << 30}, "size performance-1x cannot be suspended: it has 3072 MB"),
        # One that may be fallen back to counts too.
        ({"sizes": ["shared-cpu-1x", "performance-2x"]}, {CPU: UNIT}, "size performance-2x cannot be suspended"),
        ({}, {GPU: UNIT}, "it asks for GPUs"),
    ],
)
def test_a_pool_that_could_not_be_suspended_is_told_before(options, wanted, words, fly, tmp_path) -> None:
    """1.7, first row."""

    async def work(provider: FlyProvider) -> None:
        obstacle = provider.suspend_obstacle(Wanted("default", make_shape(wanted), "", 1, 1))
        assert words in obstacle
        assert bool(obstacle) == bool(words)

    with_provider(fly, tmp_path, work, **options)
    assert fly.seen == []


@pytest.mark.parametrize(
    ("change", "words"),
    # 1.7, first row
    [
        ({"guest": {"cpu_kind": "performance", "cpus": 2, "memory_mb": 4096}}, "4096 MB"),
        ({"init": {"swap_size_mb": 512}}, "swap"),
        ({"schedule": "daily"}, "schedule"),
    ],
)
def test_what_cannot_be_suspended_is_refused_with_the_reason(change, words, fly: ScriptedFly, tmp_path: Path) -> None:
    raw = machine()
    raw["config"] = raw["config"] | change
    fly.on(GET, Answer(200, raw))

    async def work(provider: FlyProvider) -> None:
        await provider.create(make_spec())
        with pytest.raises(ProviderError, match=words) as caught:
            await provider.suspend(M1)
        assert caught.value.is_permanent

    with_provider(fly, tmp_path, work)
    assert fly.calls(f"POST {ONE}/suspend") == []
