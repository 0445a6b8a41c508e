"""The actor's state machine and record. Its creation task's attempts are its incarnations."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from runner.core.task import Task
from runner.core.values import ActorRecord, FailureRecord
from runner.errors import IllegalTransitionError
from runner.ids import ClientId, ObjectId, TaskId, return_id


class ActorState(enum.IntEnum):
    """Where an actor is in its life. Numbers are in journals."""

    PENDING = 1  # for its place, or its constructor runs
    ALIVE = 2  # takes calls
    RESTARTING = 3  # its incarnation has ended, and another is to come
    DEAD = 4

    @property
    def label(self) -> str:
        """The name on the wire."""
        return self.name.lower()


_A = ActorState
TRANSITIONS: dict[ActorState, frozenset[ActorState]] = {
    _A.PENDING: frozenset({_A.ALIVE, _A.RESTARTING, _A.DEAD}),
    _A.ALIVE: frozenset({_A.RESTARTING, _A.DEAD}),
    _A.RESTARTING: frozenset({_A.ALIVE, _A.DEAD}),
    _A.DEAD: frozenset(),
}


@dataclass(slots=True, eq=False)
class Actor:
    """One actor; in the table as long as the record of its creation task."""

    task: Task
    record: ActorRecord
    state: ActorState = ActorState.PENDING
    host_id: str = ""  # alive: where `address` means something
    address: str = ""
    secret: bytes = b""
    failure: FailureRecord | None = None  # dead: why; restarting: what ended the last incarnation
    is_restart_wanted: bool = False  # somebody has killed this incarnation, and it alone
    watchers: dict[ClientId, None] = field(default_factory=dict)

    @property
    def actor_id(self) -> TaskId:
        return self.task.task_id

    @property
    def handle_id(self) -> ObjectId:
        """The object that every handle holds a ref to."""
        return return_id(self.task.task_id, 0)

    def move(self, to: ActorState) -> None:
        """Change state.

        Raises:
            IllegalTransitionError: the table does not list the move; carries the story.
        """
        if to not in TRANSITIONS[self.state]:
            raise IllegalTransitionError(
                f"actor {self.actor_id}: {self.state.label} -> {to.label}\n{self.task.story()}"
            )
        self.state = to
        if to is not ActorState.ALIVE:
            self.host_id, self.address, self.secret = "", "", b""


class ActorTable:
    """All actors, and the names of those that are not dead nor being ended."""

    def __init__(self) -> None:
        self.by_id: dict[TaskId, Actor] = {}
        self.names: dict[tuple[str, str], Actor] = {}  # by namespace and name

    def add(self, actor: Actor) -> None:
        self.by_id[actor.actor_id] = actor
        if actor.record.name:
            self.names[actor.record.namespace, actor.record.name] = actor

    def free_name(self, actor: Actor) -> None:
        """It is dead, or will be: as in Ray its name may be used again at once."""
        key = (actor.record.namespace, actor.record.name)
        if self.names.get(key) is actor:
            del self.names[key]
