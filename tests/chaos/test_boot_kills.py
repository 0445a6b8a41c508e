"""`kill -9` of client, coordinator, and who clears up after them, in every phase of a boot: no machine is left.

`RUNNER_KILLS_MACHINES=64` tries every phase with every victim on boots of that size; `RUNNER_KILLS_SEED=4711` repeats a plan;
`RUNNER_KILLS_OUT=FILE` keeps what was measured, one JSON object a line.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runner.coordinator.state_dir import sweep_stores
from tests.chaos.boot_kills import Phase, Scene, Victim, strike
from tests.chaos.grounds import Ground, LocalGround, fly_ground

MACHINES = int(os.environ.get("RUNNER_KILLS_MACHINES") or 8)
IS_FULL = MACHINES > 8
SEED = int(os.environ.get("RUNNER_KILLS_SEED") or random.randrange(10_000))

# Each phase and each victim on each provider, not all of their pairs.
FEW = [
    ("local", Phase.CREATING, Victim.CLIENT),
    ("local", Phase.CREATED, Victim.COORDINATOR),
    ("local", Phase.REGISTERING, Victim.BOTH),
    ("local", Phase.RUNNING, Victim.ALL),
    ("local", Phase.GROWING, Victim.CLIENT),
    ("local", Phase.ENDING, Victim.COORDINATOR),
    ("fly", Phase.BEFORE_CREATE, Victim.CLIENT),
    ("fly", Phase.CREATING, Victim.COORDINATOR),
    ("fly", Phase.CREATED, Victim.CLIENT),
    ("fly", Phase.RUNNING, Victim.ALL),
    ("fly", Phase.GROWING, Victim.BOTH),
]
# Of them, what every run of the tests does; the others run with the long ones.
SHORT = [(Phase.CREATING, Victim.CLIENT), (Phase.REGISTERING, Victim.BOTH), (Phase.ENDING, Victim.COORDINATOR)]
# At the documented rate a boot of 64 takes a minute: the phases in which the limit matters.
LIMITED = (Phase.CREATING, Phase.REGISTERING, Phase.ENDING)
ALL = [
    *(("local", phase, victim) for phase in Phase for victim in Victim),
    *(("fly", phase, victim) for phase in Phase for victim in Victim),
    *(("fly at its rate", phase, victim) for phase in LIMITED for victim in Victim),
]


@contextmanager
def ground_of(name: str) -> Iterator[Ground]:
    if name == "local":
        yield LocalGround()
    else:
        with fly_ground(SEED, is_limited=name == "fly at its rate") as ground:
            yield ground


def _marked(where: str, phase: Phase, victim: Victim) -> object:
    is_long = where != "local" or (phase, victim) not in SHORT
    return pytest.param(where, phase, victim, marks=[pytest.mark.long] if is_long else [])


@pytest.mark.chaos
@pytest.mark.timeout(400 if IS_FULL else 60)
@pytest.mark.parametrize(("where", "phase", "victim"), [_marked(*each) for each in (ALL if IS_FULL else FEW)])
def test_no_machine_is_left(where: str, phase: Phase, victim: Victim, tmp_path: Path) -> None:
    print(f"RUNNER_KILLS_SEED={SEED} repeats this plan")
    with ground_of(where) as ground:
        outcome = strike(ground, Scene(phase, victim, MACHINES, SEED), tmp_path)
    if file := os.environ.get("RUNNER_KILLS_OUT"):
        with open(file, "a", encoding="utf-8") as out:
            out.write(json.dumps(outcome.to_dict()) + "\n")
    assert outcome.left == []
    # Large values of a coordinator that was killed stay in shared memory until the next start on this host, which does this.
    sweep_stores()
