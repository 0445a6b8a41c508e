"""Generators: their items are objects of their own, held by the session that reads them until it lets go."""

from __future__ import annotations

from dataclasses import dataclass

from runner.core.task import Task
from runner.ids import ClientId, ObjectId, item_id, task_of

# What an attempt is told instead of a count when nobody reads: it never waits.
NO_LIMIT = 2**62


@dataclass(slots=True)
class Stream:
    """The items of one generator task."""

    stored: int = 0  # items 0 to stored-1 have been taken in, whatever became of them
    read: int = 0  # told by the reader of a generator with backpressure
    is_open: bool = True  # the reader may still want them; what comes later is dropped unread

    @property
    def allowance(self) -> int:
        """Items that count as read for backpressure."""
        return self.read if self.is_open else NO_LIMIT


def is_reader(task: Task, client_id: ClientId) -> bool:
    """Whether this session is the one that reads the task's items, and reads on."""
    return task.stream is not None and task.stream.is_open and task.record.client_id == client_id


def index_of(object_id: ObjectId) -> int | None:
    """Which item of its task this is; None: it is none."""
    digits = object_id.rpartition(".i")[2]
    task_id = task_of(object_id)
    if task_id is None or not digits.isdecimal() or item_id(task_id, int(digits)) != object_id:
        return None
    return int(digits)
