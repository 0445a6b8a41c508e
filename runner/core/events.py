"""What happens to a cluster. Events are past tense, frozen, and carry everything the core may look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runner.core.group_events import GroupRemovalRequested, GroupRequested
from runner.core.stream_events import ItemsYielded, StreamDropped, StreamRead
from runner.core.suspend_events import SuspendEvent
from runner.core.value_events import ObjectBrought as ObjectBrought  # noqa: PLC0414
from runner.core.value_events import ObjectWanted as ObjectWanted  # noqa: PLC0414
from runner.core.value_events import ValuesKept as ValuesKept  # noqa: PLC0414
from runner.core.values import CheckpointRecord, FailureRecord, Labels, PoolRecord, Shape, TaskRecord, ValueRecord
from runner.ids import ClientId, ExecutorId, FunctionId, MachineId, ObjectId, TaskId


# ---- clients (an executor's session is a client too, with `executor_id` set) ----
@dataclass(frozen=True, slots=True)
class ClientConnected:
    """A session said hello for the first time or again."""

    client_id: ClientId
    # Set for sessions inside executors: they live and die with the executor.
    executor_id: ExecutorId | None = None


@dataclass(frozen=True, slots=True)
class ClientDisconnected:
    """The stream broke; the session lease runs from now."""

    client_id: ClientId


@dataclass(frozen=True, slots=True)
class ClientClosed:
    """The session ended on purpose, or its executor is gone. Its refs and unfinished work go at once."""

    client_id: ClientId


@dataclass(frozen=True, slots=True)
class FrameApplied:
    """All operations of this client frame have been handed over before this event."""

    client_id: ClientId
    seq: int


@dataclass(frozen=True, slots=True)
class FunctionRegistered:
    client_id: ClientId
    function_id: FunctionId
    name: str
    payload: bytes  # serialised Function
    contained: tuple[ObjectId, ...] = ()
    package_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PackageRegistered:
    package_id: str
    payload: bytes  # serialised Package


@dataclass(frozen=True, slots=True)
class TaskSubmitted:
    client_id: ClientId
    task: TaskRecord
    subscribe: bool  # tell the client when the returns are ready, without being asked


@dataclass(frozen=True, slots=True)
class ObjectPut:
    client_id: ClientId
    object_id: ObjectId
    value: ValueRecord


@dataclass(frozen=True, slots=True)
class PutRefused:
    """There was no room to remember it."""

    object_id: ObjectId
    value: ValueRecord


@dataclass(frozen=True, slots=True)
class RefsAdded:
    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True)
class RefsReleased:
    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True)
class ObjectsResolved:
    """A client asks to be told when these objects are ready."""

    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True)
class ObjectsPromised:
    """The session will make these values itself, and says so before anybody else may ask for them."""

    client_id: ClientId
    object_ids: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True)
class PromiseFulfilled:
    """Exactly one of value and failure is set."""

    client_id: ClientId
    object_id: ObjectId
    value: ValueRecord | None
    failure: FailureRecord | None


@dataclass(frozen=True, slots=True)
class ActorsWatched:
    """A client asks to be told where these actors are, now and whenever that changes."""

    client_id: ClientId
    actor_ids: tuple[TaskId, ...]


@dataclass(frozen=True, slots=True)
class ActorSought:
    client_id: ClientId
    request_id: str
    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class ActorKillRequested:
    actor_id: TaskId
    no_restart: bool


@dataclass(frozen=True, slots=True)
class CancelRequested:
    task_id: TaskId
    force: bool
    recursive: bool


# ---- machines ----
@dataclass(frozen=True, slots=True)
class MachinesRequested:
    """Somebody wants these machines beside the pools: nobody replaces them, and they stay until they are removed."""

    machine_ids: tuple[MachineId, ...]
    shape: Shape
    provider: str


@dataclass(frozen=True, slots=True)
class PoolsConfigured:
    """A coordinator has started with these pools."""

    pools: tuple[PoolRecord, ...]
    start: Mapping[str, int]  # by pool: how many machines to boot at once
    provider: str
    warnings: tuple[str, ...] = ()  # what the provider says of them


@dataclass(frozen=True, slots=True)
class MachinesWanted:
    """Somebody adds this many machines to a pool, for good."""

    pool: str
    count: int


@dataclass(frozen=True, slots=True)
class BudgetChanged:
    """Whether `max_cost` is used up: then nothing more is booted."""

    is_spent: bool


@dataclass(frozen=True, slots=True)
class MachineCreated:
    """The provider answered `create`."""

    machine_id: MachineId
    provider_machine_id: str


@dataclass(frozen=True, slots=True)
class MachineBootFailed:
    machine_id: MachineId
    reason: str
    is_permanent: bool = False  # another one would fail in the same way
    is_capacity: bool = False  # the provider has no room for it now


@dataclass(frozen=True, slots=True)
class MachineRegistered:
    """An agent presented a valid join token. The same instance id keeps the generation."""

    machine_id: MachineId
    agent_instance_id: str
    shape: Shape
    host_id: str
    phases: Mapping[str, float] = field(default_factory=dict)  # unix seconds
    labels: Labels = ()  # beside those of its pool
    snapshot: int = 0  # it was made ready for this one, and may come from it; 0: a new agent


@dataclass(frozen=True, slots=True)
class MachineHeard:
    """Any frame from the agent arrived: renews its lease. Received at the event's `now_s`."""

    machine_id: MachineId
    generation: int


@dataclass(frozen=True, slots=True)
class MachineExited:
    """The provider confirms that the machine is gone."""

    machine_id: MachineId
    reason: str


@dataclass(frozen=True, slots=True)
class MachineRemovalRequested:
    machine_id: MachineId
    force: bool
    by_itself: bool = False  # it was told to end by somebody else, and is to be replaced


@dataclass(frozen=True, slots=True)
class MachineDestroyed:
    """The provider answered `destroy`."""

    machine_id: MachineId


@dataclass(frozen=True, slots=True)
class LoopStalled:
    """The coordinator itself did not run for this long: leases are extended by it."""

    stalled_s: float


# ---- reports of agents; all fenced by (task, attempt, generation) ----
@dataclass(frozen=True, slots=True)
class AttemptStarted:
    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    executor_id: ExecutorId


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    values: tuple[ValueRecord, ...]
    duration_s: float


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    failure: FailureRecord
    retryable: bool  # a user error that `retry_exceptions` covers


@dataclass(frozen=True, slots=True)
class AttemptReturned:
    """The agent did not start it; it goes back to the queue free of charge."""

    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptBlocked:
    """The attempt waits in get or wait: its CPUs are free, and what was chained behind it came back."""

    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int


@dataclass(frozen=True, slots=True)
class AttemptUnblocked:
    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int


@dataclass(frozen=True, slots=True)
class ActorCameUp:
    """The constructor has returned."""

    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    address: str
    secret: bytes


@dataclass(frozen=True, slots=True)
class CheckpointSaved:
    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    checkpoint: CheckpointRecord


# ---- time and restarts ----
@dataclass(frozen=True, slots=True)
class ClockAdvanced:
    """No fact but the passing of time; lets leases, backoffs and deadlines fire."""


@dataclass(frozen=True, slots=True)
class CoordinatorRestarted:
    """The journal was replayed in a new process and the old fleet is gone."""


Event = (
    ClientConnected
    | ClientDisconnected
    | ClientClosed
    | FrameApplied
    | FunctionRegistered
    | PackageRegistered
    | TaskSubmitted
    | ObjectPut
    | PutRefused
    | RefsAdded
    | RefsReleased
    | ObjectsResolved
    | ObjectWanted
    | ObjectBrought
    | ValuesKept
    | ObjectsPromised
    | PromiseFulfilled
    | ActorsWatched
    | ActorSought
    | ActorKillRequested
    | CancelRequested
    | GroupRequested
    | GroupRemovalRequested
    | MachinesRequested
    | PoolsConfigured
    | MachinesWanted
    | BudgetChanged
    | MachineCreated
    | MachineBootFailed
    | MachineRegistered
    | MachineHeard
    | MachineExited
    | MachineRemovalRequested
    | MachineDestroyed
    | SuspendEvent
    | LoopStalled
    | AttemptStarted
    | AttemptSucceeded
    | AttemptFailed
    | AttemptReturned
    | AttemptBlocked
    | AttemptUnblocked
    | ActorCameUp
    | CheckpointSaved
    | ItemsYielded
    | StreamRead
    | StreamDropped
    | ClockAdvanced
    | CoordinatorRestarted
)
