"""Which executors exist, what each is made for, and which one takes the next attempt. Pure."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

from runner.worker.agent.events import Environment, Key


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
    template: frozenset[str]
    environment: Environment | None = None  # of its first attempt; None: blank, fit for any that its template has
    state: ExecutorState = ExecutorState.SPAWNING
    pid: int = 0  # 0: not ready yet
    key: Key | None = None  # the attempt it has
    calls: dict[str, int] = field(default_factory=dict)  # by function id, for max_calls
    idle_since_s: float = 0.0

    def move(self, to: ExecutorState) -> None:
        """Change state along the table."""
        assert to in TRANSITIONS[self.state], f"executor {self.number}: {self.state.name} -> {to.name}"
        self.state = to


# Blank executors are kept by template, others by environment.
_Kind = Environment | frozenset[str]


class ExecutorPool:
    """All executors of one machine."""

    def __init__(self, idle_max: int) -> None:
        self._idle_max = idle_max
        self.by_number: dict[int, Executor] = {}
        self._idle: dict[_Kind, deque[Executor]] = {}
        self._idle_count = 0
        self._spawning: dict[frozenset[str], int] = {}
        self._numbers = 0

    def new_number(self) -> int:
        """For a process with user code in it."""
        self._numbers += 1
        return self._numbers

    def add(self, template: frozenset[str]) -> Executor:
        """A new one, to be spawned."""
        executor = Executor(self.new_number(), template)
        self.by_number[executor.number] = executor
        self._count_spawning(template, +1)
        return executor

    def spawning(self, template: frozenset[str]) -> int:
        """How many of this template will soon be ready."""
        return self._spawning.get(template, 0)

    def arrived(self, executor: Executor) -> None:
        """It said that it is ready; it is idle now, but not yet put with the idle ones."""
        self._count_spawning(executor.template, -1)
        executor.move(ExecutorState.IDLE)

    def take_idle(self, environment: Environment, template: frozenset[str] | None) -> Executor | None:
        """An idle executor of this environment, or a blank one of this template. The one that ran last: its caches are warm."""
        idle = self._idle.get(environment)
        if not idle and template is not None:
            idle = self._idle.get(template)
        if not idle:
            return None
        executor = idle[-1]
        self.remove_idle(executor)
        return executor

    def put_idle(self, executor: Executor, now_s: float) -> Executor | None:
        """Keep it for later; returns the one that is now too many, longest idle."""
        executor.idle_since_s = now_s
        self._idle.setdefault(_kind(executor), deque()).append(executor)
        self._idle_count += 1
        return self._oldest() if self._idle_count > self._idle_max else None

    def remove_idle(self, executor: Executor) -> None:
        """It is idle no longer."""
        kind = _kind(executor)
        idle = self._idle[kind]
        if idle[-1] is executor:
            idle.pop()
        else:
            idle.remove(executor)
        if not idle:
            del self._idle[kind]
        self._idle_count -= 1

    def next_expiry(self, keep: int) -> Executor | None:
        """The one that is idle for longest, when there are more idle ones than `keep`."""
        return self._oldest() if self._idle_count > keep else None

    def discard(self, number: int) -> Executor | None:
        """It is gone."""
        executor = self.by_number.pop(number, None)
        if executor is not None:
            if executor.state is ExecutorState.IDLE:
                self.remove_idle(executor)
            elif executor.pid == 0:
                self._count_spawning(executor.template, -1)
        return executor

    def check(self) -> None:
        """Assert what must always hold."""
        idle = [executor for group in self._idle.values() for executor in group]
        assert len(idle) == self._idle_count <= self._idle_max + 1
        assert all(executor.state is ExecutorState.IDLE and executor.key is None for executor in idle)
        for executor in self.by_number.values():
            assert (executor.state is ExecutorState.IDLE) == (executor in idle)
            assert executor.state is not ExecutorState.BUSY or executor.key is not None
        assert sum(self._spawning.values()) == sum(1 for executor in self.by_number.values() if executor.pid == 0)

    def _oldest(self) -> Executor:
        return min((idle[0] for idle in self._idle.values()), key=lambda executor: executor.idle_since_s)

    def _count_spawning(self, template: frozenset[str], change: int) -> None:
        count = self._spawning.pop(template, 0) + change
        if count:
            self._spawning[template] = count


def _kind(executor: Executor) -> _Kind:
    return executor.template if executor.environment is None else executor.environment
