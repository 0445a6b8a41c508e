"""The placement group's state machine and record: bundles of resources that are reserved all together or not at all."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

from runner.core.placement import PlaceIndex
from runner.core.reservation import Reservation
from runner.core.task import Task
from runner.core.values import FailureRecord, GroupRecord, Shape
from runner.errors import IllegalTransitionError
from runner.ids import ClientId, TaskId


class GroupState(enum.IntEnum):
    """Where a placement group is in its life. Numbers are in journals."""

    PENDING = 1  # waits for room for all its bundles; holds nothing
    CREATED = 2  # all of them stand
    RESCHEDULING = 3  # has lost machines: waits for room for their bundles, and keeps the others
    REMOVED = 4  # by its creator, or at its end
    FAILED = 5  # there is no room for it, and will not be, or not in time

    @property
    def label(self) -> str:
        """The name on the wire and in listings."""
        return self.name.lower()


_G = GroupState
TRANSITIONS: dict[GroupState, frozenset[GroupState]] = {
    _G.PENDING: frozenset({_G.CREATED, _G.REMOVED, _G.FAILED}),
    _G.CREATED: frozenset({_G.RESCHEDULING, _G.REMOVED}),
    _G.RESCHEDULING: frozenset({_G.CREATED, _G.REMOVED, _G.FAILED}),
    _G.REMOVED: frozenset(),
    _G.FAILED: frozenset(),
}
# Of groups that are over, how many can still be asked about.
_ENDED_KEPT = 1_000


@dataclass(slots=True, eq=False)
class Group:
    """One placement group. Changed only by applying facts."""

    record: GroupRecord
    order: int
    owner_id: ClientId  # the client at whose end it is removed, unless it is detached
    created_s: float
    state: GroupState = GroupState.PENDING
    attempt: int = 0  # how often it came to stand: raised for all bundles when one of them has moved
    places: list[Reservation | None] = field(default_factory=list)
    due_s: float | None = None  # must stand by then
    made: int = 0  # reservations, those that were lost included
    failure: FailureRecord | None = None  # over: why its tasks end
    tasks: dict[TaskId, Task] = field(default_factory=dict)  # unfinished ones that may run in it only
    index: PlaceIndex[Reservation] = field(default_factory=PlaceIndex)
    lacking: tuple[Shape, ...] = ()  # what there was no room for, when that was looked at last

    def __post_init__(self) -> None:
        self.places = [None] * len(self.record.bundles)

    @property
    def group_id(self) -> str:
        return self.record.group_id

    def is_over(self) -> bool:
        return not TRANSITIONS[self.state]

    def standing(self) -> list[Reservation]:
        """The bundles that have their place."""
        return [each for each in self.places if each is not None]

    def missing(self) -> list[tuple[int, Shape]]:
        """The bundles that have none."""
        return [(i, shape) for i, shape in enumerate(self.record.bundles) if self.places[i] is None]

    def move(self, to: GroupState) -> None:
        """Change state.

        Raises:
            IllegalTransitionError: the table does not list the move; carries the story.
        """
        if to not in TRANSITIONS[self.state]:
            raise IllegalTransitionError(f"{self.story()}: {self.state.label} -> {to.label}")
        self.state = to

    def story(self) -> str:
        """How it stands, for people."""
        name = f" ({self.record.name})" if self.record.name else ""
        return f"placement group {self.group_id}{name}"


class GroupTable:
    """All placement groups that are not long over."""

    def __init__(self) -> None:
        self.by_id: dict[str, Group] = {}
        self.waiting: dict[Group, None] = {}  # for room, first come first
        self.ended: deque[Group] = deque()
        self.order = 0
        self.tried_s = float("-inf")  # when room was last looked for
        self.retry_s = float("-inf")  # of the timer that looks again

    def end(self, group: Group) -> None:
        """It is over; the oldest of those is forgotten."""
        self.waiting.pop(group, None)
        self.ended.append(group)
        if len(self.ended) > _ENDED_KEPT:
            del self.by_id[self.ended.popleft().group_id]
