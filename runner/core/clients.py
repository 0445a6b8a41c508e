"""Sessions, and the functions and packages they brought."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.core.task import Task
from runner.ids import ClientId, ExecutorId, FunctionId, ObjectId, TaskId

if TYPE_CHECKING:
    from runner.core.groups import Group


@dataclass(slots=True, eq=False)
class Client:
    """One session: a client's, or that of an executor."""

    client_id: ClientId
    executor_id: ExecutorId | None
    lease_until_s: float | None = None  # set while it is disconnected
    frame_seq: int = 0
    held: set[ObjectId] = field(default_factory=set)
    tasks: dict[TaskId, Task] = field(default_factory=dict)  # unfinished ones that end with it
    watched: set[TaskId] = field(default_factory=set)  # actors
    promised: set[ObjectId] = field(default_factory=set)  # pending values that it is to make
    groups: dict[str, Group] = field(default_factory=dict)  # placement groups that end with it
    functions: set[FunctionId] = field(default_factory=set)
    streams: dict[TaskId, Task] = field(default_factory=dict)  # generators that it reads
    only: tuple[ClientId, ...] = ()  # itself; shared by all objects that it alone asked for

    def __post_init__(self) -> None:
        self.only = (self.client_id,)


# Weight of the newest duration; old ones fade within some ten calls.
_EMA_WEIGHT = 0.2


@dataclass(slots=True, eq=False)
class Function:
    """A pickled function; kept while a session that registered it or an unfinished task needs it."""

    function_id: FunctionId
    name: str
    payload: bytes
    package_ids: tuple[str, ...]
    pinned: tuple[ObjectId, ...]
    clients: int = 0
    uses: int = 0  # unfinished tasks
    mean_s: float | None = None  # of the durations of its calls; None: none has ended

    def learn(self, duration_s: float) -> None:
        self.mean_s = duration_s if self.mean_s is None else self.mean_s + _EMA_WEIGHT * (duration_s - self.mean_s)
