"""Programs that building an image runs, and what is said when they are missing or fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runner.errors import UsageError
from runner.image.commands import need, output_of, run
from runner.image.context import Contents
from runner.image.vm import build


def test_what_is_missing_is_named_with_its_packages() -> None:
    need({"sh": "dash"})
    with pytest.raises(
        UsageError, match="absent-1, absent-2 missing on this host; install with: apt-get install one two$"
    ):
        need({"sh": "dash", "absent-1": "two", "absent-2": "one"})


def test_a_failure_has_the_last_words(tmp_path: Path) -> None:
    run(["sh", "-c", "echo unheard"])
    with pytest.raises(UsageError, match=r"(?s)`sh -c .*` failed with exit code 3:\nout\nlast$"):
        run(["sh", "-c", "echo out; echo last >&2; exit 3"])
    with (tmp_path / "out").open("wb") as out, pytest.raises(UsageError, match=r"exit code 4:\nlast$"):
        run(["sh", "-c", "echo out; echo last >&2; exit 4"], stdout=out)
    assert (tmp_path / "out").read_text() == "out\n"
    assert output_of(["echo", "heard"]) == "heard\n"
    with pytest.raises(UsageError, match="`cat /absent` failed: .*No such file"):
        output_of(["cat", "/absent"])


def test_only_root_builds_micro_vms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1000)
    with pytest.raises(UsageError, match="can only be built by root: debootstrap and chroot need it"):
        build(tmp_path / "image", Contents("slim"), None, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_options_of_other_engines_are_refused() -> None:
    command = [sys.executable, "-m", "runner.cli", "image", "build", "--engine", "qemu", "--build-arg", "A=B"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 2
    assert "--engine qemu has no --engine-option, --build-arg and --context" in done.stderr
