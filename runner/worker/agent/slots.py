"""The attempts of one machine and the slots they run on, one after the other. Pure."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.errors import InternalError
from runner.worker.agent.events import Attempt, Fault, Key, StopReason
from runner.worker.agent.executor_pool import Executor


class Phase(enum.Enum):
    """Where an attempt is between assignment and its one final report."""

    CHAINED = "behind another attempt on its slot"
    STARTING = "waits for an executor"
    RUNNING = "in an executor"
    BLOCKED = "waits in get or wait; its CPUs are free"
    AWAKE = "has what it waited for, not its CPUs yet"
    ENDING = "over, but reported only when its executor is gone"


TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.CHAINED: frozenset({Phase.STARTING}),
    Phase.STARTING: frozenset({Phase.RUNNING}),
    Phase.RUNNING: frozenset({Phase.BLOCKED, Phase.ENDING}),
    Phase.BLOCKED: frozenset({Phase.AWAKE, Phase.ENDING}),
    Phase.AWAKE: frozenset({Phase.RUNNING, Phase.ENDING}),
    Phase.ENDING: frozenset(),
}


@dataclass(slots=True, eq=False)
class Placed:
    """One attempt on this machine."""

    attempt: Attempt
    phase: Phase = Phase.CHAINED
    serial: int = 0  # of its run; 0: has not begun
    executor: Executor | None = None
    head_since_s: float = 0.0  # when it began to run, or to wait for an executor
    stop: StopReason | None = None
    fault: Fault | None = None
    outcome: Any = None
    stage: str = ""  # of a start with a time limit
    has_begun: bool = False  # of such an attempt: its function runs
    is_parked: bool = False  # it runs nothing until a suspend is over

    def move(self, to: Phase) -> None:
        """Change phase along the table."""
        if to not in TRANSITIONS[self.phase]:
            raise InternalError(f"{self.attempt.label}: {self.phase.name} -> {to.name} is not a move")
        self.phase = to


class SlotTable:
    """Attempts by key, and in the order of their slots; the first one of a slot is its head."""

    def __init__(self) -> None:
        self.by_key: dict[Key, Placed] = {}
        self._slots: dict[int, deque[Placed]] = {}

    def __iter__(self) -> Iterator[Placed]:
        return iter(list(self.by_key.values()))

    def add(self, attempt: Attempt) -> Placed:
        """Behind what its slot has."""
        placed = self.by_key[attempt.key] = Placed(attempt)
        self._slots.setdefault(attempt.slot, deque()).append(placed)
        return placed

    def head(self, slot: int) -> Placed | None:
        """The attempt that has the slot's allocation."""
        queue = self._slots.get(slot)
        return queue[0] if queue else None

    def has_chain(self, slot: int) -> bool:
        """Whether something waits behind the head."""
        queue = self._slots.get(slot)
        return queue is not None and len(queue) > 1

    def chain(self, slot: int) -> list[Placed]:
        """What waits behind the head, in order."""
        queue = self._slots.get(slot)
        return list(queue)[1:] if queue else []

    def remove(self, placed: Placed) -> Placed | None:
        """Take it out; returns the new head of its slot if it was the head and another one is there."""
        attempt = placed.attempt
        del self.by_key[attempt.key]
        queue = self._slots[attempt.slot]
        if queue[0] is not placed:
            queue.remove(placed)
            return None
        queue.popleft()
        if queue:
            return queue[0]
        del self._slots[attempt.slot]
        return None

    def check(self) -> None:
        """Assert what must always hold."""
        seen = 0
        for slot, queue in self._slots.items():
            assert queue, f"slot {slot} is empty"
            seen += len(queue)
            assert all(self.by_key[placed.attempt.key] is placed for placed in queue)
            assert all(placed.phase is Phase.CHAINED for placed in list(queue)[1:]), f"slot {slot} has two heads"
        assert seen == len(self.by_key)
        for key, placed in self.by_key.items():
            assert (placed.executor is not None) == (placed.phase not in (Phase.CHAINED, Phase.STARTING))
            assert placed.executor is None or placed.executor.key == key
