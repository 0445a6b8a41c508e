"""The shortest way through everything, run against the work tree and against the installed wheel."""

from __future__ import annotations

import subprocess
import sys

import pytest

import runner

pytestmark = pytest.mark.smoke


def test_a_task_reports_and_returns() -> None:
    @runner.remote
    def double(value: int) -> int:
        for step in range(3):
            runner.report({"half": value, "step": step}, step=step)
        return value * 2

    with runner.init(machines=2):
        run = double.options(name="smoke").remote(21)
        events = list(runner.stream([run]))

        assert runner.get(run) == 42
    assert [event.values["step"] for event in events if event.kind == "metrics"] == [0, 1, 2]
    assert [event.state for event in events if event.is_settled] == ["succeeded"]


def test_a_large_array_comes_back_as_it_was() -> None:
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")

    @runner.remote
    def add_one(values):
        return values + 1

    with runner.init(machines=1):
        values = numpy.arange(500_000)

        assert (runner.get(add_one.remote(runner.put(values))) == values + 1).all()


def test_a_script_without_a_main_guard_ends_with_its_cluster() -> None:
    code = """
import runner
runner.init(machines=1)
f = runner.remote(lambda: "from a machine")
print(runner.get(f.remote()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "from a machine\n", "")
