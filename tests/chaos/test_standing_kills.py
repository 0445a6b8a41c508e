"""`kill -9` of a standing cluster's coordinator while its machines boot elsewhere; then it is started again.

`RUNNER_KILLS_MACHINES=64` does it at that size, `RUNNER_KILLS_SEED=4711` repeats a plan.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.flysim import FlySim
from runner.flysim.settings import Delay
from runner.rpc.clusters import read_cluster
from tests.integration.helpers import let_stay, wait_until

MACHINES = int(os.environ.get("RUNNER_KILLS_MACHINES") or 8)
SEED = int(os.environ.get("RUNNER_KILLS_SEED") or random.randrange(10_000))
TASKS = 2 * MACHINES
WAIT_S = 60.0 + MACHINES
# One of them in a short run: the seed says which.
PHASES = ("creating", "registering") if MACHINES > 8 else (random.Random(SEED).choice(("creating", "registering")),)


class Cli:
    """`runner ...` with a home of its own."""

    def __init__(self, sim: FlySim, home: Path) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RUNNER_") or "TEST" in key}
        root = str(Path(runner.__file__).parents[1])
        self._environment = {**kept, **sim.environment, "RUNNER_HOME": str(home), "PYTHONPATH": root}

    def run(self, *args: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "runner.cli", *args, *(["--json"] if args[0] == "up" else [])]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout)) if args[0] == "up" else {}


@pytest.fixture
def sim() -> Iterator[FlySim]:
    """Replies get lost, machines exist for a second before they register, and a while before a list shows them."""
    delays: dict[str, Any] = {"create_delay": Delay(0.3, 0.5), "start_delay": Delay(1.0, 0.1)}
    pulls: dict[str, Any] = {"pull_cold_delay": Delay(0.2), "pull_warm_delay": Delay(0.05)}
    late: dict[str, Any] = {"visible_delay": Delay(2.0, 0.3)}
    with FlySim(seed=SEED, rate_limit=False, lost_reply_rate=0.1, gone_within_s=15.0, **delays, **pulls, **late) as it:
        yield it


def there(sim: FlySim) -> list[str]:
    return [each["name"] for each in sim.state()["machines"].values() if each["state"] != "destroyed"]


@runner.remote(max_retries=0)
def square(number: int) -> int:
    return number * number


@pytest.mark.long
@pytest.mark.chaos
@pytest.mark.timeout(60 + 4 * MACHINES)
@pytest.mark.parametrize("phase", PHASES)
def test_a_standing_cluster_has_the_machines_it_wants_and_no_other(
    phase: str, sim: FlySim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    print(f"RUNNER_KILLS_SEED={SEED} repeats this plan")
    some = random.Random(f"{SEED}/{phase}").randint(1, MACHINES - 1)
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path))
    cli = Cli(sim, tmp_path)
    options = ("--image", "runner-worker:1", "--provider-option", "app=kills", "--provider-option", "org=personal")
    more = ("--provider-option", "rates=false", "--machines", str(MACHINES), "--cpus", "1", "--port", "0")
    up = cli.run("up", "--provider", "fly", "--on", "here", *options, *more)
    request.addfinalizer(lambda: cli.run("down", "--all", "--force"))
    with runner.init(up["address"], log_to_driver=False):
        refs = [square.remote(number) for number in range(TASKS)] if phase == "creating" else []

        def registered() -> int:
            return sum(node.is_alive for node in runner.nodes())

        if phase == "creating":
            wait_until(lambda: len(there(sim)) >= some, WAIT_S, f"{some} machines at the provider")
        else:
            wait_until(lambda: registered() >= some, WAIT_S, f"{some} machines registered")
            refs = [square.remote(number) for number in range(TASKS)]
        info = read_cluster(Path(up["state_dir"]))
        assert info is not None
        os.kill(up["pid"], signal.SIGKILL)
        assert info.wait_gone(10.0)
        again = cli.run("up", "--cluster", up["cluster_id"])
        assert again["address"] == up["address"]

        assert runner.get(refs, timeout=WAIT_S) == [number * number for number in range(TASKS)]
        begun_s = time.monotonic()
        wait_until(lambda: registered() == MACHINES, WAIT_S, f"{MACHINES} machines registered")
        wait_until(lambda: len(there(sim)) == MACHINES, WAIT_S, f"exactly {MACHINES} machines at the provider")
        print(f"{phase} at {some}: exactly the machines wanted {time.monotonic() - begun_s:.1f} s after the tasks")
        let_stay(lambda: len(there(sim)) == MACHINES and registered() == MACHINES, 3.0, "these and no others")
    cli.run("down")
    assert there(sim) == []
