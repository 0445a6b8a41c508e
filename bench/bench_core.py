"""Cost of the pure core: no-op tasks from submission until they are forgotten, at four sizes.

    python bench/bench_core.py [--max 100000]

A flat column of microseconds per task is the point: one that grows with the
number of tasks means a scan has crept into an event.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time

from runner.core import events as e
from runner.core.cluster import Cluster
from runner.core.commands import Command, StartAttempt
from runner.core.facts import encode
from runner.core.values import CPU, MEMORY, UNIT, CoreConfig, TaskRecord, ValueRecord, make_shape
from runner.ids import ClientId, ExecutorId, FunctionId, MachineId, TaskId, return_id

CLIENT, FUNCTION = ClientId("c-000000000001"), FunctionId("f" * 64)
VALUE = (ValueRecord(b"x" * 40),)


def make_cluster(machines: int) -> Cluster:
    cluster = Cluster(CoreConfig())
    shape = make_shape({CPU: 4 * UNIT, MEMORY: 8 << 30})
    ids = tuple(MachineId(f"m-{i}") for i in range(machines))
    cluster.handle(e.ClientConnected(CLIENT), 0.0)
    cluster.handle(e.FunctionRegistered(CLIENT, FUNCTION, "noop", b"f"), 0.0)
    cluster.handle(e.MachinesRequested(ids, shape, "fake"), 0.0)
    for machine_id in ids:
        cluster.handle(e.MachineRegistered(machine_id, "a", shape, "host"), 0.0)
    return cluster


class Run:
    """Feeds events, plays the agents, and counts."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.events = 0
        self.starts: list[StartAttempt] = []

    def feed(self, event: e.Event) -> None:
        self.events += 1
        decision = self.cluster.handle(event, 1.0)
        for fact in decision.facts:
            encode(fact)
        self.collect(decision.commands)

    def collect(self, commands: list[Command]) -> None:
        self.starts += [command for command in commands if type(command) is StartAttempt]

    def noops(self, count: int) -> None:
        """All are submitted, then all run, then all refs are released."""
        spec = b"s" * 200
        ids = [TaskId(f"t-{i:012d}") for i in range(count)]
        for task_id in ids:
            self.feed(e.TaskSubmitted(CLIENT, TaskRecord(task_id, CLIENT, FUNCTION, spec, name="noop"), True))
        executor_id = ExecutorId("x-1")
        while self.starts:
            starts, self.starts = self.starts, []
            for s in starts:
                self.feed(
                    e.AttemptSucceeded(s.machine_id, s.generation, s.task_id, s.attempt, VALUE, 0.0001, executor_id)
                )
        for task_id in ids:
            self.feed(e.RefsReleased(CLIENT, (return_id(task_id, 0),)))
        counts = self.cluster.task_counts()
        assert not counts, counts


def measure(tasks: int, machines: int) -> tuple[float, float]:
    """Microseconds of CPU per task, and events per second of CPU."""
    run = Run(make_cluster(machines))
    gc.collect()
    gc.freeze()
    start_s = time.process_time()
    run.noops(tasks)
    spent_s = time.process_time() - start_s
    gc.unfreeze()
    return spent_s / tasks * 1e6, run.events / spent_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max", type=int, default=100_000, help="largest number of tasks")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"{'tasks':>8} {'machines':>8} {'us/task':>8} {'spread':>13} {'events/s':>9}")
    for machines in (1, 16, 1000):
        for tasks in (100, 1_000, 10_000, 100_000):
            if tasks > options.max:
                continue
            repeats = options.repeats if tasks <= 10_000 else 1
            results = sorted(measure(tasks, machines) for _ in range(repeats))
            costs = [cost for cost, _ in results]
            rate = statistics.median(rate for _, rate in results)
            spread = f"{costs[0]:.1f}..{costs[-1]:.1f}"
            print(f"{tasks:>8} {machines:>8} {statistics.median(costs):>8.1f} {spread:>13} {rate:>9.0f}")


if __name__ == "__main__":
    main()
