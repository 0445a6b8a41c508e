"""Guards of killed clusters (runner.coordinator.guard), which wait for late creations longer than a test does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.leakcheck import MARK


def kill_guards() -> None:
    """End those of this test session."""
    mark = f"{MARK}={os.environ[MARK]}".encode()
    for each in Path("/proc").glob("[0-9]*"):
        try:
            is_guard = b"runner.coordinator.guard" in (each / "cmdline").read_bytes()
            if is_guard and mark in (each / "environ").read_bytes():
                os.kill(int(each.name), signal.SIGKILL)
        except OSError:
            continue
