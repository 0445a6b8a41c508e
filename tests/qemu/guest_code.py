"""What these tests run in guests: nothing that only a test's process can import."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import runner


@runner.remote
def where() -> dict[str, Any]:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
    return {"boot_id": boot_id, "pid": os.getpid(), "unix_s": time.time(), "draws": os.urandom(8)}


@runner.remote(max_retries=0)
def work(cycle: int) -> int:
    print(f"line {cycle}.0")
    runner.report({"value": cycle}, step=0)
    print(f"line {cycle}.1")
    return cycle


class Keeper:
    """Its state is memory, and only that."""

    def __init__(self) -> None:
        self.kept: list[int] = []
        self.told: list[tuple[str, float, float]] = []

    @runner.after_resume
    def resumed(self, context: runner.ResumeContext) -> None:
        self.told.append((context.kind, context.slept_s, context.clock_behind_s))

    def keep(self, value: int) -> list[int]:
        self.kept.append(value)
        return self.kept

    def all_told(self) -> list[tuple[str, float, float]]:
        return self.told
