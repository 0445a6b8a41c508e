"""A home folder, and the command line without a process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from runner.cli.main import cli


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RUNNER_ADDRESS", "RUNNER_TOKEN", "RUNNER_TOKEN_FILE", "RUNNER_CA", "RUNNER_BOOT", "RUNNER_BOOT_FILE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "home"
    monkeypatch.setenv("RUNNER_HOME", str(path))
    return path


@pytest.fixture
def run(home: Path) -> Callable[..., Result]:
    def run_command(*args: str) -> Result:
        return CliRunner().invoke(cli, args, prog_name="runner")

    return run_command
