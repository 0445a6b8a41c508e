"""What happens to generators."""

from __future__ import annotations

from dataclasses import dataclass

from runner.core.values import ValueRecord
from runner.ids import ClientId, MachineId, TaskId


@dataclass(frozen=True, slots=True)
class ItemsYielded:
    """Reported by an agent, fenced as its other reports; repeats of items that are stored change nothing."""

    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    first_index: int
    values: tuple[ValueRecord, ...]


@dataclass(frozen=True, slots=True)
class StreamRead:
    """The reader of a generator with backpressure has taken so many items."""

    client_id: ClientId
    task_id: TaskId
    count: int


@dataclass(frozen=True, slots=True)
class StreamDropped:
    """The reader reads no further than `count` items."""

    client_id: ClientId
    task_id: TaskId
    count: int
    go_on: bool = False  # somebody still waits for the generator's end: it is not cancelled
