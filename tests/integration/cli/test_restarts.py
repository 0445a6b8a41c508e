"""A standing cluster that goes down, or is killed, in the middle of work, and is taken up again."""

from __future__ import annotations

import itertools
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import runner
from runner.client import context
from runner.client.streams import client_transport
from runner.rpc.clusters import read_cluster
from runner.rpc.gen import client_pb2

pytestmark = pytest.mark.timeout(120)

# The first attempt never gets past epoch 1, and may not be tried again: only one that is not charged ends the run.
JOB = """
import sys
import threading
import runner

@runner.remote(max_retries=0, num_cpus=2)
def fit(small, large):
    for epoch in range((runner.get_checkpoint() or {"next": 0})["next"], 4):
        runner.report({"loss": 1.0 / (epoch + 1)}, step=epoch, checkpoint={"next": epoch + 1})
        if epoch == 1:
            threading.Event().wait()
    return sum(small) + len(large)

@runner.remote(max_retries=0, num_cpus=2)
def after(small, large):
    return sum(small) - len(large)

with runner.init(sys.argv[1]):
    small, large = runner.put([1, 2, 3]), runner.put(b"x" * 2_000_000)
    run = fit.options(name="fit").remote(small, large)
    queued = after.remote(small, large)
    for event in runner.stream([run]):
        if event.kind in ("metrics", "checkpoint"):
            print(event.kind, event.step, flush=True)
    print(runner.get([run, queued]), flush=True)
"""


@pytest.mark.parametrize("end", ["down", "kill"])
def test_work_goes_on_when_its_cluster_is_taken_up_again(run, environment, tmp_path, end):
    up = json.loads(run("up", "--machines", "1", "--cpus", "2", "--port", "0", "--json").stdout)
    script = tmp_path / "job.py"
    script.write_text(JOB)
    more = {**environment, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, script, up["address"]]
    try:
        with subprocess.Popen(command, env=more, stdout=subprocess.PIPE, text=True) as job:
            assert job.stdout is not None
            shown = [job.stdout.readline() for _ in range(4)]
            if end == "down":
                assert run("down").returncode == 0
            else:
                info = read_cluster(Path(up["state_dir"]))
                assert info is not None
                os.kill(up["pid"], signal.SIGKILL)
                assert info.wait_gone(10.0)
            again = run("up", "--cluster", up["cluster_id"], "--json")
            assert again.returncode == 0, again.stderr
            assert json.loads(again.stdout)["address"] == up["address"], "clients find it where it was"
            *rest, results = job.stdout.readlines()
        assert job.returncode == 0
    finally:
        run("down", "--all", "--force")
    shown += rest
    for kind in ("metrics", "checkpoint"):
        assert [line.split()[1] for line in shown if line.startswith(kind)] == ["0", "1", "2", "3"], shown
    assert results == "[2000006, -1999994]\n"


@pytest.mark.long
def test_what_a_cluster_was_started_with_is_kept_unless_something_else_is_said(run, cluster):
    kept = Path(cluster["state_dir"]) / "settings.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert Path(cluster["token_file"]).read_text().strip() not in kept.read_text()
    assert run("down").returncode == 0
    again = run("up", "--cluster", cluster["cluster_id"], "--json")
    assert json.loads(again.stdout)["address"] == cluster["address"]
    machines = json.loads(run("machines", "--json").stdout)
    # Those of the former start may be on their way out.
    assert len([each for each in machines if each["state"] in ("creating", "booting", "ready")]) == 2
    assert run("down").returncode == 0

    other = run("up", "--cluster", cluster["cluster_id"], "--machines", "1", "--cpus", "3")
    assert "(1 machine of 3 CPU)" in other.stdout, other.stderr
    stored = json.loads(kept.read_text())
    assert [(pool["min"], pool["num_cpus"]) for pool in stored["pools"]] == [(1, 3)]
    assert f"127.0.0.1:{stored['port']}" == cluster["address"]


def test_what_was_left_open_at_the_start_stays_open(run):
    up = json.loads(run("up", "--machines", "1", "--port", "0", "--json").stdout)
    assert run("down").returncode == 0
    [pool] = json.loads((Path(up["state_dir"]) / "settings.json").read_text())["pools"]
    assert pool["num_cpus"] is None, "the share of this computer is another one for more machines"


def test_streams_of_a_standing_cluster_do_not_tell_what_machines_did_before(cluster, home, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNNER_HOME", str(home))
    with runner.init(cluster["address"], log_to_driver=False):
        gate = tmp_path / "gate"
        os.mkfifo(gate)
        ref = runner.remote(lambda: gate.read_bytes()).options(name="waits").remote()
        transport = client_transport(context.current_session())
        with runner.stream([ref], kinds="machine") as events:
            request = client_pb2.AddMachinesRequest(count=1)
            (added,) = transport.request("AddMachines", request, client_pb2.AddMachinesReply).machine_ids
            earlier = list(itertools.takewhile(lambda event: event.machine_id != added, events))
        assert "creating" not in [event.state for event in earlier]
        gate.write_bytes(b"")
        runner.get(ref)
