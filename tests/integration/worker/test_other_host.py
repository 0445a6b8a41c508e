"""Machines that share no files with their coordinator: whatever is large moves, and nothing else changes."""

from __future__ import annotations

import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runner
from runner.errors import StoreFullError, TaskCancelledError
from tests.integration.helpers import wait_until

pytestmark = pytest.mark.timeout(60)

SHM = Path("/dev/shm")
MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two machines of two CPUs, each a host of its own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RUNNER_HOME", str(tmp_path_factory.mktemp("home")))
    with runner.init(machines=2, num_cpus=2, provider_options={"apart": True}, log_to_driver=False) as session:
        yield session
    patch.undo()


@pytest.fixture
def on_both(tmp_path: Path) -> Any:
    """Run a function with arguments on both machines at the same time; what it returned by machine."""

    def run(function: Any, *args: Any) -> dict[str, Any]:
        def together(number: int, folder: str, *args: Any) -> tuple[str, Any]:
            (Path(folder) / str(number)).touch()
            limit_s = time.monotonic() + 30
            while len(os.listdir(folder)) < 4 and time.monotonic() < limit_s:  # all four CPUs: two on each machine
                time.sleep(0.01)
            return runner.get_runtime_context().machine_id, function(*args)

        folder = tmp_path / "together"
        folder.mkdir()
        task = runner.remote(together)
        done = runner.get([task.remote(number, str(folder), *args) for number in range(4)], timeout=40)
        folder.rename(tmp_path / f"done-{time.monotonic_ns()}")
        return dict(done)

    return run


def seen_folders() -> set[str]:
    """The folders of shared memory from which this process has mapped anything of runner's."""
    with open("/proc/self/maps", encoding="ascii") as file:
        paths = [line.split(maxsplit=5)[5].strip() for line in file if "/dev/shm/runner-" in line]
    return {os.path.dirname(path) for path in paths}


def describe(array: Any) -> tuple[int, set[str]]:
    return int(array.sum()), seen_folders()


def make(count: int) -> Any:
    return np.arange(count)


def copies(cluster: Any, object_id: str) -> list[str]:
    """The machines' stores in which this value lies."""
    return sorted(str(path.parent) for path in SHM.glob(f"runner-{cluster.cluster_id}-m-*/store/{object_id}-*"))


def originals(cluster: Any) -> list[str]:
    """What lies in the coordinator's store."""
    return [name for name in os.listdir(SHM / f"runner-{cluster.cluster_id}") if not name.startswith(".")]


def stores(cluster: Any) -> list[str]:
    return [str(SHM / f"runner-{cluster.cluster_id}-{machine}" / "store") for machine in ("m-1", "m-2")]


def test_a_large_result_comes_back(cluster: Any) -> None:
    assert int(runner.get(runner.remote(make).remote(500_000), timeout=30).sum()) == 500_000 * 499_999 // 2


def test_several_large_results_of_one_task_each_arrive(cluster: Any) -> None:
    def two() -> tuple[Any, Any]:
        return np.zeros(100_000), np.ones(200_000)

    first, second = runner.get(runner.remote(two).options(num_returns=2).remote(), timeout=30)
    assert (first.sum(), second.sum()) == (0.0, 200_000.0)


@pytest.mark.parametrize("way", ["argument", "nested argument", "put", "result"])
def test_every_machine_reads_a_large_value_from_a_copy_of_its_own(cluster: Any, on_both: Any, way: str) -> None:
    array = np.arange(300_000)
    ref = runner.put(array) if way == "put" else runner.remote(make).remote(300_000) if way == "result" else None
    if way == "nested argument":
        seen = on_both(lambda held: describe(runner.get(held[0])), [runner.put(array)])
    else:
        seen = on_both(describe, array if ref is None else ref)
    assert sorted(seen) == ["m-1", "m-2"]
    for machine, (total, folders) in seen.items():
        assert total == int(array.sum())
        # Nothing is read through the file system that coordinator and machines happen to share here.
        assert folders == {str(SHM / f"runner-{cluster.cluster_id}-{machine}" / "store")}


def test_what_a_task_puts_is_read_on_other_machines_and_by_the_client(cluster: Any, on_both: Any) -> None:
    def put() -> list[Any]:
        return [runner.put(np.arange(250_000))]

    [ref] = runner.get(runner.remote(put).remote(), timeout=30)
    seen = on_both(describe, ref)
    assert {total for total, _ in seen.values()} == {250_000 * 249_999 // 2}
    assert len(seen) == 2
    assert int(runner.get(ref, timeout=30).sum()) == 250_000 * 249_999 // 2


def test_a_task_passes_large_values_to_its_children(cluster: Any) -> None:
    def parent() -> int:
        child = runner.remote(lambda array, other: int(array.sum() + other.sum()))
        return runner.get(child.remote(np.ones(100_000), runner.put(np.ones(50_000))))

    assert runner.get(runner.remote(parent).options(num_cpus=0.5).remote(), timeout=30) == 150_000


def test_one_copy_a_machine_whoever_reads_it_and_none_when_nobody_can(cluster: Any, on_both: Any) -> None:
    ref = runner.put(np.arange(400_000))
    on_both(describe, ref)
    on_both(describe, ref)
    assert copies(cluster, ref.id) == stores(cluster)
    object_id = ref.id
    del ref
    wait_until(lambda: not copies(cluster, object_id), 10, "the copies to go with the value")
    assert not [name for name in originals(cluster) if name.startswith(object_id)]


def test_a_function_with_a_large_array_in_it_runs(cluster: Any, on_both: Any) -> None:
    weights = np.ones(1_000_000)
    assert set(on_both(lambda: float(weights.sum())).values()) == {1_000_000.0}


# ---- checkpoints ----
def artefacts(cluster: Any, task_id: str) -> list[Path]:
    folder = Path(cluster.state_dir) / "artefacts" / task_id
    return sorted(folder.iterdir()) if folder.is_dir() else []


def task_of(ref: Any) -> str:
    return str(ref.id.rpartition(".")[0])


def local_checkpoints(cluster: Any) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"runner-{cluster.cluster_id}-m-*/artefacts/*"))


def test_the_last_checkpoint_is_at_the_coordinator_when_the_run_is_over(cluster: Any) -> None:
    def train() -> str:
        for step in range(3):
            runner.report({"at": step}, step=step, checkpoint=np.full(1_000_000, step))
        return "done"

    run = runner.remote(train).options(name="ends").remote()
    assert runner.get(run, timeout=30) == "done"
    [left] = artefacts(cluster, task_of(run))
    assert left.name.startswith("1-2-")
    assert left.stat().st_size > 8_000_000
    wait_until(lambda: not local_checkpoints(cluster), 10, "the machine's copies to go with the attempt")


def test_a_failed_attempt_leaves_its_last_checkpoint_to_the_next(cluster: Any) -> None:
    def train() -> Any:
        saved = runner.get_checkpoint()
        if saved is None:
            runner.report({"at": 1}, checkpoint=np.ones(2_000_000))
            raise ValueError("once")
        return float(runner.get_checkpoint().sum()), float(saved.sum())

    run = runner.remote(train).options(name="fails once", max_retries=1, retry_exceptions=True).remote()
    assert runner.get(run, timeout=30) == (2_000_000.0, 2_000_000.0)


# ---- limits ----
@pytest.fixture
def small_files(cluster: Any) -> Iterator[None]:
    """The coordinator can write files of 8 MiB at most, as on a full disk."""
    pid = json.loads((Path(cluster.state_dir) / "cluster.json").read_text())["pid"]
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (8 * MIB, -1))
    yield
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("way", ["result", "put", "checkpoint"])
def test_a_full_coordinator_is_a_typed_error(cluster: Any, way: str) -> None:
    def fill(way: str) -> Any:
        block = np.ones(2 * MIB)  # 16 MiB
        if way == "checkpoint":
            runner.report({"a": 1}, checkpoint=block)
            return None
        return [runner.put(block)] if way == "put" else block

    before = set(originals(cluster))
    run = runner.remote(fill).options(name="fills", max_retries=0).remote(way)
    with pytest.raises(StoreFullError, match=r"has no room for .*\(16\d+ bytes\)"):
        runner.get(run, timeout=30)
    assert set(originals(cluster)) <= before
    assert artefacts(cluster, task_of(run)) == []
    # What fits goes on.
    assert runner.get(runner.remote(make).remote(100_000), timeout=30).size == 100_000


def test_a_cancelled_task_stops_its_upload(cluster: Any) -> None:
    def slow() -> Any:
        return np.ones(48 * MIB)  # 384 MiB

    before = set(originals(cluster))
    ref = runner.remote(slow).options(name="slow").remote()  # what a run leaves is brought to the coordinator at once
    wait_until(lambda: [name for name in originals(cluster) if name.startswith(ref.id)], 30, "the upload to begin")
    runner.cancel(ref)
    with pytest.raises(TaskCancelledError):
        runner.get(ref, timeout=30)
    wait_until(lambda: set(originals(cluster)) <= before, 20, "what had been uploaded to go")
    wait_until(lambda: not copies(cluster, ref.id), 10, "the machine's file to go")
