"""A simulator without delays for each test that asks for one, and a client for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from runner.flysim import FlySim, SimSettings
from runner.flysim.settings import Delay

AT_ONCE: dict[str, Any] = {
    each.name: Delay(0.0) for each in dataclasses.fields(SimSettings) if each.name.endswith("_delay")
}


@pytest.fixture
def sim() -> Iterator[FlySim]:
    with FlySim(rate_limit=False, **AT_ONCE) as it:
        yield it


@pytest.fixture
def api(sim: FlySim) -> Iterator[httpx.Client]:
    with client_of(sim) as it:
        it.post("/apps", json={"app_name": "app", "org_slug": "personal"}).raise_for_status()
        yield it


def client_of(sim: FlySim) -> httpx.Client:
    return httpx.Client(base_url=sim.url + "/v1", headers=sim.headers, timeout=30.0, trust_env=False)
