"""Machines at Fly, in the simulator, that sleep with real agents: snapshots that are lost, and a coordinator that dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.flysim import FlySim
from tests.integration.helpers import wait_gone
from tests.integration.providers.cloud import APP, IMAGE, QUICK, init, there

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]

LIMIT_S = 40.0


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlySim]:
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path / "home"))
    with FlySim(**QUICK) as started:
        yield started


@runner.remote
def pid() -> int:
    return os.getpid()


def command(*args: str) -> str:
    """What `runner` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "runner.cli", *args], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed() -> list[dict[str, Any]]:
    machines: list[dict[str, Any]] = json.loads(command("machines", "--json"))
    return machines


def test_all_machines_sleep_and_wake_at_once_and_cost_what_sleeping_costs(sim: FlySim) -> None:
    with init(sim, machines=4) as cluster:
        for name in ("m-1", "m-2", "m-3", "m-4"):
            cluster.wait_for_state(name, "ready", timeout=LIMIT_S)
        before = {runner.get(ref, timeout=LIMIT_S) for ref in [pid.remote() for _ in range(4)]}
        assert len(cluster.suspend(timeout=LIMIT_S)) == 4
        assert len(cluster.resume(timeout=LIMIT_S)) == 4
        assert {node.wake for node in runner.nodes()} == {"resumed"}
        after = {runner.get(ref, timeout=LIMIT_S) for ref in [pid.remote() for _ in range(4)]}
        assert before & after, "executors are those from before"
    assert there(sim) == []


def test_a_machine_whose_snapshot_is_lost_boots_cold_and_says_so(sim: FlySim) -> None:
    with init(sim, machines=1) as cluster:
        cluster.wait_for_state("m-1", "ready", timeout=LIMIT_S)
        before = runner.get(pid.remote(), timeout=LIMIT_S)
        cluster.suspend(timeout=LIMIT_S)
        (at_fly,) = sim.state()["machines"]
        sim.inject("lose_snapshot", machine=at_fly)
        cluster.resume(timeout=LIMIT_S)
        (node,) = runner.nodes()
        assert (node.state, node.wake) == ("ready", "cold")
        assert node.reason == "the provider has started it cold"
        assert runner.get(pid.remote(), timeout=LIMIT_S) != before


def test_a_machine_sleeps_on_when_its_coordinator_is_killed_and_is_resumed_by_the_next(sim: FlySim) -> None:
    options = {
        "app": APP,
        "org": "personal",
        "base_url": sim.url,
        "rates": "false",
        "poll_s": "0.5",
        "token": sim.token,
    }
    at_sim = [arg for name, value in options.items() for arg in ("--provider-option", f"{name}={value}")]
    up = ("up", "--provider", "fly", "--on", "here", *at_sim, "--json")
    first = json.loads(command(*up, "--machines", "1", "--cpus", "1", "--image", IMAGE, "--port", "0"))
    command("machines", "wait", "m-1", "--state", "ready", "--timeout", "40")
    command("machines", "suspend", "--all", "--timeout", "40")
    agent = listed()[0]["pid"]
    os.kill(first["pid"], signal.SIGKILL)
    wait_gone([first["pid"]], LIMIT_S)
    command(*up, "--cluster", first["cluster_id"])
    assert [machine["state"] for machine in listed()] == ["suspended"], "it is neither lost nor an orphan"
    command("machines", "resume", "--all", "--timeout", "40")
    (machine,) = listed()
    assert (machine["state"], machine["wake"], machine["pid"]) == ("ready", "resumed", agent)
    command("down", "--all")
    assert there(sim) == []
