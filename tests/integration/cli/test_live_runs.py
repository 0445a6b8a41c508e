"""What `status`, `runs` and `logs` tell while work runs, and after its cluster is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(90)

# A gate is a FIFO: the task goes on when the test has opened and closed it.
JOB = """
import sys
import runner

@runner.remote
def work(gate):
    print("epoch 0", flush=True)
    runner.report({"loss": 0.5}, step=0)
    open(gate).read()
    print("epoch 1", flush=True)
    runner.report({"loss": 0.25}, step=1)

with runner.init(sys.argv[1]):
    runner.get([work.options(name=f"job-{n}").remote(gate) for n, gate in enumerate(sys.argv[2:])])
"""


def test_runs_can_be_watched_and_read_afterwards(run, cluster, environment, tmp_path):
    gates = [tmp_path / f"gate-{n}" for n in range(3)]
    for gate in gates:
        os.mkfifo(gate)
    script = tmp_path / "job.py"
    script.write_text(JOB)
    more = {**environment, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, script, cluster["address"], *gates]
    with subprocess.Popen(command, env=more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as job:
        assert job.stdout is not None
        started = {job.stdout.readline(), job.stdout.readline()}
        assert started == {"(job-0) epoch 0\n", "(job-1) epoch 0\n"}

        (pending,) = json.loads(run("status", "--json").stdout)["pending"]
        assert (pending["name"], pending["state"]) == ("job-2", "queued")
        assert "CPU" in pending["why_waiting"]
        states = {each["name"]: each["state"] for each in json.loads(run("runs", "--json").stdout)}
        assert states == {"job-0": "running", "job-1": "running", "job-2": "queued"}

        follow = [sys.executable, "-m", "runner.cli", "logs", "job-0", "--follow"]
        with subprocess.Popen(follow, env=environment, stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            assert following.stdout.readline() == "epoch 0\n"
            for gate in gates:
                gate.open("w").close()
            assert following.stdout.read() == "epoch 1\n"
        assert following.returncode == 0
        job.stdout.read()
    assert job.returncode == 0

    assert run("down").returncode == 0
    shown = json.loads(run("runs", "show", "job-2", "--json").stdout)
    assert (shown["state"], shown["values"], shown["log_lines"]) == ("succeeded", {"loss": 0.25}, 2)
    assert [entry["values"]["loss"] for entry in shown["metrics"]] == [0.5, 0.25]
    assert run("logs", "job-1").stdout == "epoch 0\nepoch 1\n"
