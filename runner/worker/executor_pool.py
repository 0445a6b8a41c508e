"""Which executors exist, what each is made for, and which one takes the next attempt. Pure."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

from runner.worker.agent_events import Environment, Key


class ExecutorState(enum.Enum):
    """Where an executor is in its life."""

    SPAWNING = "forked, has not said that it is ready"
    IDLE = "waits for an attempt"
    BUSY = "has an attempt"
    RETIRING = "was told to end, or is being killed"


TRANSITIONS = {
    ExecutorState.SPAWNING: frozenset({ExecutorState.IDLE, ExecutorState.RETIRING}),
    ExecutorState.IDLE: frozenset({ExecutorState.BUSY, ExecutorState.RETIRING}),
    ExecutorState.BUSY: frozenset({ExecutorState.IDLE, ExecutorState.RETIRING}),
    ExecutorState.RETIRING: frozenset[ExecutorState](),
}


@dataclass(slots=True, eq=False)
class Executor:
    """One process in which user code runs."""

    number: int
    environment: Environment
    template: frozenset[str]
    state: ExecutorState = ExecutorState.SPAWNING
    pid: int = 0
    key: Key | None = None  # the attempt it has
    calls: dict[str, int] = field(default_factory=dict)  # by function id, for max_calls
    idle_since_s: float = 0.0

    def move(self, to: ExecutorState) -> None:
        """Change state along the table."""
        assert to in TRANSITIONS[self.state], f"executor {self.number}: {self.state.name} -> {to.name}"
        self.state = to


class ExecutorPool:
    """All executors of one machine."""

    def __init__(self, idle_max: int) -> None:
        self._idle_max = idle_max
        self.by_number: dict[int, Executor] = {}
        self._idle: dict[Environment, deque[Executor]] = {}
        self._idle_count = 0
        self._spawning: dict[Environment, int] = {}
        self._numbers = 0

    def add(self, environment: Environment, template: frozenset[str]) -> Executor:
        """A new one, to be spawned."""
        self._numbers += 1
        executor = Executor(self._numbers, environment, template)
        self.by_number[executor.number] = executor
        self._count_spawning(environment, +1)
        return executor

    def spawning(self, environment: Environment) -> int:
        """How many will soon be ready for attempts of this environment."""
        return self._spawning.get(environment, 0)

    def arrived(self, executor: Executor) -> None:
        """It said that it is ready; it is idle now, but not yet put with the idle ones."""
        self._count_spawning(executor.environment, -1)
        executor.move(ExecutorState.IDLE)

    def _count_spawning(self, environment: Environment, change: int) -> None:
        count = self._spawning.pop(environment, 0) + change
        if count:
            self._spawning[environment] = count

    def take_idle(self, environment: Environment) -> Executor | None:
        """The idle executor that ran last: its caches are warm."""
        idle = self._idle.get(environment)
        if not idle:
            return None
        executor = idle.pop()
        self._forget_if_empty(environment)
        self._idle_count -= 1
        return executor

    def put_idle(self, executor: Executor, now_s: float) -> Executor | None:
        """Keep it for later; returns the one that is now too many, longest idle."""
        executor.idle_since_s = now_s
        self._idle.setdefault(executor.environment, deque()).append(executor)
        self._idle_count += 1
        return self._oldest() if self._idle_count > self._idle_max else None

    def remove_idle(self, executor: Executor) -> None:
        """It is idle no longer."""
        self._idle[executor.environment].remove(executor)
        self._forget_if_empty(executor.environment)
        self._idle_count -= 1

    def expired(self, before_s: float, keep: Environment) -> list[Executor]:
        """Idle since before `before_s`; those of environment `keep` stay."""
        return [
            executor
            for environment, idle in self._idle.items()
            if environment != keep
            for executor in idle
            if executor.idle_since_s <= before_s
        ]

    def oldest_idle_s(self, keep: Environment) -> float | None:
        """Since when the longest idle one is; those of environment `keep` do not count."""
        times = (idle[0].idle_since_s for environment, idle in self._idle.items() if environment != keep)
        return min(times, default=None)

    def discard(self, number: int) -> Executor | None:
        """It is gone."""
        executor = self.by_number.pop(number, None)
        if executor is not None:
            if executor.state is ExecutorState.IDLE:
                self.remove_idle(executor)
            elif executor.pid == 0:
                self._count_spawning(executor.environment, -1)
        return executor

    def check(self) -> None:
        """Assert what must always hold."""
        idle = [executor for group in self._idle.values() for executor in group]
        assert len(idle) == self._idle_count <= self._idle_max + 1
        assert all(executor.state is ExecutorState.IDLE and executor.key is None for executor in idle)
        for executor in self.by_number.values():
            assert (executor.state is ExecutorState.IDLE) == (executor in idle)
            assert executor.state is not ExecutorState.BUSY or executor.key is not None

    def _oldest(self) -> Executor:
        return min((idle[0] for idle in self._idle.values()), key=lambda executor: executor.idle_since_s)

    def _forget_if_empty(self, environment: Environment) -> None:
        if not self._idle[environment]:
            del self._idle[environment]
