"""What the core decided: the journal's vocabulary, and the only input of `apply`.

Facts are tuples, because one no-op task costs four of them and building and
encoding a tuple is several times cheaper than a dataclass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from runner.core.suspend_facts import SuspendFact
from runner.core.values import (
    CheckpointRecord,
    FailureRecord,
    GroupRecord,
    Labels,
    PoolRecord,
    Shape,
    TaskRecord,
    ValueRecord,
)
from runner.ids import ClientId, ExecutorId, FunctionId, MachineId, ObjectId, TaskId


# ---- clients ----
class ClientSeen(NamedTuple):
    client_id: ClientId
    executor_id: ExecutorId | None


class ClientLeased(NamedTuple):
    client_id: ClientId
    until_s: float | None  # None: connected, no end in sight


class ClientGone(NamedTuple):
    client_id: ClientId


class FrameDone(NamedTuple):
    client_id: ClientId
    seq: int


class FunctionAdded(NamedTuple):
    client_id: ClientId
    function_id: FunctionId
    name: str
    payload: bytes  # empty when the function was known already: only the client is added
    contained: tuple[ObjectId, ...]
    package_ids: tuple[str, ...]


class PackageAdded(NamedTuple):
    package_id: str
    payload: bytes


# ---- objects ----
class ObjectStored(NamedTuple):
    client_id: ClientId
    object_id: ObjectId
    value: ValueRecord


class RefsTaken(NamedTuple):
    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


class RefsDropped(NamedTuple):
    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


class ObjectsAwaited(NamedTuple):
    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


class PromisesMade(NamedTuple):
    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


class PromiseEnded(NamedTuple):
    """With a value, or with a failure."""

    client_id: ClientId
    object_id: ObjectId
    value: ValueRecord | None
    failure: FailureRecord | None


class ObjectLost(NamedTuple):
    """Its value is gone. With a failure: for good; without: a task makes it again when it is needed."""

    object_id: ObjectId
    why: str
    failure: FailureRecord | None


class ObjectMoved(NamedTuple):
    """The same value, elsewhere."""

    object_id: ObjectId
    value: ValueRecord


# ---- actors ----
class ActorWatched(NamedTuple):
    client_id: ClientId
    actor_id: TaskId


class ActorUp(NamedTuple):
    """It takes calls."""

    actor_id: TaskId
    address: str
    secret: bytes


class ActorReleased(NamedTuple):
    """Nobody can call it any more: it ends gracefully and is not restarted."""

    actor_id: TaskId


class ActorShot(NamedTuple):
    """This incarnation is killed; whether another follows is decided as after a crash."""

    actor_id: TaskId


# ---- tasks ----
class TaskAdded(NamedTuple):
    task: TaskRecord
    is_subscribed: bool


class CancelMarked(NamedTuple):
    task_id: TaskId
    is_forced: bool
    is_recursive: bool


class TaskSettled(NamedTuple):
    """Ended without a result, from whatever state."""

    task_id: TaskId
    is_cancelled: bool
    failure: FailureRecord
    now_s: float


class BackoffEnded(NamedTuple):
    task_id: TaskId


class AttemptAssigned(NamedTuple):
    task_id: TaskId
    attempt: int
    machine_id: MachineId
    slot: int
    gpu_ids: tuple[int, ...]
    bundle: int = -1  # of its placement group; -1: it has none


class AttemptBegan(NamedTuple):
    task_id: TaskId
    executor_id: ExecutorId
    now_s: float


class AttemptDone(NamedTuple):
    task_id: TaskId
    values: tuple[ValueRecord, ...]
    duration_s: float
    now_s: float


class AttemptRetried(NamedTuple):
    """This attempt is over, the task is not."""

    task_id: TaskId
    line: str  # for the task's history; empty: nothing worth telling
    is_charged: bool
    is_killed: bool  # counts as an executor that the task killed
    until_s: float | None  # backoff; None: queued at once


class AttemptGivenBack(NamedTuple):
    """Never started; `is_fenced`: the agent has yet to hear that it is not wanted any more."""

    task_id: TaskId
    is_fenced: bool


class AttemptPaused(NamedTuple):
    """Blocked: its CPUs are free."""

    task_id: TaskId


class AttemptAwoke(NamedTuple):
    """No longer blocked, but its CPUs are taken: waits for them on its machine."""

    task_id: TaskId


class AttemptResumed(NamedTuple):
    task_id: TaskId


class TaskReshaped(NamedTuple):
    """Its next attempts need other amounts than it was submitted with."""

    task_id: TaskId
    shape: Shape


# ---- placement groups ----
class GroupAdded(NamedTuple):
    group: GroupRecord
    now_s: float


class GroupPlaced(NamedTuple):
    """It stands: each bundle that had no place has one."""

    group_id: str
    places: tuple[tuple[int, MachineId, tuple[int, ...]], ...]  # bundle, machine, GPUs
    now_s: float


class BundlesLost(NamedTuple):
    group_id: str
    bundles: tuple[int, ...]
    now_s: float


class GroupEnded(NamedTuple):
    group_id: str
    state: int
    failure: FailureRecord  # of those who still want something of it


class TaskRerun(NamedTuple):
    """It had succeeded, and runs again because a result was lost. Charged as a retry."""

    task_id: TaskId


class InputsMissed(NamedTuple):
    """It was queued, but a value that it needs is gone: it waits again."""

    task_id: TaskId


class CheckpointCommitted(NamedTuple):
    task_id: TaskId
    checkpoint: CheckpointRecord


# ---- machines ----
class MachineAdded(NamedTuple):
    machine_id: MachineId
    shape: Shape
    provider: str
    now_s: float
    pool: str = ""  # empty: added by hand; nobody replaces it, and it stays
    is_single_use: bool = False
    labels: Labels = ()


class MachineNamed(NamedTuple):
    machine_id: MachineId
    provider_machine_id: str


class MachineMoved(NamedTuple):
    machine_id: MachineId
    state: int
    reason: str


class MachineJoined(NamedTuple):
    machine_id: MachineId
    agent_instance_id: str
    generation: int
    shape: Shape
    host_id: str
    phases: Mapping[str, float]
    now_s: float
    labels: Labels = ()
    is_awake: bool = False  # the same agent, back from a suspend: what it was sent and runs is still there


# ---- generators ----
class ItemsStored(NamedTuple):
    """The next items of a generator."""

    task_id: TaskId
    values: tuple[ValueRecord, ...]


class ItemsTaken(NamedTuple):
    """Its reader has taken so many."""

    task_id: TaskId
    up_to: int


class StreamEnded(NamedTuple):
    """Its reader reads no further than `count` items."""

    task_id: TaskId
    up_to: int


class PoolsSet(NamedTuple):
    """The pools from now on, all of them."""

    pools: tuple[PoolRecord, ...]
    is_configured: bool  # said at a start, not by somebody who adds or removes machines


Fact = (
    ClientSeen
    | ClientLeased
    | ClientGone
    | FrameDone
    | FunctionAdded
    | PackageAdded
    | ObjectStored
    | RefsTaken
    | RefsDropped
    | ObjectsAwaited
    | PromisesMade
    | PromiseEnded
    | ObjectLost
    | ObjectMoved
    | ActorWatched
    | ActorUp
    | ActorReleased
    | ActorShot
    | TaskAdded
    | CancelMarked
    | TaskSettled
    | BackoffEnded
    | AttemptAssigned
    | AttemptBegan
    | AttemptDone
    | AttemptRetried
    | AttemptGivenBack
    | AttemptPaused
    | AttemptAwoke
    | AttemptResumed
    | TaskReshaped
    | GroupAdded
    | GroupPlaced
    | BundlesLost
    | GroupEnded
    | TaskRerun
    | InputsMissed
    | CheckpointCommitted
    | MachineAdded
    | MachineNamed
    | MachineMoved
    | MachineJoined
    | PoolsSet
    | ItemsStored
    | ItemsTaken
    | StreamEnded
    | SuspendFact
)
