"""What users of Ray complain about, and our answer to each: one test here, or the name of the one elsewhere."""

from __future__ import annotations

import ast
import logging
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import runner
from runner.errors import NotSerializableError, UnschedulableError, UsageError

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).resolve().parents[3]
ELSEWHERE = {
    "version mismatch": "tests/integration/client/test_lifetimes.py::test_another_python",
    "processes that a task leaves behind": "tests/integration/worker/test_tasks.py::test_children_left_behind_are_killed_and_the_executor_retired",
    "processes that a killed client leaves behind": "tests/integration/client/test_lifetimes.py::test_a_killed_client_leaves_nothing",
    "get inside an async actor": "tests/integration/worker/test_actor_modes.py::test_get_on_the_loop_warns_once_and_works",
    "equal lines of 64 executors": "tests/unit/client/test_log_dedup.py::test_64_equal_lines_are_one_and_a_count",
    "a memory kill that nobody understands": "tests/unit/worker/test_agent_machine.py::test_a_kill_for_memory_by_us",
}


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("RUNNER_HOME", str(tmp_path_factory.mktemp("home")))
    with runner.init(num_cpus=1, log_to_driver=False):
        yield
    patch.undo()


@pytest.mark.parametrize("complaint", ELSEWHERE)
def test_the_others_are_where_this_page_says(complaint: str) -> None:
    path, _, name = ELSEWHERE[complaint].partition("::")
    tree = ast.parse((ROOT / path).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in functions


@runner.remote
def echo(value: object) -> object:
    return value


def test_what_no_machine_can_hold_fails_at_once_and_says_what_there_is() -> None:
    started_s = time.monotonic()
    with pytest.raises(UnschedulableError, match=r"64.*CPU"):
        runner.get(echo.options(num_cpus=64).remote(1), timeout=20)
    assert time.monotonic() - started_s < 5


def test_what_cannot_be_pickled_is_named_with_its_place() -> None:
    settings = {"model": [1, {"handle": threading.Lock()}]}
    with pytest.raises(NotSerializableError, match=r"\['model'\]\[1\]\['handle'\]"):
        echo.remote(settings)

    @runner.remote
    def uses() -> object:
        return settings

    with pytest.raises(NotSerializableError, match=r"uses.<closure>.settings\['model'\]\[1\]\['handle'\]"):
        uses.remote()


def test_a_closure_over_a_big_object_is_a_warning_with_its_name_and_size(caplog: pytest.LogCaptureFixture) -> None:
    big_table = b"x" * 12_000_000

    @runner.remote
    def uses() -> int:
        return len(big_table)

    with caplog.at_level(logging.WARNING, logger="runner"):
        assert runner.get(uses.remote(), timeout=30) == 12_000_000
    assert "12.0 MB when pickled, because it uses uses.<closure>.big_table (12.0 MB)" in caplog.text
    assert "runner.put()" in caplog.text


def test_writing_to_a_shared_array_is_a_clear_error_and_a_copy_can_be_written() -> None:
    array = runner.get(runner.put(np.zeros(100_000)))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1

    @runner.remote
    def write(given: np.ndarray) -> float:
        own = given.copy()
        own[0] = 7
        given[0] = 1
        return float(own[0])

    with pytest.raises(ValueError, match="read-only"):
        runner.get(write.remote(array), timeout=30)


def test_a_ref_from_another_cluster_is_refused_by_name() -> None:
    ours = runner.get_runtime_context().cluster_id
    other = ours[:-1] + ("0" if ours[-1] != "0" else "1")
    data = pickle.dumps(runner.put(1))
    assert runner.get(pickle.loads(data)) == 1
    with pytest.raises(
        UsageError, match=f"a ref from another cluster: it is of {other}, and this session is of {ours}"
    ):
        pickle.loads(data.replace(ours.encode(), other.encode()))


def test_an_error_that_cannot_be_pickled_is_readable() -> None:
    class Odd(Exception):
        def __reduce__(self) -> object:  # type: ignore[override]
            raise TypeError("no")

    @runner.remote
    def fails() -> None:
        raise Odd("what happened")

    with pytest.raises(runner.errors.TaskError, match=r"Odd: what happened[\s\S]*could not be brought here"):
        runner.get(fails.remote(), timeout=30)
