"""A run's result, events and id from processes that did not submit it."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def python(environment: dict[str, str], cluster: dict[str, str], tmp_path: Path) -> Callable[[str], str]:
    """Run a script in a client of its own; what it printed."""

    def run(source: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(source))
        given = {**environment, "RUNNER_ADDRESS": cluster["address"]}
        done = subprocess.run(
            [sys.executable, path], env=given, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_run_is_found_by_name_and_id_when_its_client_is_gone(
    python: Callable[[str], str], run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    python(
        f"""
        import os, time, runner

        @runner.remote
        def fit(path):
            runner.report({{"loss": 0.5}})
            while not os.path.exists(path):
                time.sleep(0.01)
            return {{"loss": 0.5, "large": b"x" * 300_000}}

        @runner.remote(num_returns=2, max_retries=0)
        def pair(fails):
            if fails:
                raise ValueError("bad data")
            return 1, 2

        with runner.init():
            ref = fit.options(name="goes on", lifetime="detached").remote({str(go)!r})
            done = pair.options(name="done").remote(False)
            failed = pair.options(name="failed").remote(True)
            print(runner.get(done), runner.wait(failed, num_returns=2))
        """
    )
    listed = {each["name"]: each for each in json.loads(run("runs", "--json").stdout)}
    assert listed["goes on"]["state"] == "running"
    go.touch()
    told = python(
        f"""
        import runner

        with runner.init():
            found = runner.get_run({listed["goes on"]["task_id"]!r})
            value = found.result(timeout=30)
            print(found.name, found.state, value["loss"], len(value["large"]), found.attempt)
            print([event.values["loss"] for event in found.events(kinds="metrics")])
            print(runner.get_run("done").result())
            try:
                runner.get_run("failed").result()
            except ValueError as error:
                print("raised", error.args, isinstance(error, runner.errors.TaskError))
            print(type(runner.get_run("failed").failure).__name__, runner.get_run("failed").is_done)
            try:
                runner.get_run("nobody")
            except runner.errors.UsageError as error:
                print(error)
        """
    ).splitlines()
    assert told[:2] == ["goes on succeeded 0.5 300000 1", "[0.5]"]
    assert told[2:5] == ["[1, 2]", "raised ('bad data',) True", "TaskError True"]
    assert told[5].startswith("There is no run 'nobody' in cluster")
