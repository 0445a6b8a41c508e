"""Repeats, medians with their spread, and result files that say what they were measured on."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PACKAGES = ("grpcio", "protobuf", "cloudpickle", "msgpack", "cryptography", "torch", "ray", "distributed")
# Fewer say nothing about the spread.
MIN_REPEATS = 5


@dataclass
class Figure:
    """One measured quantity: its samples, and what it should reach.

    `target` is an upper limit, or a lower one where `more_is_better`; None: it is only stated.
    """

    name: str
    unit: str
    samples: list[float] = field(default_factory=list)
    target: float | None = None
    more_is_better: bool = False
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        if self.target is None:
            return None
        return self.median >= self.target if self.more_is_better else self.median <= self.target

    def to_dict(self) -> dict[str, Any]:
        """What goes into the result file."""
        return {
            "name": self.name,
            "unit": self.unit,
            "n": len(self.samples),
            "median": self.median,
            "min": min(self.samples),
            "max": max(self.samples),
            "stdev": statistics.stdev(self.samples) if len(self.samples) > 1 else 0.0,
            "target": self.target,
            "more_is_better": self.more_is_better,
            "is_met": self.is_met,
            "note": self.note,
            "samples": self.samples,
        }

    def line(self) -> str:
        """One line for people."""
        verdict = {True: "ok", False: "MISSED", None: ""}[self.is_met]
        bound = "" if self.target is None else f"{'>=' if self.more_is_better else '<='} {self.target:g}"
        spread = f"{min(self.samples):.4g} .. {max(self.samples):.4g}"
        head = f"{self.name:<52} {self.median:>10.4g} {self.unit:<6} {spread:<20} n={len(self.samples):<3}"
        return f"{head} {bound:<9} {verdict}"


def percentile(samples: Sequence[float], percent: float) -> float:
    """The value below which `percent` of the samples lie (nearest rank)."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def fresh_process(code: str, *arguments: str, timeout_s: float = 120.0, python: str = sys.executable) -> dict[str, Any]:
    """Run the code in a new interpreter and return the JSON object on its last line of output.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    command = [python, "-c", code, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"benchmark process failed ({done.returncode}):\n{done.stdout}\n{done.stderr}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = ""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
    }


def versions() -> dict[str, str]:
    """The interpreter's and the packages' versions; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that was measured, with `+` when files had been changed since."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def main(name: str, measure: Callable[[int], list[Figure]], *, repeats: int = MIN_REPEATS) -> int:
    """The command line of one benchmark: measure, print, and write `bench/results/<name>.json`.

    Exit code 1 when a target was missed and `--strict` was given.
    """
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--no-file", action="store_true", help="print only")
    arguments = parser.parse_args()
    # Before the work: afterwards the load is our own.
    where = machine()
    figures = measure(arguments.repeats)
    for figure in figures:
        print(figure.line(), flush=True)
    if not arguments.no_file:
        result = {
            "benchmark": name,
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": where,
            "versions": versions(),
            "figures": [figure.to_dict() for figure in figures],
        }
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    missed = any(figure.is_met is False for figure in figures)
    return 1 if missed and arguments.strict else 0
