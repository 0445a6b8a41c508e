"""Tasks that make objects and tasks of their own, and are gone before these are used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import runner

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("cluster")]

WAYS_TO_END = ["reused", "max_calls", "left_children"]


def remote(function: Any, way: str) -> Any:
    return runner.remote(max_calls=1 if way == "max_calls" else 0)(function)


def leave_child(way: str) -> None:
    """A process left behind: the executor is killed with it."""
    if way == "left_children":
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])


@pytest.mark.parametrize("way", WAYS_TO_END)
def test_refs_in_a_result_outlive_the_executor(way: str) -> None:
    def make(way: str) -> list[Any]:
        leave_child(way)
        return [runner.put("small"), runner.put(b"x" * 200_000)]

    for _ in range(3):
        small, large = runner.get(remote(make, way).remote(way), timeout=30)
        assert runner.get(small, timeout=30) == "small"
        assert len(runner.get(large, timeout=30)) == 200_000


@pytest.mark.parametrize("way", WAYS_TO_END)
def test_a_child_outlives_the_executor_that_submitted_it(way: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)

    def wait_and_say(go: str) -> str:
        with open(go) as fifo:
            return fifo.readline()

    def submit(way: str, go: str) -> list[Any]:
        leave_child(way)
        return [runner.remote(wait_and_say).remote(go)]

    [child] = runner.get(remote(submit, way).remote(way, str(go)), timeout=30)
    with open(go, "r+b", buffering=0) as fifo:
        fifo.write(b"done\n")
        assert runner.get(child, timeout=30) == "done\n"
