"""Machines that sleep for real: their memory is in a file, QEMU is gone, and they go on from there."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import runner
from runner import config
from runner.client import context
from runner.ids import ClusterId
from runner.providers.process_tag import find_tagged
from runner.rpc.clusters import read_cluster
from tests.integration.helpers import wait_until
from tests.qemu.conftest import IMAGE, MEMORY
from tests.qemu.guest_code import Keeper, where, work

pytestmark = pytest.mark.timeout(300)

LIMIT_S = 90.0
# Sleeps with work in between; 100 in `make soak`.
CYCLES = int(os.environ.get("RUNNER_SLEEPS", "6"))


def cluster_id() -> ClusterId:
    return ClusterId(context.current_session().info.cluster_id)


def snapshots() -> list[Path]:
    return [each for each in config.load().clusters_dir.glob(f"{cluster_id()}/qemu/*/*") if "snapshot" in each.name]


def test_a_guest_goes_on_where_it_was_and_knows_what_time_it_is(start: Callable[..., Any]) -> None:
    with start() as cluster:
        before = runner.get(where.remote(), timeout=LIMIT_S)
        keeper = runner.remote(Keeper).remote()
        assert runner.get(keeper.keep.remote(1), timeout=LIMIT_S) == [1]
        cluster.suspend(timeout=LIMIT_S)
        (node,) = runner.nodes()
        assert node.state == "suspended"
        assert len(snapshots()) == 1
        assert not find_tagged(cluster_id()), "no QEMU is left: CPU and memory are free"
        asleep_since_s = time.monotonic()
        wait_until(lambda: time.monotonic() - asleep_since_s > 3.0, 10, "its clock to fall behind")
        cluster.resume(timeout=LIMIT_S)
        (node,) = runner.nodes()
        assert (node.state, node.generation, node.wake) == ("ready", 2, "resumed")
        assert snapshots() == [], "a snapshot is used once"
        after = runner.get(where.remote(), timeout=LIMIT_S)
        assert (after["boot_id"], after["pid"]) == (before["boot_id"], before["pid"])
        assert abs(after["unix_s"] - time.time()) < 1.5, "its clock was set"
        assert runner.get(keeper.keep.remote(2), timeout=LIMIT_S) == [1, 2]
        [(kind, slept_s, behind_s)] = runner.get(keeper.all_told.remote(), timeout=LIMIT_S)
        assert (kind, behind_s) == ("resumed", 0.0)
        assert 3.0 < slept_s < 60.0


def test_sleeps_with_work_in_between_lose_and_double_nothing(start: Callable[..., Any]) -> None:
    with start() as cluster:
        runs: list[Any] = []
        cluster.wait_for_state("m-1", "ready", timeout=LIMIT_S)
        for cycle in range(CYCLES):
            runs.append(work.options(name=f"w-{cycle}").remote(cycle))
            cluster.suspend(timeout=LIMIT_S)
            runs.append(work.options(name=f"w-{cycle + CYCLES}").remote(cycle + CYCLES))
            cluster.wait_for_state("m-1", "ready", timeout=LIMIT_S)  # work that waits wakes it
        assert sorted(runner.get(runs, timeout=LIMIT_S)) == list(range(2 * CYCLES))
        assert runner.nodes()[0].generation == CYCLES + 1
        events = list(runner.stream(runs, kinds=("metrics", "log")))
        values = Counter(event.values["value"] for event in events if event.kind == "metrics")
        assert values == dict.fromkeys(range(2 * CYCLES), 1)
        lines = Counter(event.text for event in events if event.kind == "log")
        assert lines == {f"line {cycle}.{i}": 1 for cycle in range(2 * CYCLES) for i in range(2)}
        assert snapshots() == []


def test_a_snapshot_that_was_cut_off_means_a_cold_start_that_says_so(start: Callable[..., Any]) -> None:
    with start() as cluster:
        before = runner.get(where.remote(), timeout=LIMIT_S)
        cluster.suspend(timeout=LIMIT_S)
        (snapshot,) = snapshots()
        os.truncate(snapshot, snapshot.stat().st_size // 2)
        cluster.resume(timeout=LIMIT_S)
        (node,) = runner.nodes()
        assert node.wake == "cold"
        after = runner.get(where.remote(), timeout=LIMIT_S)
        assert after["boot_id"] != before["boot_id"]


def test_guests_that_sleep_wake_all_at_once(start: Callable[..., Any]) -> None:
    with start(3, num_cpus=1) as cluster:
        wait_until(lambda: [each.state for each in runner.nodes()] == ["ready"] * 3, LIMIT_S, "three guests")
        cluster.suspend(timeout=LIMIT_S)
        cluster.resume(timeout=LIMIT_S)
        assert [(each.state, each.wake) for each in runner.nodes()] == [("ready", "resumed")] * 3
        found = runner.get([where.remote() for _ in range(6)], timeout=LIMIT_S)
        assert len({each["boot_id"] for each in found}) <= 3


def test_a_guest_sleeps_through_the_end_of_its_coordinator(
    run: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, and taken up again: the memory is the one from before."""
    monkeypatch.setenv("RUNNER_HOME", str(home))
    up = run(
        "up",
        "--provider",
        "qemu",
        "--provider-option",
        f"image={IMAGE}",
        "--provider-option",
        f"default_memory={MEMORY}",
        "--machines",
        "1",
        "--cpus",
        "1",
        "--port",
        "0",
        "--json",
    )
    assert up.returncode == 0, up.stderr
    said = json.loads(up.stdout)
    try:
        with runner.init(said["address"], log_to_driver=False):
            before = runner.get(where.remote(), timeout=LIMIT_S)
        assert run("machines", "suspend", "--all", "--timeout", "60").returncode == 0
        info = read_cluster(Path(said["state_dir"]))
        assert info is not None
        os.kill(said["pid"], signal.SIGKILL)
        assert info.wait_gone(10.0)
        again = run("up", "--cluster", said["cluster_id"], "--json")
        assert again.returncode == 0, again.stderr
        with runner.init(said["address"], log_to_driver=False):
            after = runner.get(where.remote(), timeout=LIMIT_S)
        assert after["boot_id"] == before["boot_id"]
        assert after["pid"] != before["pid"], "sessions of executors end with their coordinator"
    finally:
        run("down", "--all", "--force")
