"""Plain records shared by events, facts and commands. `payload` bytes are protobuf that the core never reads."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from runner.ids import ClientId, FunctionId, MachineId, ObjectId, TaskId

# Fixed point: UNIT is one CPU, one GPU, one of a custom resource. "memory" is in bytes, unscaled.
UNIT = 10_000
CPU, GPU, MEMORY = "CPU", "GPU", "memory"

# Resource amounts in units, sorted by name; hashable, so it is also the key of a queue.
Shape = tuple[tuple[str, int], ...]
# What machines are called by, or rules for that; sorted by key.
Labels = tuple[tuple[str, str], ...]


def make_shape(amounts: Mapping[str, int]) -> Shape:
    """Canonical shape: sorted, without zeros."""
    return tuple(sorted((name, amount) for name, amount in amounts.items() if amount))


class FailureKind(enum.IntEnum):
    """Same numbers as the wire's FailureKind."""

    USER = 1
    WORKER_CRASHED = 2
    OUT_OF_MEMORY = 3
    MACHINE_LOST = 4
    CANCELLED = 5
    TIMEOUT = 6
    UNSCHEDULABLE = 7
    OBJECT_LOST = 8
    SETUP = 9
    STORE_FULL = 10
    ACTOR_DIED = 11
    ACTOR_UNAVAILABLE = 12
    OWNER_DIED = 13
    GROUP_REMOVED = 14
    KILLED = 15


class FailureRecord(NamedTuple):
    """Why something ended without a result; made by an agent (with `payload`) or by the core (without)."""

    kind: FailureKind
    message: str
    payload: bytes = b""  # serialised Failure as reported; empty when the core made it
    task_id: TaskId = TaskId("")
    task_name: str = ""
    attempt: int = 0
    machine_id: MachineId = MachineId("")
    history: tuple[str, ...] = ()
    used_bytes: int = 0  # of memory, where that is why


class SegmentRecord(NamedTuple):
    host_id: str
    path: str
    size_bytes: int
    machine_id: MachineId = MachineId("")  # set: only this machine has it, and it is lost with the machine


class ValueRecord(NamedTuple):
    payload: bytes  # serialised Value: inline bytes or a segment
    contained: tuple[ObjectId, ...] = ()
    segment: SegmentRecord | None = None


class PoolRecord(NamedTuple):
    """Machines of one kind, and how many of them there may be."""

    name: str
    shape: Shape  # of one machine
    min: int
    max: int
    buffer: int = 0  # idle ones kept while there is work
    idle_shutdown_s: float = 30.0
    is_single_use: bool = False  # a machine serves one task and goes
    labels: Labels = ()  # that each has
    unknown_labels: tuple[str, ...] = ()  # keys that each has too, with values that are seen only once it is there
    suspends_idle: bool = False  # an idle machine is suspended instead of drained
    max_suspended_s: float = 0.0  # one that has slept for so long is destroyed; 0: no limit


class CheckpointRecord(NamedTuple):
    step: int
    uri: str
    sha256: str
    size_bytes: int
    attempt: int


class ActorRecord(NamedTuple):
    """What makes a task an actor's creation."""

    name: str = ""
    namespace: str = ""
    get_if_exists: bool = False
    meta: bytes = b""  # for clients


class WishRecord(NamedTuple):
    """What a task asks of its place beside resources; most tasks ask nothing."""

    labels: Labels = ()  # rules that the machine's must follow
    group_id: str = ""
    bundle: int = -1  # of the group; -1: any
    affinity_key: str = ""  # rather where a task with this key ran
    grow_on_oom: bool = False  # more memory after it was killed for memory
    spread: bool = False  # rather a machine with few tasks
    machine_id: str = ""
    is_machine_soft: bool = False  # another one will do


class GroupRecord(NamedTuple):
    """A placement group as it was asked for."""

    group_id: str
    client_id: ClientId
    bundles: tuple[Shape, ...]
    strategy: str = "PACK"
    name: str = ""
    deadline_s: float = 0.0  # to stand, and to stand again; 0: none
    detached: bool = False
    parent: tuple[TaskId, int] | None = None  # (task, attempt) that asked for it


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """What was submitted. Never changes."""

    task_id: TaskId
    client_id: ClientId
    function_id: FunctionId
    payload: bytes  # serialised TaskSpec
    shape: Shape = ((CPU, UNIT),)
    name: str = ""  # for people: the run's name or the function's
    dependencies: tuple[ObjectId, ...] = ()  # must be ready first
    contained: tuple[ObjectId, ...] = ()  # refs nested in the arguments: pinned, not awaited
    num_returns: int = 1
    max_retries: int = 3  # -1: no limit
    retry_user_errors: bool = False
    is_run: bool = False
    detached: bool = False
    priority: int = 0
    parent: tuple[TaskId, int] | None = None  # (task, attempt) that submitted it
    submitted_unix_s: float = 0.0
    is_streaming: bool = False
    backpressure: int = 0
    actor: ActorRecord | None = None
    wishes: WishRecord | None = None


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """Limits and times of the core, in seconds."""

    lost_after_s: float = 60.0
    boot_deadline_s: float = 120.0
    prepare_deadline_s: float = 60.0  # from the end of what ran to an agent that has hung up: hooks, and last reports
    # For the provider to save, and to start again: its own limits are shorter, and many machines take turns there.
    suspend_deadline_s: float = 960.0
    start_deadline_s: float = 330.0
    resume_deadline_s: float = 60.0  # from its start to an agent whose hooks have run; then it is started cold
    client_lost_after_s: float = 30.0
    backoff_first_s: float = 0.5  # doubles per retry
    backoff_max_s: float = 30.0
    poison_after: int = 3  # executors killed by one task before it fails whatever its retries
    chain_depth_max: int = 64  # attempts queued on a machine behind one slot
    chain_target_s: float = 0.05  # expected work queued behind one slot
    destroyed_kept: int = 1_000  # of machines that are gone, how many the listings show
    use_leases: bool = True  # False: the pipe of embedded local machines tells
