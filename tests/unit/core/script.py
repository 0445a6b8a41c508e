"""Scripts against the core: events in, exact commands out, with short names for what every script needs."""

from __future__ import annotations

from typing import Any

from runner.core import commands as c
from runner.core import events as e
from runner.core.cluster import Cluster
from runner.core.facts import Fact
from runner.core.journal_form import decode, encode
from runner.core.values import (
    CPU,
    UNIT,
    CheckpointRecord,
    CoreConfig,
    FailureKind,
    FailureRecord,
    SegmentRecord,
    Shape,
    TaskRecord,
    ValueRecord,
    make_shape,
)
from runner.ids import ClientId, ExecutorId, FunctionId, MachineId, ObjectId, TaskId

A, B = ClientId("c-a"), ClientId("c-b")
F = FunctionId("f-1")
M1, M2 = MachineId("m-1"), MachineId("m-2")
X = ExecutorId("x-1")
T1, T2, T3 = TaskId("t-1"), TaskId("t-2"), TaskId("t-3")
VALUE = ValueRecord(b"value")


def cpus(count: float, **more: int) -> Shape:
    return make_shape({CPU: int(count * UNIT), **more})


def oid(task_id: str, index: int = 0) -> ObjectId:
    return ObjectId(f"{task_id}.{index}")


def segment(name: str) -> ValueRecord:
    return ValueRecord(b"s", (), SegmentRecord("host", f"/dev/shm/{name}", 1 << 20))


def held_by(machine_id: str, name: str, contained: tuple[ObjectId, ...] = ()) -> ValueRecord:
    """A value that only this machine has."""
    return ValueRecord(b"s", contained, SegmentRecord(machine_id, f"/dev/shm/{name}", 1 << 20, MachineId(machine_id)))


def crash(message: str = "executor killed by signal 9 (SIGKILL)") -> FailureRecord:
    return FailureRecord(FailureKind.WORKER_CRASHED, message)


def user_error(payload: bytes = b"pickled") -> FailureRecord:
    return FailureRecord(FailureKind.USER, "ValueError: no", payload)


def checkpoint(step: int, attempt: int = 1) -> CheckpointRecord:
    return CheckpointRecord(step, f"file:///{step}", "00", 10, attempt)


class Script:
    """A cluster with client A and function F. Checks every invariant after each event, and keeps the facts."""

    def __init__(self, config: CoreConfig | None = None, **machines: Shape) -> None:
        self.config = config or CoreConfig()
        self.cluster = Cluster(self.config)
        self.now_s = 0.0
        self.facts: list[Fact] = []
        self.feed(e.ClientConnected(A))
        self.feed(e.FunctionRegistered(A, F, "train", b"pickled function"))
        for name, shape in machines.items():
            self.boot(name.replace("_", "-"), shape)

    def feed(self, event: e.Event) -> list[c.Command]:
        decision = self.cluster.handle(event, self.now_s)
        self.facts += decision.facts
        self.cluster.check()
        return decision.commands

    def only(self, kind: type[Any], event: e.Event) -> list[Any]:
        """The commands of this kind that the event led to."""
        return [command for command in self.feed(event) if isinstance(command, kind)]

    def after(self, seconds: float) -> list[c.Command]:
        self.now_s += seconds
        return self.feed(e.ClockAdvanced())

    # ---- machines ----
    def request(self, name: str, shape: Shape) -> list[c.Command]:
        return self.feed(e.MachinesRequested((MachineId(name),), shape, "fake"))

    def boot(self, name: str, shape: Shape, instance: str = "agent-1") -> list[c.Command]:
        self.request(name, shape)
        return self.register(name, shape, instance)

    def register(self, name: str, shape: Shape, instance: str = "agent-1") -> list[c.Command]:
        return self.feed(e.MachineRegistered(MachineId(name), instance, shape, "host"))

    # ---- tasks ----
    def submit(self, task: str, /, *, client: ClientId = A, subscribe: bool = False, **options: Any) -> list[c.Command]:
        options.setdefault("function_id", F)
        record = TaskRecord(TaskId(task), client, payload=b"spec", **options)
        return self.feed(e.TaskSubmitted(client, record, subscribe))

    def fence(self, name: str) -> tuple[MachineId, int, TaskId, int]:
        """That of the current attempt."""
        task = self.cluster._state.tasks[TaskId(name)]
        assert task.machine is not None, task.story()
        return task.machine.machine_id, task.machine.generation, TaskId(name), task.attempt

    def start(self, name: str) -> list[c.Command]:
        return self.feed(e.AttemptStarted(*self.fence(name), X))

    def succeed(self, name: str, *values: ValueRecord, duration_s: float = 1.0, **more: Any) -> list[c.Command]:
        return self.feed(e.AttemptSucceeded(*self.fence(name), values or (VALUE,), duration_s, **more))

    def fail(self, name: str, failure: FailureRecord, *, retryable: bool = False, **more: Any) -> list[c.Command]:
        return self.feed(e.AttemptFailed(*self.fence(name), failure, retryable, **more))

    def cancel(self, name: str, *, force: bool = False, recursive: bool = True) -> list[c.Command]:
        return self.feed(e.CancelRequested(TaskId(name), force, recursive))

    def state(self, name: str) -> str:
        view = self.cluster.task(TaskId(name))
        return "forgotten" if view is None else view.state

    def release(self, *object_ids: ObjectId, client: ClientId = A) -> list[c.Command]:
        return self.feed(e.RefsReleased(client, object_ids))

    def replayed(self) -> Cluster:
        """A second cluster, made from the journal alone, tuples turned into lists as msgpack does."""
        cluster = Cluster(self.config)
        cluster.replay(decode(as_lists(encode(fact))) for fact in self.facts)
        return cluster


def as_lists(value: Any) -> Any:
    """What msgpack makes of it."""
    if isinstance(value, list | tuple):
        return [as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return value


def started(commands: list[c.Command]) -> list[tuple[str, int, str, int]]:
    """(task, attempt, machine, slot) of each StartAttempt."""
    starts = [command for command in commands if isinstance(command, c.StartAttempt)]
    return [(s.task_id, s.attempt, s.machine_id, s.slot) for s in starts]


def of(kind: type[Any], commands: list[c.Command]) -> list[Any]:
    return [command for command in commands if isinstance(command, kind)]
