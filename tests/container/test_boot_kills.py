"""The scenes of tests/chaos/boot_kills.py where machines are containers: `kill -9` in phases of a boot leaves none."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.coordinator.state_dir import sweep_stores
from tests.chaos.boot_kills import Phase, Scene, Victim, strike

SEED = int(os.environ.get("RUNNER_KILLS_SEED") or random.randrange(10_000))
MACHINES = int(os.environ.get("RUNNER_KILLS_MACHINES") or 8)


class ContainerGround:
    """Machines are containers; the engine's own list says which there are."""

    name = "container"
    gone_within_s = 20.0
    is_apart = True

    def __init__(self, options: dict[str, Any], containers: Callable[..., list[dict[str, Any]]]) -> None:
        self._options = options
        self._containers = containers

    def init_options(self, machines: int) -> dict[str, Any]:
        return {"provider": "container", "num_cpus": 1, "provider_options": self._options}

    def environment(self) -> Mapping[str, str]:
        return {}

    def machines(self, scene: str) -> int:
        return len(self._containers())

    def machines_left(self, scene: str) -> list[str]:
        return [f"container {each['Names'][0]}, {each['State']}" for each in self._containers()]


@pytest.mark.chaos
@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("phase", "victim"),
    [
        (Phase.BEFORE_CREATE, Victim.CLIENT),
        (Phase.CREATING, Victim.COORDINATOR),
        (Phase.CREATED, Victim.BOTH),
        (Phase.REGISTERING, Victim.CLIENT),
        (Phase.RUNNING, Victim.ALL),
        (Phase.GROWING, Victim.BOTH),
        (Phase.ENDING, Victim.COORDINATOR),
    ],
)
def test_no_container_is_left(phase: Phase, victim: Victim, options, containers, tmp_path: Path) -> None:
    print(f"RUNNER_KILLS_SEED={SEED} repeats this plan")
    outcome = strike(ContainerGround(options, containers), Scene(phase, victim, MACHINES, SEED), tmp_path)
    assert outcome.left == []
    sweep_stores()
