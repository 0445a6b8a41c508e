"""The object's state machine and record, and the counting of what keeps it alive."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from runner.core.task import NO_CLIENT, Task
from runner.core.values import FailureRecord, ValueRecord
from runner.errors import IllegalTransitionError
from runner.ids import ClientId, ObjectId


class ObjectState(enum.IntEnum):
    """Where an object is in its life."""

    PENDING = 1  # its task has not settled
    READY = 2
    FAILED = 3  # its task has failed or was cancelled
    FREED = 4  # nobody can name it any more; out of the table


_O = ObjectState
TRANSITIONS: dict[ObjectState, frozenset[ObjectState]] = {
    _O.PENDING: frozenset({_O.READY, _O.FAILED}),
    _O.READY: frozenset({_O.FREED}),
    _O.FAILED: frozenset({_O.FREED}),
    _O.FREED: frozenset(),
}


@dataclass(slots=True, eq=False)
class Object:
    """One immutable value. Kept while a session holds it or something pins it."""

    object_id: ObjectId
    maker: Task | None  # None: it was put
    state: ObjectState = ObjectState.PENDING
    value: ValueRecord | None = None
    failure: FailureRecord | None = None
    holders: int = 0  # sessions whose `held` has it
    pins: int = 0  # unfinished tasks with it as argument, live containers, registered functions
    contained: tuple[ObjectId, ...] = ()  # what it pins itself
    dependents: list[Task] | None = None  # waiting for it
    subscribers: tuple[ClientId, ...] | None = None
    promised_by: ClientId = NO_CLIENT  # pending without a maker: the session that is to make it

    def move(self, to: ObjectState) -> None:
        """Change state.

        Raises:
            IllegalTransitionError: the table does not list the move; carries the object's story.
        """
        if to not in TRANSITIONS[self.state]:
            raise IllegalTransitionError(f"object {self.object_id}: {self.state.name} -> {to.name}\n{self.story()}")
        self.state = to

    def story(self) -> str:
        """How it stands, for people."""
        maker = f"made by {self.maker.task_id}" if self.maker is not None else self.promised_by or "put"
        return f"object {self.object_id}: {self.state.name.lower()}, {maker}, {self.holders} holders, {self.pins} pins"


class ObjectTable:
    """All objects that are not freed.

    A pending object is never freed: its task runs to the end even when nobody
    wants the result any more, as in Ray.
    """

    def __init__(self) -> None:
        self.by_id: dict[ObjectId, Object] = {}
        self.freed: list[Object] = []  # since the owner last looked
        self.abandoned: list[Task] = []  # actors that nobody can name any more, since the owner last looked

    def settle(self, obj: Object, value: ValueRecord | None, failure: FailureRecord | None) -> None:
        """Make it final. What the value contains is pinned before anything is released."""
        if value is not None:
            obj.move(ObjectState.READY)
            obj.value = value
            if value.contained:
                obj.contained = self.pin(value.contained)
        else:
            obj.move(ObjectState.FAILED)
            obj.failure = failure

    def hold(self, held: set[ObjectId], object_ids: Iterable[ObjectId]) -> None:
        """A session with the set `held` becomes a holder; unknown ids are ignored."""
        for object_id in object_ids:
            obj = self.by_id.get(object_id)
            if obj is not None and object_id not in held:
                held.add(object_id)
                obj.holders += 1

    def drop(self, held: set[ObjectId], object_ids: Iterable[ObjectId]) -> None:
        for object_id in object_ids:
            if object_id in held:
                held.remove(object_id)
                obj = self.by_id[object_id]
                obj.holders -= 1
                if not obj.holders and not obj.pins:
                    self.free_if_unused(obj)

    def pin(self, object_ids: Iterable[ObjectId]) -> tuple[ObjectId, ...]:
        """Pin those that exist, and say which: exactly these must be unpinned later."""
        found = tuple(object_id for object_id in object_ids if object_id in self.by_id)
        for object_id in found:
            self.by_id[object_id].pins += 1
        return found

    def unpin(self, object_ids: Iterable[ObjectId]) -> None:
        for object_id in object_ids:
            obj = self.by_id[object_id]
            obj.pins -= 1
            self.free_if_unused(obj)

    def free_if_unused(self, obj: Object) -> None:
        """Free it, and whatever only it kept alive (without recursion: containers nest deeply)."""
        pending = [obj]
        while pending:
            obj = pending.pop()
            if obj.holders or obj.pins or obj.state is ObjectState.FREED:
                continue
            if obj.state is ObjectState.PENDING:
                if obj.maker is not None and obj.maker.record.actor is not None:
                    self.abandoned.append(obj.maker)
                continue
            obj.move(ObjectState.FREED)
            del self.by_id[obj.object_id]
            self.freed.append(obj)
            for object_id in obj.contained:
                inner = self.by_id[object_id]
                inner.pins -= 1
                pending.append(inner)
