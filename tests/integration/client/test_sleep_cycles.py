"""Many sleeps with work in between: no result, metric or line is lost or doubled, and nothing is left behind."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import runner
from tests.integration.helpers import wait_until

CYCLES = 100
EACH = 3
LIMIT_S = 30.0

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@runner.remote(max_retries=0)
def work(ledger: str, cycle: int, index: int) -> tuple[int, int]:
    """Leaves a mark for each time that it runs."""
    with open(ledger, "a") as file:
        file.write(f"{cycle}.{index}\n")
    for step in range(2):
        print(f"line {cycle}.{index}.{step}")
        runner.report({"value": cycle * EACH + index}, step=step)
    return cycle, index


class Counting:
    """Its state lives through all sleeps."""

    def __init__(self) -> None:
        self.calls = 0
        self.sleeps: list[str] = []

    @runner.after_resume
    def note(self, context: Any) -> None:
        print(f"hook {context.snapshot}")
        self.sleeps.append(context.kind)

    def add(self) -> int:
        self.calls += 1
        return self.calls

    def slept(self) -> list[str]:
        return self.sleeps


def test_a_hundred_sleeps_lose_and_double_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path / "home"))
    ledger = tmp_path / "ledger"
    with runner.init(machines=1, num_cpus=2, log_to_driver=False) as cluster:
        actor = runner.remote(Counting).remote()
        runs: list[Any] = []
        pids: set[int] = set()
        for cycle in range(CYCLES):
            # Some are done before the sleep, some are on their way, and one comes while it sleeps.
            runs += [work.options(name=f"w-{cycle}-{i}").remote(str(ledger), cycle, i) for i in range(EACH - 1)]
            assert runner.get(actor.add.remote(), timeout=LIMIT_S) == cycle + 1
            cluster.suspend(timeout=LIMIT_S)
            runs.append(work.options(name=f"w-{cycle}-{EACH - 1}").remote(str(ledger), cycle, EACH - 1))
            cluster.wait_for_state("m-1", "ready", timeout=LIMIT_S)  # work that waits wakes it
            [node] = runner.nodes()
            pids.add(node.pid)
        assert runner.get(runs, timeout=LIMIT_S) == [(c, i) for c in range(CYCLES) for i in range(EACH)]
        assert runner.get(actor.slept.remote(), timeout=LIMIT_S) == ["resumed"] * CYCLES
        assert node.generation == CYCLES + 1
        assert len(pids) == 1
        marks = Counter(ledger.read_text().split())
        assert marks == {f"{c}.{i}": 1 for c in range(CYCLES) for i in range(EACH)}, "each ran once"
        check_told_once(runs)
    wait_until(lambda: not is_alive(pids), 10, "the machine's end")


def check_told_once(runs: list[Any]) -> None:
    metrics: Counter[tuple[str, int]] = Counter()
    lines: list[str] = []
    for event in runner.stream(runs, kinds=("metrics", "log")):
        if event.kind == "metrics":
            metrics[event.name, event.step] += 1
        else:
            lines.append(event.text)  # of the runs; those of the actor are not asked for
    names = [f"w-{c}-{i}" for c in range(CYCLES) for i in range(EACH)]
    assert metrics == {(name, step): 1 for name in names for step in range(2)}
    assert Counter(lines) == {
        f"line {c}.{i}.{step}": 1 for c in range(CYCLES) for i in range(EACH) for step in range(2)
    }
    for name in {line.rpartition(".")[0] for line in lines}:
        assert [line for line in lines if line.startswith(f"{name}.")] == [f"{name}.0", f"{name}.1"], "in order"


def is_alive(pids: set[int]) -> bool:
    return any(os.path.exists(f"/proc/{pid}") for pid in pids)
