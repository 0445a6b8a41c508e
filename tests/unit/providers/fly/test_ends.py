"""Destroying machines that the API does not show yet: a 404 is no end of what was made a moment ago."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from runner.errors import ProviderError
from runner.providers.fly.provider import FlyProvider
from tests.unit.providers.fly.scripted import M1, OK, Answer, ScriptedFly, machine, make_spec, refused
from tests.unit.providers.fly.test_boot import CREATE, DELETE, GET, LIST, WAIT, with_provider

UNKNOWN = refused(404, "machine not found")


@pytest.fixture
def fly() -> ScriptedFly:
    """A machine is being made, and nothing but the answer to its create has shown it."""
    fly = ScriptedFly().on(CREATE, Answer(200, machine("created"))).on(WAIT, Answer(200, OK, after_s=60))
    return fly.on(GET, UNKNOWN).on(LIST, Answer(200, []))


def test_destroy_of_what_the_api_does_not_show_yet_is_repeated_until_it_does(fly: ScriptedFly, tmp_path: Path) -> None:
    fly.on(DELETE, UNKNOWN, UNKNOWN, Answer(200, OK))

    async def work(provider: FlyProvider) -> None:
        creating = asyncio.ensure_future(provider.create(make_spec()))
        await asyncio.sleep(1)
        fly.on(WAIT, Answer(200, OK))
        await provider.destroy(M1)
        assert len(fly.calls(DELETE)) == 3
        with pytest.raises(ProviderError, match="destroyed meanwhile"):
            await creating

    assert with_provider(fly, tmp_path, work) < 10


@pytest.mark.parametrize("shown", [[], [machine("destroyed")]])
def test_destroy_of_what_ended_meanwhile_asks_no_longer_than_it_may_be_invisible(
    shown: list[Any], fly: ScriptedFly, tmp_path: Path
) -> None:
    fly.on(LIST, Answer(200, shown)).on(DELETE, UNKNOWN)

    async def work(provider: FlyProvider) -> None:
        creating = asyncio.ensure_future(provider.create(make_spec()))
        await asyncio.sleep(1)
        await provider.destroy(M1)
        with pytest.raises(ProviderError, match="destroyed meanwhile"):
            await creating

    took_s = with_provider(fly, tmp_path, work, lag_s=10.0)
    assert took_s < 2 if shown else 10 <= took_s < 13
