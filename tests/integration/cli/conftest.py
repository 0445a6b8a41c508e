"""The command line as people run it: processes, a home of their own, and nothing left at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith("RUNNER_") or key == "RUNNER_TEST_SESSION"
    }
    return {**kept, "RUNNER_HOME": str(home)}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run_command(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "runner.cli", *args]
        return subprocess.run(
            command, env={**environment, **more}, capture_output=True, text=True, timeout=60, check=False
        )

    return run_command


@pytest.fixture
def cluster(run: Run) -> Iterator[dict[str, Any]]:
    """A standing cluster with two machines of one CPU; what `runner up --json` printed."""
    up = run("up", "--machines", "2", "--cpus", "1", "--port", "0", "--json")
    assert up.returncode == 0, up.stderr
    yield json.loads(up.stdout)
    down = run("down", "--all", "--force")
    assert down.returncode == 0, down.stderr
