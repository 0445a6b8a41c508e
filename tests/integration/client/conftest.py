"""A real embedded cluster per module, and scripts run as a person would run them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import runner

Script = Callable[..., "subprocess.Popen[str]"]


def finish(process: subprocess.Popen[str], timeout_s: float = 60) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a script."""
    out, err = process.communicate(timeout=timeout_s)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two machines of two CPUs each."""
    home = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    patch.setenv("RUNNER_HOME", str(home))
    with runner.init(machines=2, num_cpus=2, log_to_driver=False) as session:
        yield session
    patch.undo()


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    """Start a script in a folder of its own; killed at the end if it still runs."""
    started: list[subprocess.Popen[str]] = []

    def run(source: str, **environment: str) -> subprocess.Popen[str]:
        path = tmp_path / f"script_{len(started)}.py"
        path.write_text(textwrap.dedent(source))
        process = subprocess.Popen(
            [sys.executable, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "RUNNER_HOME": str(tmp_path / "home"), **environment},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
