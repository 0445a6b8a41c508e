"""`runner up`, `status`, `machines`, `down` for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runner.rpc.clusters import read_cluster

pytestmark = pytest.mark.timeout(90)


def test_up_status_machines_down(run, cluster, home):
    state_dir = Path(cluster["state_dir"])
    assert state_dir == home / "clusters" / cluster["cluster_id"]
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(cluster["token_file"]).stat().st_mode) == 0o600
    info = read_cluster(state_dir)
    assert info is not None
    assert (info.pid, info.address, info.embedded) == (cluster["pid"], cluster["address"], False)

    status = run("status", "--json")
    assert status.returncode == 0, status.stderr
    shown = json.loads(status.stdout)
    assert shown["cluster_id"] == cluster["cluster_id"]
    assert shown["address"] == cluster["address"]
    assert shown["pid"] == cluster["pid"]
    assert shown["pending"] == []
    text = run("status")
    assert text.stdout.startswith(f"cluster   {cluster['cluster_id']} at {cluster['address']} (standing)\n")
    assert text.stderr == ""

    machines = json.loads(run("machines", "--json").stdout)
    assert len(machines) == 2
    assert {machine["provider"] for machine in machines} == {"local"}

    down = run("down")
    assert (down.returncode, down.stderr) == (0, "")
    assert down.stdout == f"cluster {cluster['cluster_id']} at {cluster['address']} has stopped\n"
    assert not info.is_running()
    gone = run("status")
    assert gone.returncode == 1
    assert "no standing cluster runs on this host" in gone.stderr


def test_a_connection_by_environment_alone(run, cluster, tmp_path):
    given = {"RUNNER_ADDRESS": cluster["address"], "RUNNER_HOME": str(tmp_path / "other")}
    right = {"RUNNER_TOKEN_FILE": cluster["token_file"], "RUNNER_CA": cluster["ca_file"]}
    assert json.loads(run("status", "--json", **given, **right).stdout)["cluster_id"] == cluster["cluster_id"]

    unknown = run("status", **given)
    assert unknown.returncode == 1
    assert "RUNNER_TOKEN_FILE and RUNNER_CA" in unknown.stderr

    wrong = run("status", **given, RUNNER_TOKEN="wrong", RUNNER_CA=cluster["ca_file"])
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: the token is not this cluster's")


def test_a_port_in_use_is_one_clear_line_and_leaves_nothing(run, home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = run("up", "--port", str(port))
    assert up.returncode == 1
    assert up.stdout == ""
    assert len(up.stderr.splitlines()) == 1
    assert up.stderr.startswith("error: ")
    assert str(port) in up.stderr
    assert list((home / "clusters").iterdir()) == []


def test_two_clusters_must_be_told_apart(run, cluster):
    other = json.loads(run("up", "--machines", "0", "--port", "0", "--json").stdout)
    for command in ("status", "down"):
        unclear = run(command)
        assert unclear.returncode == 1
        assert cluster["address"] in unclear.stderr
        assert other["address"] in unclear.stderr
    assert (
        json.loads(run("status", "--json", "--address", other["address"]).stdout)["cluster_id"] == other["cluster_id"]
    )
    assert run("down", "--address", other["address"]).returncode == 0
    assert json.loads(run("status", "--json").stdout)["cluster_id"] == cluster["cluster_id"]


def test_a_stopped_cluster_is_taken_up_again_with_its_token(run, cluster):
    token = Path(cluster["token_file"]).read_bytes()
    busy = run("up", "--cluster", cluster["cluster_id"], "--port", "0")
    assert busy.returncode == 1
    assert "running already" in busy.stderr
    assert run("down").returncode == 0
    again = run("up", "--cluster", cluster["cluster_id"], "--machines", "0", "--port", "0", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["cluster_id"] == cluster["cluster_id"]
    assert Path(cluster["token_file"]).read_bytes() == token


def test_a_killed_coordinator_is_not_found_and_not_signalled(run):
    # Without machines: they would end with their lease, long after this test.
    up = json.loads(run("up", "--machines", "0", "--port", "0", "--json").stdout)
    info = read_cluster(Path(up["state_dir"]))
    assert info is not None
    os.kill(up["pid"], signal.SIGKILL)
    assert info.wait_gone(10.0)
    down = run("down")
    assert down.returncode == 0
    assert "no standing cluster runs" in down.stderr
    shutil.rmtree(f"/dev/shm/runner-{up['cluster_id']}")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_foreground_stays_until_it_is_told_to_stop(environment, signum):
    command = [sys.executable, "-m", "runner.cli", "up", "--foreground", "--machines", "1", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert " serves at 127.0.0.1:" in first
        for line in process.stdout:
            if line.startswith("stop:"):
                break
        process.send_signal(signum)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert err == f"cluster {first.split()[1]} has stopped\n"


def test_foreground_told_to_stop_before_it_serves_leaves_nothing(environment, home):
    command = [sys.executable, "-m", "runner.cli", "up", "--foreground", "--machines", "1", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        # The state directory is made just before the coordinator is started.
        while not list(home.glob("clusters/*")):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert " serves at " in out
    assert err.endswith(" has stopped\n")


def test_a_cluster_elsewhere_is_stopped_by_a_call(run, cluster, tmp_path):
    info = read_cluster(Path(cluster["state_dir"]))
    assert info is not None
    down = run(
        "down",
        RUNNER_ADDRESS=cluster["address"],
        RUNNER_HOME=str(tmp_path / "other"),
        RUNNER_TOKEN_FILE=cluster["token_file"],
        RUNNER_CA=cluster["ca_file"],
    )
    assert (down.returncode, down.stdout) == (0, f"the cluster at {cluster['address']} is stopping\n"), down.stderr
    assert info.wait_gone(15.0)
