"""Queued tasks by (shape, priority, client); clients take turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from runner.core.task import Task, TaskState
from runner.core.values import Shape
from runner.ids import ClientId


class _Lane:
    """The queue of one client. Entries of tasks that are no longer queued are skipped."""

    __slots__ = ("entries", "live")

    def __init__(self) -> None:
        self.entries: deque[Task] = deque()
        self.live = 0

    def head(self) -> Task:
        while self.entries[0].state is not TaskState.QUEUED:
            self.entries.popleft()
        return self.entries[0]


class ShapeQueue:
    """All queued tasks of one shape."""

    __slots__ = ("_priorities", "_rings", "live", "shape")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.live = 0
        self._priorities: list[int] = []  # highest first; only those with tasks
        self._rings: dict[int, OrderedDict[ClientId, _Lane]] = {}

    def head(self) -> Task:
        """Who is next: the highest priority, then the client whose turn it is. There must be one."""
        return next(iter(self._rings[self._priorities[0]].values())).head()

    def add(self, task: Task, *, first: bool = False) -> None:
        ring = self._rings.get(task.record.priority)
        if ring is None:
            ring = self._rings[task.record.priority] = OrderedDict()
            self._priorities = sorted(self._rings, reverse=True)
        lane = ring.get(task.record.client_id)
        if lane is None:
            lane = ring[task.record.client_id] = _Lane()
        if first:
            lane.entries.appendleft(task)
        else:
            lane.entries.append(task)
        lane.live += 1
        self.live += 1

    def take(self, task: Task) -> None:
        """Remove it because it goes to a machine: the next client's turn. Usually it is the head."""
        ring = self._rings[task.record.priority]
        lane = ring[task.record.client_id]
        if lane.head() is task:
            lane.entries.popleft()
        else:
            lane.entries.remove(task)
        if len(ring) > 1:
            ring.move_to_end(task.record.client_id)
        self._shrink(task, ring, lane)

    def discard(self, task: Task) -> None:
        """Remove it because it has settled or will never be placed; its entry is skipped later."""
        ring = self._rings[task.record.priority]
        self._shrink(task, ring, ring[task.record.client_id])

    def tasks(self) -> Iterator[Task]:
        """In the order of lanes; for dumps and for failing them all."""
        for priority in self._priorities:
            for lane in self._rings[priority].values():
                yield from (task for task in lane.entries if task.state is TaskState.QUEUED)

    def _shrink(self, task: Task, ring: OrderedDict[ClientId, _Lane], lane: _Lane) -> None:
        lane.live -= 1
        self.live -= 1
        if not lane.live:
            del ring[task.record.client_id]
            if not ring:
                del self._rings[task.record.priority]
                self._priorities.remove(task.record.priority)


class Queues:
    """The queues of all shapes that have queued tasks."""

    def __init__(self) -> None:
        self.by_shape: dict[Shape, ShapeQueue] = {}
        self.turns: dict[ClientId, int] = {}  # when a client last had its turn, over all shapes
        self._turn = 0

    def add(self, task: Task, *, first: bool = False) -> bool:
        """Whether it is now the only one of its shape."""
        shape = task.record.shape
        queue = self.by_shape.get(shape)
        if queue is None:
            queue = self.by_shape[shape] = ShapeQueue(shape)
        queue.add(task, first=first)
        return queue.live == 1

    def take(self, task: Task) -> None:
        queue = self.by_shape[task.record.shape]
        queue.take(task)
        self._turn += 1
        self.turns[task.record.client_id] = self._turn
        if not queue.live:
            del self.by_shape[queue.shape]

    def discard(self, task: Task) -> None:
        queue = self.by_shape[task.record.shape]
        queue.discard(task)
        if not queue.live:
            del self.by_shape[queue.shape]

    def forget_client(self, client_id: ClientId) -> None:
        self.turns.pop(client_id, None)

    def in_turn(self) -> list[ShapeQueue]:
        """Queues in the order in which they may take capacity now."""
        queues = list(self.by_shape.values())
        if len(queues) > 1:
            queues.sort(key=self._rank)
        return queues

    def _rank(self, queue: ShapeQueue) -> tuple[int, int, int]:
        head = queue.head()
        return -head.record.priority, self.turns.get(head.record.client_id, 0), head.order
