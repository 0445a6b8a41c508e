"""Cost of the pure core: no-op tasks from submission until they are forgotten, at four sizes.

A flat column of microseconds per task is the point: one that grows with the
number of tasks means a scan has crept into an event.
"""

from __future__ import annotations

import gc
import sys
import time
import tracemalloc

from bench.harness import Figure, main
from runner.core import events as e
from runner.core.cluster import Cluster
from runner.core.commands import Command, StartAttempt
from runner.core.journal_form import encode
from runner.core.values import CPU, MEMORY, UNIT, CoreConfig, TaskRecord, ValueRecord, make_shape
from runner.ids import ClientId, FunctionId, MachineId, TaskId, return_id

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
        while self.starts:
            starts, self.starts = self.starts, []
            for s in starts:
                self.feed(e.AttemptSucceeded(s.machine_id, s.generation, s.task_id, s.attempt, VALUE, 0.0001))
        for task_id in ids:
            self.feed(e.RefsReleased(CLIENT, (return_id(task_id, 0),)))
        counts = self.cluster.task_counts()
        assert not counts, counts


def cost_us(tasks: int, machines: int) -> float:
    """Microseconds of CPU per task, from submission until it is forgotten, encoding of the facts included."""
    run = Run(make_cluster(machines))
    run.noops(1)  # builds the indexes
    gc.collect()
    gc.freeze()  # as the coordinator does: what stands is not walked again
    start_s = time.process_time()
    run.noops(tasks)
    spent_s = time.process_time() - start_s
    gc.unfreeze()
    return spent_s / tasks * 1e6


def memory_bytes(tasks: int) -> float:
    """Bytes that one queued task holds."""
    cluster = make_cluster(1)
    gc.collect()
    tracemalloc.start()
    for i in range(tasks):
        record = TaskRecord(TaskId(f"t-{i:012d}"), CLIENT, FUNCTION, b"s" * 200 + b"%d" % i, name="noop")
        cluster.handle(e.TaskSubmitted(CLIENT, record, True), 1.0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / tasks


def measure(repeats: int) -> list[Figure]:
    """Cost of no-ops in the pure core at four sizes. It must not grow with the number of tasks or machines."""
    figures = []
    for machines in (1, 16, 1000):
        for tasks in (100, 1_000, 10_000, 100_000):
            figure = Figure(f"{tasks:,} no-ops on {machines:,} machines", "us", target=80, note="CPU per task")
            figure.samples = [cost_us(tasks, machines) for _ in range(repeats if tasks <= 10_000 else 1)]
            figures.append(figure)
    figures.append(
        Figure("one of 20,000 queued tasks", "B", [memory_bytes(20_000)], target=1000, note="all its records")
    )
    return figures


if __name__ == "__main__":
    sys.exit(main("core", measure))
