"""Whole histories of the shipped coordinator, agents and clients under faults, each from one seed.

What is checked while it runs and at its end (tests/properties/simulation): every task settles; each ref gets exactly one result, of an
attempt that did succeed; no attempt begins twice, and no two attempts of a task run at once unless an agent was frozen; what was
accepted survives a restart; metrics of every attempt are a gapless beginning, and all of them where it succeeded.

`RUNNER_SIM_SEEDS=500` plays that many seeds, `RUNNER_SIM_SEEDS=4711:4712` exactly that one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.testing import ProviderFaults
from tests.properties.simulation.world import Rates, play

_DEFAULT = "30"


def _seeds() -> range:
    first, _, end = os.environ.get("RUNNER_SIM_SEEDS", _DEFAULT).rpartition(":")
    return range(int(first or 0), int(end))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seed", _seeds())
def test_every_history_ends_well(seed: int, tmp_path: Path) -> None:
    print(f"seed {seed}")
    world = play(seed, tmp_path)
    assert world.ledger.successes
    assert world.network.cuts


def test_machines_whose_creation_lost_its_reply_are_kept(tmp_path: Path) -> None:
    world = play(1, tmp_path, Rates.none(), ProviderFaults(reply_lost=1.0))
    assert {boot for boot, _ in world.ledger.fences.values()} == {"m-1", "m-2", "m-3", "m-4"}


def test_without_faults_no_attempt_is_repeated_for_a_machine(tmp_path: Path) -> None:
    world = play(1, tmp_path, Rates.none(), ProviderFaults())
    assert not [line for line in world.story if "ended" in line and "the world ends" not in line]
