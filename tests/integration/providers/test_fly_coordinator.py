"""A coordinator on a machine at Fly, in the simulator: up, work, down; and no machine left, whoever dies."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

import runner
from runner.flysim.fixture import FlySim
from runner.flysim.settings import Delay
from tests.integration.helpers import wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]

LOST_S = 6.0
# After the last client: to notice, to destroy the workers, to end itself, and for the API to show it; on a busy host.
END_S = LOST_S + 15.0
GONE = {"destroyed", "destroying"}
UP = (
    *("up", "--provider", "fly", "--image", "registry.fly.io/cluster-app:worker", "--machines", "2", "--json"),
    *("--provider-option", "app=cluster-app", "--provider-option", "org=personal", "--provider-option", "rates=false"),
    *("--client-lost-after-s", str(LOST_S)),
)


@pytest.fixture
def sim() -> Iterator[FlySim]:
    with FlySim(
        rate_limit=False, create_delay=Delay(0.05), pull_cold_delay=Delay(0.1), start_delay=Delay(0.05)
    ) as started:
        yield started


class Shell:
    """`runner ...` as people run it, with a home of its own."""

    def __init__(self, sim: FlySim, home: Path) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RUNNER_") or "TEST" in key}
        self.environment = {**kept, **sim.environment, "RUNNER_HOME": str(home)}
        self.home = home

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runner.cli", *args]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=50, check=False)

    def up(self) -> dict[str, Any]:
        """What `runner up --json` printed."""
        up = self.run(*UP)
        assert up.returncode == 0, up.stderr
        found = json.loads(up.stdout)
        assert isinstance(found, dict)
        return found

    def begin_up(self) -> subprocess.Popen[bytes]:
        """`runner up`, to be interrupted."""
        command = [sys.executable, "-m", "runner.cli", *UP]
        return subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def shell(sim: FlySim, tmp_path: Path) -> Shell:
    return Shell(sim, tmp_path / "home")


def alive(sim: FlySim) -> dict[str, str]:
    """The machines that are there, by id."""
    return {key: each["state"] for key, each in sim.state()["machines"].items() if each["state"] not in GONE}


def wait_all_made(sim: FlySim) -> None:
    """The coordinator's machine and two workers'. `up` is done when the coordinator answers: workers may be on their way."""
    wait_until(lambda: len(alive(sim)) == 3, 20.0, "the coordinator's machine and both workers'")


def test_up_work_down(sim: FlySim, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = shell.up()
    monkeypatch.setenv("RUNNER_HOME", str(shell.home))

    with runner.init(cluster["address"]):
        assert runner.get([runner.remote(abs).remote(-n) for n in range(20)]) == list(range(20))
        wait_until(lambda: len(runner.nodes()) == 2, 20.0, "both workers in the list")
    wait_all_made(sim)
    status = shell.run("status", "--json")
    assert json.loads(status.stdout)["cluster_id"] == cluster["cluster_id"]
    down = shell.run("down")

    assert (down.returncode, down.stderr) == (0, "")
    assert alive(sim) == {}
    assert sim.processes() == []
    assert list((shell.home / "clusters").iterdir()) == []
    assert not any((shell.home / "machines").iterdir())


def test_a_killed_client_ends_all_of_it(sim: FlySim, shell: Shell) -> None:
    cluster = shell.up()
    script = """
        import runner, sys, time
        runner.init(sys.argv[1])
        runner.remote(time.sleep).remote(3600)
        print("in", flush=True)
        time.sleep(3600)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), cluster["address"]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=shell.environment) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"in\n"
        client.send_signal(signal.SIGKILL)
        client.wait()

    wait_until(lambda: not alive(sim), END_S, "the end of all machines")
    assert sim.processes() == []
    # What this host still remembers of it is forgotten by the next `down`.
    down = shell.run("down")
    assert down.returncode == 0, down.stderr
    assert list((shell.home / "clusters").iterdir()) == []


def test_nothing_is_left_when_up_is_killed_on_the_way(sim: FlySim, shell: Shell) -> None:
    with shell.begin_up() as up:
        wait_until(lambda: alive(sim), 20.0, "the coordinator's machine")
        up.send_signal(signal.SIGKILL)
        up.wait()

    wait_until(lambda: not alive(sim), END_S, "the end of the coordinator's machine")
    assert sim.processes() == []


def test_a_machine_that_dies_is_cleared_away_by_down(sim: FlySim, shell: Shell) -> None:
    """Workers without a coordinator end by their leases, minutes later; `down` does not wait for that."""
    cluster = shell.up()
    pid = sim.state()["machines"][cluster["machine"]["machine_id"]]["pid"]
    os.kill(pid, signal.SIGKILL)

    down = shell.run("down")

    assert down.returncode == 0, down.stderr
    assert "could not be told" in down.stderr
    assert alive(sim) == {}
    assert sim.processes() == []


def test_a_task_holds_no_token_and_boots_nothing(sim: FlySim, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = shell.up()
    monkeypatch.setenv("RUNNER_HOME", str(shell.home))

    # Even with a token that somebody gave it.
    options = {"app": "cluster-app", "image": "registry.fly.io/a", "base_url": sim.url, "token": sim.token}

    def look() -> tuple[dict[str, str], int, str]:
        script = f"import runner; runner.init(provider='fly', machines=1, provider_options={options!r})"
        nested = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        return dict(os.environ), nested.returncode, nested.stderr

    with runner.init(cluster["address"]):
        environment, status, stderr = runner.get(runner.remote(look).remote())

    assert not [name for name, value in environment.items() if "fm2_" in value or value == sim.token]
    assert "FLY_API_TOKEN" not in environment
    assert status == 1
    assert "boot no machines of their own" in stderr
    assert shell.run("down").returncode == 0


def test_lost_answers_make_nothing_twice(sim: FlySim, shell: Shell) -> None:
    """Of the app, the machine, the token and the hand-over: each was done, and nobody heard of it."""
    sim.inject("drop_reply", count=4)

    cluster = shell.up()

    wait_all_made(sim)
    assert shell.run("down", "--address", cluster["address"]).returncode == 0
    assert alive(sim) == {}


def test_no_secret_is_in_what_the_api_shows(sim: FlySim, shell: Shell) -> None:
    cluster = shell.up()
    token = Path(cluster["token_file"]).read_text().strip()

    def list_all() -> httpx.Response:
        return httpx.get(f"{sim.url}/v1/apps/cluster-app/machines", headers=sim.headers)

    wait_until(
        lambda: len(list_all().json()) == 3, 20.0, "the coordinator's machine and both workers' in the API's list"
    )
    answer = list_all()
    shown = {each["id"]: each for each in answer.json()}
    env = shown[cluster["machine"]["machine_id"]]["config"]["env"]
    decoded = repr(msgpack.unpackb(base64.b64decode(env["RUNNER_COORDINATOR"])))

    assert len(shown) == 3
    assert "cluster-app" in decoded  # it is the settings
    for text in (answer.text, decoded):
        assert token not in text
        assert sim.token not in text
        assert "simdeploy" not in text
    assert shell.run("down").returncode == 0


def test_ctrl_c_during_the_boot_leaves_nothing(sim: FlySim, shell: Shell) -> None:
    with shell.begin_up() as up:
        wait_until(lambda: alive(sim), 20.0, "the coordinator's machine")
        up.send_signal(signal.SIGINT)
        up.wait(30)

    assert up.returncode != 0
    assert alive(sim) == {}
    assert list((shell.home / "clusters").glob("*")) == []
