"""Creates of which nobody knows what became: what may have come to be is looked for until it is destroyed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runner.errors import ProviderError
from runner.ids import MachineId
from runner.providers.fly.provider import FlyProvider
from tests.unit.providers.fly.scripted import M1, OK, Answer, ScriptedFly, machine, make_spec, refused
from tests.unit.providers.fly.test_boot import CREATE, DELETE, EXISTS, FULL, GET, LIST, WAIT, failure, with_provider


@pytest.fixture
def fly() -> ScriptedFly:
    """A Fly where everything works."""
    fly = ScriptedFly().on(CREATE, Answer(200, machine("created"))).on(WAIT, Answer(200, OK))
    return fly.on(GET, Answer(200, machine())).on(LIST, Answer(200, [])).on(DELETE, Answer(200, OK))


def test_an_unanswered_create_is_looked_for_before_it_is_called_failed(fly: ScriptedFly, tmp_path: Path) -> None:
    """Nothing is left: the machine shows up seconds after its create ran into the deadline."""
    fly.on(CREATE, Answer(200, machine("created"), after_s=300))
    fly.on(LIST, Answer(200, []), Answer(200, []), Answer(200, [machine("started")]))
    error = failure(fly, tmp_path, boot_deadline_s=20)
    assert not error.is_permanent
    assert len(fly.calls(DELETE)) == 1


def test_a_refusal_after_a_lost_answer_does_not_make_the_first_one_forgotten(fly: ScriptedFly, tmp_path: Path) -> None:
    """0.4, 0.5: the machine that nobody sees yet has taken the last place."""
    fly.on(CREATE, refused(408, "timeout"), FULL[0])
    fly.on(LIST, Answer(200, []), Answer(200, []), Answer(200, [machine("started")]))
    assert failure(fly, tmp_path).is_capacity
    assert len(fly.calls(DELETE)) == 1


def test_destroy_while_the_machine_that_has_the_name_is_invisible(fly: ScriptedFly, tmp_path: Path) -> None:
    """0.4, 0.5: a 409 says that it is there, and neither get nor list shows it yet."""
    fly.on(CREATE, refused(408, "timeout"), EXISTS).on(GET, refused(404, "machine not found"))
    fly.on(LIST, Answer(200, []), Answer(200, []), Answer(200, []), Answer(200, [machine("started")]))

    async def work(provider: FlyProvider) -> None:
        creating = asyncio.ensure_future(provider.create(make_spec()))
        await asyncio.sleep(1.5)
        await provider.destroy(M1)
        with pytest.raises(ProviderError, match="destroyed meanwhile"):
            await creating

    with_provider(fly, tmp_path, work)
    assert len(fly.calls(DELETE)) == 1


def test_destroy_during_a_create_leaves_nothing(fly: ScriptedFly, tmp_path: Path) -> None:
    """The request is under way when the machine is no longer wanted."""
    fly.on(CREATE, Answer(200, machine("created"), after_s=5))

    async def work(provider: FlyProvider) -> None:
        creating = asyncio.ensure_future(provider.create(make_spec()))
        await asyncio.sleep(1)
        await provider.destroy(M1)
        with pytest.raises(ProviderError, match="destroyed meanwhile"):
            await creating

    assert with_provider(fly, tmp_path, work) < 10
    assert len(fly.calls(DELETE)) == 1


def test_what_is_refused_for_good_is_not_asked_for_again_by_those_in_the_queue(
    fly: ScriptedFly, tmp_path: Path
) -> None:
    """0.2: each create waits for its turn, a minute for 64; an image that does not exist does not come to be meanwhile."""
    fly.on(CREATE, refused(400, "failed to resolve the image: manifest unknown", after_s=0.1))
    errors: list[ProviderError] = []

    async def work(provider: FlyProvider) -> None:
        specs = [make_spec(MachineId(f"m-{number}")) for number in range(1, 65)]
        larger = asyncio.ensure_future(provider.create(make_spec(MachineId("m-99"), cpus=4)))
        ends = await asyncio.gather(*(provider.create(spec) for spec in specs), return_exceptions=True)
        errors.extend(end for end in ends if isinstance(end, ProviderError))
        with pytest.raises(ProviderError):
            await larger

    assert with_provider(fly, tmp_path, work, rates={}) < 5
    assert len(errors) == 64 and all(error.is_permanent for error in errors)
    assert "create of machine m-64 failed" in str(errors[63]) and "manifest unknown" in str(errors[63])
    assert {call.body["config"]["guest"]["cpus"] for call in fly.calls(CREATE)} == {1, 4}
    assert len(fly.calls(CREATE)) <= 4
