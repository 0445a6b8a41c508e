"""Queued tasks by (needs, priority, client); clients take turns."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from runner.core.task import Task, TaskState
from runner.core.wants import Key
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


class KeyQueue:
    """All queued tasks of equal needs."""

    __slots__ = ("_priorities", "_rings", "key", "live")

    def __init__(self, key: Key) -> None:
        self.key = key
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

    def withdraw(self, task: Task) -> None:
        """Remove the head, which may come back; nobody has had a turn."""
        ring = self._rings[task.record.priority]
        lane = ring[task.record.client_id]
        if lane.head() is task:
            lane.entries.popleft()
        else:
            lane.entries.remove(task)
        self._shrink(task, ring, lane)

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
    """The queues of all needs that have queued tasks."""

    def __init__(self) -> None:
        self.by_key: dict[Key, KeyQueue] = {}
        self.turns: dict[ClientId, int] = {}  # when a client last had its turn, over all queues
        self._turn = 0

    def add(self, task: Task, *, first: bool = False) -> bool:
        """Whether it is now the only one of its queue."""
        key = task.key
        queue = self.by_key.get(key)
        if queue is None:
            queue = self.by_key[key] = KeyQueue(key)
        queue.add(task, first=first)
        return queue.live == 1

    def take(self, task: Task) -> None:
        queue = self.by_key[task.key]
        queue.take(task)
        self._turn += 1
        self.turns[task.record.client_id] = self._turn
        if not queue.live:
            del self.by_key[queue.key]

    def discard(self, task: Task) -> None:
        queue = self.by_key[task.key]
        queue.discard(task)
        if not queue.live:
            del self.by_key[queue.key]

    def withdraw(self, task: Task) -> None:
        """As `discard`, for one that may be queued again."""
        queue = self.by_key[task.key]
        queue.withdraw(task)
        if not queue.live:
            del self.by_key[queue.key]

    def forget_client(self, client_id: ClientId) -> None:
        self.turns.pop(client_id, None)

    def in_turn(self) -> list[KeyQueue]:
        """Queues in the order in which they may take capacity now."""
        queues = list(self.by_key.values())
        if len(queues) > 1:
            queues.sort(key=self._rank)
        return queues

    def _rank(self, queue: KeyQueue) -> tuple[int, int, int]:
        head = queue.head()
        return -head.record.priority, self.turns.get(head.record.client_id, 0), head.order
