"""Which tasks belong to whom in the event log: what children print belongs to the client that started it all."""

from __future__ import annotations

from typing import NamedTuple

from runner.core.cluster import Cluster
from runner.core.values import TaskRecord
from runner.ids import ClientId, TaskId


class KnownTask(NamedTuple):
    """What the event log needs to know about a task."""

    name: str
    client_id: ClientId  # the client at the top of its tree
    is_run: bool


class TaskIndex:
    """Remembers runs and children. Plain tasks of a client are not kept: their own record says it all."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[TaskId, KnownTask] = {}

    def add(self, record: TaskRecord) -> None:
        """Note a task as it is submitted or replayed."""
        if record.parent is not None:
            parent = self.describe(record.parent[0])
            client_id = parent.client_id if parent is not None else record.client_id
        elif record.is_run:
            client_id = record.client_id
        else:
            return
        self._known[record.task_id] = KnownTask(record.name, client_id, record.is_run)

    def get(self, task_id: TaskId) -> KnownTask | None:
        """A run or child; None for plain tasks of a client."""
        return self._known.get(task_id)

    def describe(self, task_id: TaskId) -> KnownTask | None:
        """Any task that the core still knows."""
        known = self._known.get(task_id)
        if known is not None:
            return known
        view = self._cluster.task(task_id)
        return None if view is None else KnownTask(view.name, view.client_id, view.is_run)

    def forget(self, task_id: TaskId) -> None:
        """The core forgot it."""
        self._known.pop(task_id, None)

    def prune(self) -> None:
        """After a replay: drop what was forgotten in it."""
        gone = [task_id for task_id in self._known if self._cluster.task(task_id) is None]
        for task_id in gone:
            del self._known[task_id]
