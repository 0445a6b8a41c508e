"""A coordinator booted as a machine: secrets handed over, and an end of its own when nobody is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.coordinator.booted import encode_config
from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.handover import SCRIPT_NAME, Secrets, script_command
from runner.pools import Pool
from runner.rpc.security import new_token
from tests.integration.helpers import wait_until

pytestmark = pytest.mark.timeout(60)

CLUSTER = "b00ted"
LOST_S = 4.0
# To notice, to end the machines, to exit; on a busy host.
END_S = LOST_S + 8.0


class Machine:
    """A machine whose main process is a coordinator."""

    def __init__(self, home: Path, *, lost_s: float = LOST_S, private_ip: str = "", **more: Any) -> None:
        self.home = home
        self.config = CoordinatorConfig(
            home=str(home),
            cluster_id=CLUSTER,
            embedded=False,
            pools=(Pool(min=1, num_cpus=1),),
            client_lost_after_s=lost_s,
            ends_alone=True,
            **more,
        )
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RUNNER_") or "TEST" in key}
        self.environment = {**kept, "RUNNER_COORDINATOR": encode_config(self.config), "RUNNER_LOG_LEVEL": "info"}
        if private_ip:
            self.environment["FLY_PRIVATE_IP"] = private_ip
        self.log = home.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "runner.coordinator"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def hand_over(self, secrets: Secrets) -> subprocess.CompletedProcess[str]:
        """As the provider's exec does it: no environment, the secrets on standard input."""
        wait_until((self.home / SCRIPT_NAME).exists, 20.0, "the script that hands over")
        command = script_command(str(self.home))
        return subprocess.run(
            command, input=secrets.to_json(), env={}, capture_output=True, text=True, timeout=50, check=False
        )

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "machine")
    yield machine
    machine.close()


def told(answer: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.long
def test_it_serves_with_the_secrets_and_ends_when_its_client_is_gone(machine):
    secrets = Secrets(new_token())
    access = told(machine.hand_over(secrets))
    assert access["cluster_id"] == CLUSTER
    assert secrets.token not in json.dumps(access)

    with runner.init(access["address"], token=secrets.token, ca=access["ca_pem"].encode()):
        assert runner.get(runner.remote(abs).remote(-3)) == 3
    # A lost answer is asked for again.
    assert told(machine.hand_over(secrets)) == access
    took_s = wait_until(lambda: machine.process.poll() is not None, END_S, "the end of the coordinator")
    assert machine.process.returncode == 0
    assert took_s > LOST_S / 2
    assert "no client and no detached work" in (machine.home / "clusters" / CLUSTER / "coordinator.log").read_text()


@pytest.mark.long
def test_a_client_that_is_killed_counts_as_gone(machine):
    secrets = Secrets(new_token())
    access = told(machine.hand_over(secrets))
    script = """
        import runner, sys, time
        runner.init(sys.argv[1], token=sys.argv[2], ca=sys.argv[3].encode())
        runner.remote(time.sleep).remote(3600)
        print("in", flush=True)
        time.sleep(3600)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), access["address"], secrets.token, access["ca_pem"]]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"in\n"
        client.send_signal(signal.SIGKILL)
        client.wait()

    wait_until(lambda: machine.process.poll() is not None, END_S, "the end of the coordinator")
    assert machine.process.returncode == 0


@pytest.mark.long
def test_detached_work_keeps_it(machine):
    secrets = Secrets(new_token())
    access = told(machine.hand_over(secrets))
    flag = machine.home.with_name("go-on")
    with runner.init(access["address"], token=secrets.token, ca=access["ca_pem"].encode()):
        runner.remote(_wait_for).options(name="detached", lifetime="detached").remote(str(flag))

    with pytest.raises(subprocess.TimeoutExpired):
        machine.process.wait(LOST_S + 3.0)
    flag.touch()
    wait_until(lambda: machine.process.poll() is not None, END_S, "the end of the coordinator")
    assert machine.process.returncode == 0


def _wait_for(path: str) -> None:
    import os
    import time

    while not os.path.exists(path):
        time.sleep(0.05)


def test_it_listens_for_the_private_network_and_for_the_proxy(tmp_path):
    """Machines come over IPv6 to the address that Fly tells; Fly's proxy comes over IPv4."""
    machine = Machine(tmp_path / "machine", host="::", private_ip="::1")
    try:
        secrets = Secrets(new_token())
        access = told(machine.hand_over(secrets))
        port = access["address"].rpartition(":")[2]
        assert access["address"] == f"[::1]:{port}"
        for address in (access["address"], f"127.0.0.1:{port}"):
            with runner.init(address, token=secrets.token, ca=access["ca_pem"].encode()):
                assert runner.get(runner.remote(abs).remote(-3)) == 3
    finally:
        machine.close()


def test_another_token_is_refused_when_it_has_started(machine):
    told(machine.hand_over(Secrets(new_token())))

    answer = machine.hand_over(Secrets("another-token"))

    assert answer.returncode == 1
    assert "another token" in answer.stderr
    assert answer.stdout == ""


def test_without_secrets_it_ends_and_says_why(tmp_path):
    machine = Machine(tmp_path / "machine", lost_s=1.0)
    try:
        assert machine.process.wait(20) == 1
        assert "nobody handed over its secrets within 1 s" in machine.log.read_text()
        assert not (machine.home / "clusters").exists()
    finally:
        machine.close()


def test_a_start_that_fails_is_told_to_who_handed_over(tmp_path):
    machine = Machine(tmp_path / "machine", host="192.0.2.1")
    try:
        answer = machine.hand_over(Secrets(new_token()))
        assert answer.returncode == 1
        assert "192.0.2.1" in answer.stderr
        assert machine.process.wait(20) == 1
    finally:
        machine.close()


def test_a_task_boots_no_cluster_of_its_own():
    script = "import runner; runner.init(machines=1)"

    def nested() -> tuple[int, str]:
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        return ended.returncode, ended.stderr

    with runner.init(machines=1, num_cpus=1):
        status, stderr = runner.get(runner.remote(nested).remote())

    assert status == 1
    assert "boot no machines of their own" in stderr
