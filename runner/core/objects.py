"""The object's state machine and record, and the counting of what keeps it alive."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from runner.core.task import NO_CLIENT, Task
from runner.core.values import FailureRecord, SegmentRecord, ValueRecord
from runner.errors import IllegalTransitionError
from runner.ids import ClientId, MachineId, ObjectId


class ObjectState(enum.IntEnum):
    """Where an object is in its life."""

    PENDING = 1  # its task has not settled
    READY = 2
    FAILED = 3  # its task has failed or was cancelled, or its value is lost for good
    FREED = 4  # nobody can name it any more; out of the table
    EVICTED = 5  # the value is gone; made again when somebody needs it


_O = ObjectState
TRANSITIONS: dict[ObjectState, frozenset[ObjectState]] = {
    _O.PENDING: frozenset({_O.READY, _O.FAILED}),
    _O.READY: frozenset({_O.FREED, _O.EVICTED, _O.FAILED}),
    _O.EVICTED: frozenset({_O.PENDING, _O.FAILED, _O.FREED}),
    _O.FAILED: frozenset({_O.FREED}),
    _O.FREED: frozenset(),
}


@dataclass(slots=True, eq=False)
class Object:
    """One immutable value. Kept while a session holds it or something pins it.

    Of one that only lineage keeps, the record stays: an inline value too, a segment not.
    """

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
    lineage: int = 0  # settled tasks that may run again, with it as argument
    gone: str = ""  # evicted: why

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
        counts = f"{self.holders} holders, {self.pins} pins" + (f", {self.lineage} lineage" if self.lineage else "")
        return f"object {self.object_id}: {self.state.name.lower()}, {maker}, {counts}"


class ObjectTable:
    """All objects that are not freed.

    A pending object is never freed: its task runs to the end even when nobody
    wants the result any more, as in Ray.
    """

    def __init__(self) -> None:
        self.by_id: dict[ObjectId, Object] = {}
        self.volatile: dict[MachineId, dict[ObjectId, Object]] = {}  # ready ones that only this machine has
        self.freed: list[Object] = []  # since the owner last looked
        self.dropped: list[tuple[ObjectId, SegmentRecord]] = []  # of objects that stay; since the owner last looked
        self.abandoned: list[Task] = []  # actors that nobody can name any more, since the owner last looked

    def settle(self, obj: Object, value: ValueRecord | None, failure: FailureRecord | None) -> None:
        """Make it final. What the value contains is pinned before anything is released."""
        if value is not None:
            obj.move(ObjectState.READY)
            obj.value = value
            if value.contained:
                obj.contained = self.pin(value.contained)
            if value.segment is not None and value.segment.machine_id:
                self.volatile.setdefault(value.segment.machine_id, {})[obj.object_id] = obj
        else:
            obj.move(ObjectState.FAILED)
            obj.failure = failure

    def lose(self, obj: Object, gone: str, failure: FailureRecord | None) -> None:
        """Its value is gone: for good, with this failure, or until it is made again."""
        contained: tuple[ObjectId, ...] = ()
        if obj.value is not None:
            contained = self._let_go(obj)
        obj.move(ObjectState.EVICTED if failure is None else ObjectState.FAILED)
        obj.gone, obj.failure = ("", failure) if failure is not None else (gone, None)
        self.unpin(contained)

    def relocate(self, obj: Object, value: ValueRecord) -> None:
        """The same value lies elsewhere now. What it contains stays pinned as it is."""
        assert obj.value is not None
        self._forget_place(obj)
        if obj.value.segment is not None:
            self.dropped.append((obj.object_id, obj.value.segment))
        obj.value = value

    def _let_go(self, obj: Object) -> tuple[ObjectId, ...]:
        """Drop the value but keep the object; what it contained is to be unpinned."""
        assert obj.value is not None
        self._forget_place(obj)
        if obj.value.segment is not None:
            self.dropped.append((obj.object_id, obj.value.segment))
        contained, obj.contained, obj.value = obj.contained, (), None
        return contained

    def _forget_place(self, obj: Object) -> None:
        segment = None if obj.value is None else obj.value.segment
        if segment is not None and segment.machine_id:
            there = self.volatile[segment.machine_id]
            del there[obj.object_id]
            if not there:
                del self.volatile[segment.machine_id]

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

    def keep_lineage(self, object_ids: tuple[ObjectId, ...]) -> None:
        """What pinned these may need them again; pins become lineage."""
        for object_id in object_ids:
            self.by_id[object_id].lineage += 1
        self.unpin(object_ids)

    def use_lineage(self, object_ids: tuple[ObjectId, ...]) -> None:
        """The reverse: it does need them again."""
        for object_id in object_ids:
            obj = self.by_id[object_id]
            obj.pins += 1
            obj.lineage -= 1

    def drop_lineage(self, object_ids: tuple[ObjectId, ...]) -> None:
        for object_id in object_ids:
            obj = self.by_id[object_id]
            obj.lineage -= 1
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
            if obj.lineage:
                if obj.value is None or obj.value.segment is None:
                    continue
                contained = self._let_go(obj)
                obj.move(ObjectState.EVICTED)
                obj.gone = "nobody held it any more"
            else:
                contained = obj.contained
                self._forget_place(obj)
                obj.move(ObjectState.FREED)
                del self.by_id[obj.object_id]
                self.freed.append(obj)
            for object_id in contained:
                inner = self.by_id[object_id]
                inner.pins -= 1
                pending.append(inner)
