"""`runs` and `logs` over real event logs, without a coordinator."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import msgpack
import pytest

from runner.coordinator.event_log import EventLog
from runner.rpc.gen import client_pb2, types_pb2


class Writer:
    """Writes a cluster's event log as the coordinator does."""

    def __init__(self, home, cluster_id: str) -> None:
        state_dir = home / "clusters" / cluster_id
        state_dir.mkdir(parents=True)
        self.path = state_dir / "events.db"
        self.log = EventLog(self.path)
        self.time_s = 1_700_000_000.0

    def add(self, kind: Any, task_id: str, name: str, *, is_run: bool = True, **fields) -> None:
        self.time_s += 1.0
        event = client_pb2.Event(kind=kind, task_id=task_id, name=name, time_s=self.time_s, **fields)
        self.log.append(event, "client-1", is_run=is_run)

    def state(self, task_id: str, name: str, state: str, **fields) -> None:
        self.add(client_pb2.EVENT_KIND_STATE, task_id, name, state=state, **fields)

    def metrics(self, task_id: str, name: str, step: int, values: dict, attempt: int = 1) -> None:
        packed = msgpack.packb(values)
        self.add(client_pb2.EVENT_KIND_METRICS, task_id, name, step=step, values=packed, attempt=attempt)

    def line(self, task_id: str, name: str, text: str, stream: str = "stdout", attempt: int = 1) -> None:
        self.add(client_pb2.EVENT_KIND_LOG, task_id, name, text=text, stream=stream, attempt=attempt)

    def close(self) -> None:
        self.log.flush()
        self.log.close()


@pytest.fixture
def local_time(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def two_runs(home, local_time):
    writer = Writer(home, "c1")
    writer.state("t-1", "lr=1e-5", "queued")
    writer.state("t-1", "lr=1e-5", "running", attempt=1, machine_id="m-1")
    writer.add(client_pb2.EVENT_KIND_ATTEMPT, "t-1", "lr=1e-5", attempt=1, step=-1)
    writer.line("t-1", "lr=1e-5", "epoch 0")
    writer.metrics("t-1", "lr=1e-5", 0, {"loss": 0.5, "accuracy": 0.71234567})
    writer.add(client_pb2.EVENT_KIND_CHECKPOINT, "t-1", "lr=1e-5", attempt=1, step=0)
    writer.add(client_pb2.EVENT_KIND_ATTEMPT, "t-1", "lr=1e-5", attempt=2, step=0)
    writer.line("t-1", "lr=1e-5", "a warning", stream="stderr", attempt=2)
    writer.add(client_pb2.EVENT_KIND_LOG_GAP, "t-1", "lr=1e-5", attempt=2, lines_dropped=12)
    writer.metrics("t-1", "lr=1e-5", 1, {"loss": 0.25, "best": True}, attempt=2)
    writer.line("t-1", "lr=1e-5", "done", attempt=2)
    writer.state("t-1", "lr=1e-5", "succeeded", attempt=2, machine_id="m-2")
    writer.state("t-2", "bad [x]", "running", attempt=1, machine_id="m-1")
    failure = types_pb2.Failure(
        message="ValueError: no", traceback="Traceback …\nValueError: no\n", history=["attempt 1 on m-1: SIGKILL"]
    )
    writer.state("t-2", "bad [x]", "failed", attempt=1, machine_id="m-1", failure=failure)
    # Neither plain tasks nor machines are runs.
    writer.add(client_pb2.EVENT_KIND_METRICS, "t-3", "", is_run=False, step=0)
    writer.add(client_pb2.EVENT_KIND_MACHINE, "", "", machine_id="m-1", state="ready")
    writer.close()
    return writer


def test_no_runs_is_said_on_stderr(run, home):
    result = run("runs")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no runs in" in result.stderr
    assert json.loads(run("runs", "--json").stdout) == []


def test_list(run, two_runs):
    for args in (["runs"], ["runs", "list"]):
        result = run(*args)
        assert result.exit_code == 0
        assert result.stdout.splitlines() == [
            "RUN      STATE      STARTED               TOOK  ATTEMPT  STEP  LAST METRICS         CLUSTER  TASK",
            "bad [x]  failed     2023-11-14 22:13:33  1.0 s        1                             c1       t-2",
            "lr=1e-5  succeeded  2023-11-14 22:13:21   11 s        2     1  loss=0.25 best=True  c1       t-1",
        ]


def test_list_json_has_stable_keys(run, two_runs):
    failed, good = json.loads(run("runs", "--json").stdout)
    assert list(good) == [
        "name", "task_id", "cluster_id", "state_dir", "state", "attempt", "machine_id", "started_s", "ended_s", "step",
        "values", "failure",
    ]  # fmt: skip
    assert (good["name"], good["state"], good["values"]) == ("lr=1e-5", "succeeded", {"loss": 0.25, "best": True})
    assert (failed["failure"], failed["step"]) == ("ValueError: no", None)


def test_show(run, two_runs):
    result = run("runs", "show", "lr=1e-5")
    assert result.stdout.splitlines() == [
        "run       lr=1e-5 (t-1) in cluster c1",
        "state     succeeded, attempt 2 on m-2",
        "started   2023-11-14 22:13:21",
        "ended     2023-11-14 22:13:32, after 11 s",
        "attempt   2 went on from step 0",
        "saved     checkpoint of step 0",
        "log       3 lines: runner logs t-1",
        "",
        "STEP  ATTEMPT  loss  accuracy  best",
        "   0        1   0.5  0.712346",
        "   1        2  0.25            True",
    ]


def test_show_tells_a_failure_whole(run, two_runs):
    shown = run("runs", "show", "t-2").stdout.splitlines()
    assert shown[4:] == [
        "log       0 lines: runner logs t-2",
        "before    attempt 1 on m-1: SIGKILL",
        "failure   ValueError: no",
        "Traceback …",
        "ValueError: no",
    ]
    details = json.loads(run("runs", "show", "t-2", "--json").stdout)
    assert details["history"] == ["attempt 1 on m-1: SIGKILL"]
    assert [state["state"] for state in details["states"]] == ["running", "failed"]


def test_an_unknown_run_lists_the_known(run, two_runs, home):
    result = run("runs", "show", "nope")
    assert result.exit_code == 1
    assert result.stderr == f"error: no run named 'nope' in {home}/clusters; the newest runs are: bad [x], lr=1e-5\n"


def test_the_newest_of_equal_names_is_shown(run, two_runs, home):
    writer = Writer(home, "c2")
    writer.time_s += 1000
    writer.state("t-9", "lr=1e-5", "running", attempt=1)
    writer.close()
    result = run("runs", "show", "lr=1e-5")
    assert "(t-9)" in result.stdout
    assert result.stderr == "2 runs have this name; this is the newest, t-9; earlier ones: t-1\n"


def test_logs(run, two_runs):
    result = run("logs", "lr=1e-5")
    assert result.stdout == "epoch 0\na warning\ndone\n"
    assert result.stderr == "--- attempt 2 ---\n… 12 lines not kept …\n"
    assert run("logs", "lr=1e-5", "--stream", "stderr").stdout == "a warning\n"
    assert run("logs", "lr=1e-5", "--tail", "1").stdout == "done\n"
    assert run("logs", "lr=1e-5", "-n", "0").stdout == ""
    assert run("logs", "t-1", "-f").stdout == "epoch 0\na warning\ndone\n"


def test_following_a_run_whose_coordinator_is_gone_ends(run, home):
    writer = Writer(home, "c1")
    writer.state("t-1", "a", "running", attempt=1)
    writer.line("t-1", "a", "hello")
    writer.close()
    result = run("logs", "a", "-f")
    assert result.stdout == "hello\n"
    assert result.stderr == "the coordinator of cluster c1 does not run: nothing more comes for now\n"


def test_more_events_than_a_page(run, home):
    writer = Writer(home, "c1")
    writer.state("t-1", "a", "running", attempt=1)
    for n in range(2500):
        writer.line("t-1", "a", str(n))
    writer.close()
    assert run("logs", "a").stdout == "".join(f"{n}\n" for n in range(2500))


def test_a_log_in_use_and_a_read_only_copy_are_readable(run, home):
    writer = Writer(home, "c1")
    writer.state("t-1", "a", "running", attempt=1)
    writer.log.flush()
    assert [each["name"] for each in json.loads(run("runs", "--json").stdout)] == ["a"]
    writer.close()
    os.chmod(writer.path.parent, 0o500)
    os.chmod(writer.path, 0o400)
    assert [each["name"] for each in json.loads(run("runs", "--json").stdout)] == ["a"]
    os.chmod(writer.path.parent, 0o700)


def test_a_damaged_log_is_one_clear_line(run, home):
    (home / "clusters" / "c1").mkdir(parents=True)
    (home / "clusters" / "c1" / "events.db").write_bytes(b"junk" * 1000)
    result = run("runs")
    assert result.exit_code == 1
    assert result.stderr == f"error: {home}/clusters/c1/events.db cannot be read: file is not a database\n"
    (home / "clusters" / "c1" / "events.db").write_bytes(b"")
    assert run("runs").exit_code == 0
