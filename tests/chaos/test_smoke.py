"""A real cluster under a seeded plan: executors and machines are killed, agents frozen, while tasks and runs go on.

`RUNNER_CHAOS_SEED=4711` repeats one plan; real processes do not repeat exactly. `RUNNER_CHAOS_S=600` breaks things for that long.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

import runner
from runner.testing import Fault, FaultPlan, LocalCluster

MACHINES = 3
TASKS = 200
RUNS = 6
STEPS = 12
RATES_PER_S = {"kill_executor": 0.8, "kill_machine": 0.25, "freeze_agent": 0.3}
FREEZES_S = (0.1, 0.5, 2.0)


@runner.remote(max_retries=-1)
def square(number: int, duration_s: float) -> int:
    import time

    time.sleep(duration_s)
    return number * number


@runner.remote(max_retries=-1)
def train(run: int, steps: int) -> list[int]:
    """Every epoch is reported with a checkpoint; a later attempt goes on after the last one that was committed."""
    import time

    state = runner.get_checkpoint()
    first = 0 if state is None else state["step"] + 1
    done = [] if state is None else state["done"]
    for step in range(first, steps):
        time.sleep(0.15)
        done.append(step)
        print(f"run {run} step {step}")
        runner.report({"run": run, "loss": 1.0 / (step + 1)}, step=step, checkpoint={"step": step, "done": done})
    return done


class Breaker(threading.Thread):
    """Carries out the plan. The cluster replaces machines that it killed."""

    def __init__(self, cluster: LocalCluster, plan: FaultPlan, duration_s: float) -> None:
        super().__init__(name="breaker")
        self.struck: Counter[str] = Counter()
        self.error: BaseException | None = None
        self._cluster = cluster
        self._numbers: random.Random = plan.stream("freezes")
        self._faults = plan.schedule(RATES_PER_S, duration_s)
        self._ending = threading.Event()

    def run(self) -> None:
        try:
            begun_s = time.monotonic()
            for fault in self._faults:
                if self._ending.wait(max(0.0, begun_s + fault.at_s - time.monotonic())):
                    return
                self._strike(fault)
        except BaseException as error:
            self.error = error

    def end(self) -> None:
        self._ending.set()
        self.join()
        if self.error is not None:
            raise self.error

    def _strike(self, fault: Fault) -> None:
        cluster = self._cluster
        if fault.kind == "kill_executor":
            victim = fault.pick(cluster.executors())
            was_hit = victim is not None and cluster.send_signal(victim, signal.SIGKILL)
        elif fault.kind == "kill_machine":
            victim = fault.pick(cluster.agents())
            was_hit = victim is not None and cluster.send_signal(victim, signal.SIGKILL)
        else:
            was_hit = self._freeze(fault)
        self.struck[fault.kind] += was_hit

    def _freeze(self, fault: Fault) -> bool:
        victim = fault.pick(self._cluster.agents())
        if victim is None or not self._cluster.send_signal(victim, signal.SIGSTOP):
            return False
        try:
            self._ending.wait(self._numbers.choice(FREEZES_S))
        finally:
            self._cluster.send_signal(victim, signal.SIGCONT)
        return True


def results_of(refs: Sequence[Any]) -> dict[int, Any]:
    """By position; without those that were given up because three of their executors were killed: the one error that may come."""
    results = {}
    for position, ref in enumerate(refs):
        with contextlib.suppress(runner.errors.WorkerCrashedError):
            results[position] = runner.get(ref, timeout=60)
    return results


def check_events(events: list[Any], finished: set[str]) -> None:
    """Of each run: attempts in order, each metric of an attempt once and in order, and every step told by somebody."""
    steps: dict[str, list[int]] = {}
    attempts: dict[str, int] = {}
    for event in events:
        if event.kind == "attempt":
            assert event.attempt > attempts.get(event.name, 0), f"{event.name}: attempt {event.attempt} began late"
            attempts[event.name] = event.attempt
            resumed = event.resumed_from_step
            kept = -1 if resumed is None else resumed
            # What an attempt told after its last committed checkpoint is told again by the next one.
            steps[event.name] = [step for step in steps.get(event.name, []) if step <= kept]
        elif event.kind == "metrics":
            assert event.attempt == attempts[event.name], f"{event.name}: an older attempt spoke"
            steps.setdefault(event.name, []).append(event.step)
    assert finished <= set(steps)
    for name, told in steps.items():
        assert told == list(range(STEPS if name in finished else len(told))), f"{name}: {told}"


@pytest.mark.chaos
@pytest.mark.timeout(120)
def test_everything_settles_while_things_break() -> None:
    seed = int(os.environ.get("RUNNER_CHAOS_SEED") or random.randrange(10_000))
    duration_s = float(os.environ.get("RUNNER_CHAOS_S") or 12.0)
    print(f"seed {seed}: RUNNER_CHAOS_SEED={seed} repeats this plan")
    plan = FaultPlan(seed)
    numbers = plan.stream("work")
    with LocalCluster(machines=MACHINES, num_cpus=2, log_to_driver=False) as cluster:
        runs = [train.options(name=f"run-{run}").remote(run, STEPS) for run in range(RUNS)]
        tasks = [square.remote(number, numbers.random() * 0.2) for number in range(TASKS)]
        breaker = Breaker(cluster, plan, duration_s)
        breaker.start()
        try:
            events = list(runner.stream(runs))
            squares, trained = results_of(tasks), results_of(runs)
        finally:
            breaker.end()
        given_up = TASKS - len(squares) + RUNS - len(trained)
        print(f"seed {seed} struck {dict(breaker.struck)}, {given_up} tasks and runs were given up")
        assert breaker.struck.total() > 0
        assert given_up < (TASKS + RUNS) * 0.1
        assert squares == {number: number * number for number in squares}
        assert all(done == list(range(STEPS)) for done in trained.values())
        check_events(events, {f"run-{run}" for run in trained})
