"""The task's state machine and record."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.core.values import CheckpointRecord, FailureRecord, Shape, TaskRecord
from runner.core.wants import Key, key_of
from runner.errors import IllegalTransitionError
from runner.ids import ClientId, ExecutorId, MachineId, ObjectId, TaskId

if TYPE_CHECKING:
    from runner.core.clients import Function
    from runner.core.machine import Machine, Slot
    from runner.core.streams import Stream


class TaskState(enum.IntEnum):
    """Where a task is in its life; `TRANSITIONS` says which moves are legal. Numbers are in journals."""

    WAITING = 1  # for its inputs
    QUEUED = 2  # for a machine
    ASSIGNED = 3  # to a slot; the agent has not said that it started
    RUNNING = 4
    BACKOFF = 5  # failed, will be queued again
    SUCCEEDED = 6
    FAILED = 7
    CANCELLED = 8

    @property
    def label(self) -> str:
        """The name on the wire and in listings."""
        return self.name.lower()


_S = TaskState
TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    _S.WAITING: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.ASSIGNED, _S.WAITING, _S.FAILED, _S.CANCELLED}),
    _S.ASSIGNED: frozenset({_S.RUNNING, _S.QUEUED, _S.BACKOFF, _S.FAILED, _S.CANCELLED}),
    _S.RUNNING: frozenset({_S.SUCCEEDED, _S.QUEUED, _S.BACKOFF, _S.FAILED, _S.CANCELLED}),
    _S.BACKOFF: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.SUCCEEDED: frozenset({_S.WAITING}),  # its result was lost
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}

NO_EXECUTOR = ExecutorId("")
NO_CLIENT = ClientId("")

# A task that is retried for ever must not grow for ever.
_TRAIL_BYTES_MAX = 256
LINES_MAX = 20


class Block(enum.IntEnum):
    """Whether a running attempt waits in `get` or `wait`."""

    NONE = 0
    BLOCKED = 1  # its CPUs are free
    AWAKE = 2  # it could go on, and waits for CPUs


@dataclass(slots=True, eq=False)
class Task:
    """One task. Changed only by applying facts."""

    record: TaskRecord
    order: int  # of submission
    function: Function | None
    owner_id: ClientId  # the client at whose end it is cancelled: of a child, its parent's
    pinned: tuple[ObjectId, ...] = ()  # arguments that existed when it was submitted
    state: TaskState = TaskState.WAITING
    attempt: int = 0
    missing: int = 0  # dependencies that are not ready
    live_returns: int = 0
    machine: Machine | None = None
    slot: Slot | None = None
    last_machine_id: MachineId | None = None
    executor_id: ExecutorId = NO_EXECUTOR
    block: Block = Block.NONE
    expected_s: float = 0.0  # guess at assignment of how long the attempt takes
    retries_used: int = 0
    kills: int = 0  # executors that died of it
    lines: tuple[str, ...] = ()  # one per failed attempt
    backoff_until_s: float = 0.0
    is_cancelling: bool = False
    is_cancel_forced: bool = False
    is_cancel_recursive: bool = False
    started_s: float | None = None
    ended_s: float | None = None
    checkpoint: CheckpointRecord | None = None
    failure: FailureRecord | None = None
    children: dict[TaskId, Task] | None = None  # unfinished ones
    stream: Stream | None = None  # of a generator
    lineage: tuple[ObjectId, ...] | None = None  # succeeded, and may run again: the arguments that it would need
    reruns: int = 0  # times that it ran again for a lost result
    trail: bytes = b"\x01"  # every state it was in
    # What it needs now: more memory than at first, maybe.
    shape: Shape = ()
    key: Key = ()

    def __post_init__(self) -> None:
        record = self.record
        self.shape = self.key = record.shape
        if record.wishes is not None:
            self.key = key_of(record.shape, record.wishes)

    def reshape(self, shape: Shape) -> None:
        """It needs this from now on; it must not be queued."""
        self.shape, self.key = shape, key_of(shape, self.record.wishes)

    @property
    def task_id(self) -> TaskId:
        return self.record.task_id

    def is_settled(self) -> bool:
        return self.state >= TaskState.SUCCEEDED

    def move(self, to: TaskState) -> None:
        """Change state.

        Raises:
            IllegalTransitionError: the table does not list the move; carries the task's story.
        """
        if to not in TRANSITIONS[self.state]:
            raise IllegalTransitionError(f"task {self.task_id}: {self.state.label} -> {to.label}\n{self.story()}")
        self.state = to
        if len(self.trail) < _TRAIL_BYTES_MAX:
            self.trail += _TRAIL_BYTE[to]

    def story(self) -> str:
        """What has happened to it, for people."""
        record = self.record
        states = " -> ".join(TaskState(number).label for number in self.trail)
        lines = [f"task {record.task_id} ({record.name or 'no name'}) of {record.client_id}: {states}", *self.lines]
        if self.machine is not None:
            lines.append(f"attempt {self.attempt} on {self.machine.machine_id}")
        if self.is_cancelling:
            lines.append("cancellation requested")
        if self.failure is not None:
            lines.append(f"{self.failure.kind.name.lower()}: {self.failure.message}")
        return "\n".join(lines)


_TRAIL_BYTE = {state: bytes([state]) for state in TaskState}
