"""What the shell must do. Commands are imperative, frozen and idempotent."""

from __future__ import annotations

from dataclasses import dataclass

from runner.core.values import CheckpointRecord, FailureRecord, SegmentRecord, Shape, ValueRecord
from runner.ids import ClientId, FunctionId, MachineId, ObjectId, TaskId


# ---- to machines ----
@dataclass(frozen=True, slots=True)
class SendFunction:
    """Precedes the first StartAttempt that needs it; once per machine generation."""

    machine_id: MachineId
    generation: int
    function_id: FunctionId
    payload: bytes


@dataclass(frozen=True, slots=True)
class SendPackage:
    machine_id: MachineId
    generation: int
    package_id: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class StartAttempt:
    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    slot: int
    payload: bytes  # serialised TaskSpec
    client_id: ClientId
    dependencies: tuple[tuple[ObjectId, ValueRecord], ...] = ()
    gpu_ids: tuple[int, ...] = ()
    checkpoint: CheckpointRecord | None = None
    memory_bytes: int = 0  # its limit now; 0: as its spec says
    items_done: int = 0  # of a generator: stored by earlier attempts
    items_read: int = 0  # of a generator with backpressure


@dataclass(frozen=True, slots=True)
class TellItemsRead:
    """The generator's reader has taken so many items."""

    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    count: int


@dataclass(frozen=True, slots=True)
class StopAttempt:
    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    reason: str  # "cancelled", "fenced", "drain"
    force: bool = False


@dataclass(frozen=True, slots=True)
class ResumeAttempt:
    """The blocked attempt has its CPUs again."""

    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int


@dataclass(frozen=True, slots=True)
class ReplyCheckpoint:
    """Tell the agent whether its checkpoint was committed."""

    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    step: int
    accepted: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FenceAgent:
    """This generation is over: whoever speaks in its name must exit."""

    machine_id: MachineId
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class SuspendAgent:
    machine_id: MachineId
    generation: int
    snapshot: int
    action: str  # "quiet", "prepare", "call off"
    interrupts: bool = False  # with "quiet": what runs is interrupted and given back


# ---- to the provider ----
@dataclass(frozen=True, slots=True)
class SuspendMachine:
    machine_id: MachineId
    snapshot: int


@dataclass(frozen=True, slots=True)
class ResumeMachine:
    """From its snapshot, which the journal says is used up."""

    machine_id: MachineId
    snapshot: int


@dataclass(frozen=True, slots=True)
class ColdStartMachine:
    """Discard what is left of it, a snapshot above all, and boot it again by the same name."""

    machine_id: MachineId
    reason: str


@dataclass(frozen=True, slots=True)
class SurveyMachine:
    """Ask the provider what has become of it."""

    machine_id: MachineId


@dataclass(frozen=True, slots=True)
class CreateMachine:
    machine_id: MachineId
    shape: Shape
    pool: str


@dataclass(frozen=True, slots=True)
class DestroyMachine:
    machine_id: MachineId
    reason: str


# ---- to clients and watchers ----
@dataclass(frozen=True, slots=True)
class NotifyReady:
    """One object is final: exactly one of value and failure is set."""

    client_id: ClientId
    object_id: ObjectId
    value: ValueRecord | None
    failure: FailureRecord | None


@dataclass(frozen=True, slots=True)
class NotifyActor:
    """Where an actor is. `failure`: dead, or restarting, and why."""

    client_id: ClientId
    actor_id: TaskId
    state: str
    incarnation: int = 0
    host_id: str = ""
    address: str = ""
    secret: bytes = b""
    failure: FailureRecord | None = None
    is_asleep: bool = False  # its machine is suspended: who waits for it has to say so


@dataclass(frozen=True, slots=True)
class NotifyFound:
    """The answer to a search, or to the creation of an actor with a name; exactly one of actor_id and failure is set."""

    client_id: ClientId
    request_id: str
    actor_id: TaskId | None
    meta: bytes
    failure: FailureRecord | None


@dataclass(frozen=True, slots=True)
class NotifyItems:
    """Items of a generator for its reader, in order."""

    client_id: ClientId
    task_id: TaskId
    first_index: int
    values: tuple[ValueRecord, ...]
    is_over: bool = False  # nothing comes after them; what became of the generator was told before


@dataclass(frozen=True, slots=True)
class NoteTaskState:
    """For watchers: the task moved. `failure` is set when it failed."""

    task_id: TaskId
    name: str
    client_id: ClientId
    state: str
    attempt: int
    machine_id: MachineId | None
    failure: FailureRecord | None = None
    resumed_from_step: int | None = None  # with state "running" of a new attempt: its checkpoint's step, -1 if none


@dataclass(frozen=True, slots=True)
class NoteCheckpoint:
    task_id: TaskId
    name: str
    client_id: ClientId
    attempt: int
    step: int


@dataclass(frozen=True, slots=True)
class NoteMachineState:
    machine_id: MachineId
    state: str
    generation: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class NotePool:
    """For people: a pool has fewer machines than it should, and why."""

    pool: str
    text: str


@dataclass(frozen=True, slots=True)
class ForgetTask:
    """No ref to it is left and it is no run: its events, logs and checkpoints may go."""

    task_id: TaskId


@dataclass(frozen=True, slots=True)
class FreeSegment:
    object_id: ObjectId
    segment: SegmentRecord


@dataclass(frozen=True, slots=True)
class DropCheckpoint:
    """A newer one was committed, or the task is forgotten."""

    task_id: TaskId
    checkpoint: CheckpointRecord


@dataclass(frozen=True, slots=True)
class SweepCheckpoints:
    """The attempt is over: what it saved and did not commit may go, the rest of the task's checkpoints but `kept` too."""

    task_id: TaskId
    kept: CheckpointRecord | None


@dataclass(frozen=True, slots=True)
class NoteObject:
    """For whoever waits for a value that was lost, or that moves: look again."""

    object_id: ObjectId


@dataclass(frozen=True, slots=True)
class BringObjects:
    """The machine is to end: what only it has must come to the coordinator's store."""

    machine_id: MachineId
    generation: int
    object_ids: tuple[ObjectId, ...]


Command = (
    SendFunction
    | SendPackage
    | StartAttempt
    | StopAttempt
    | ResumeAttempt
    | ReplyCheckpoint
    | FenceAgent
    | SuspendAgent
    | SuspendMachine
    | ResumeMachine
    | ColdStartMachine
    | SurveyMachine
    | CreateMachine
    | DestroyMachine
    | NotifyReady
    | NotifyItems
    | TellItemsRead
    | NotifyActor
    | NotifyFound
    | NoteTaskState
    | NoteCheckpoint
    | NoteMachineState
    | NotePool
    | ForgetTask
    | FreeSegment
    | DropCheckpoint
    | SweepCheckpoints
    | NoteObject
    | BringObjects
)
