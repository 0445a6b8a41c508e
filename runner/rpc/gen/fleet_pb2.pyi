from runner.rpc.gen import client_pb2 as _client_pb2
from runner.rpc.gen import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WakeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WAKE_KIND_UNSPECIFIED: _ClassVar[WakeKind]
    WAKE_KIND_RESUMED: _ClassVar[WakeKind]
    WAKE_KIND_COLD: _ClassVar[WakeKind]
    WAKE_KIND_CANCELLED: _ClassVar[WakeKind]

class SuspendAction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUSPEND_ACTION_UNSPECIFIED: _ClassVar[SuspendAction]
    SUSPEND_ACTION_QUIET: _ClassVar[SuspendAction]
    SUSPEND_ACTION_PREPARE: _ClassVar[SuspendAction]
    SUSPEND_ACTION_CALL_OFF: _ClassVar[SuspendAction]

class StopReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_REASON_UNSPECIFIED: _ClassVar[StopReason]
    STOP_REASON_CANCELLED: _ClassVar[StopReason]
    STOP_REASON_TIMEOUT: _ClassVar[StopReason]
    STOP_REASON_FENCED: _ClassVar[StopReason]
    STOP_REASON_DRAIN: _ClassVar[StopReason]
    STOP_REASON_RELEASED: _ClassVar[StopReason]

class SuspendProgress(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SUSPEND_PROGRESS_UNSPECIFIED: _ClassVar[SuspendProgress]
    SUSPEND_PROGRESS_QUIET: _ClassVar[SuspendProgress]
    SUSPEND_PROGRESS_PREPARED: _ClassVar[SuspendProgress]
    SUSPEND_PROGRESS_REFUSED: _ClassVar[SuspendProgress]
WAKE_KIND_UNSPECIFIED: WakeKind
WAKE_KIND_RESUMED: WakeKind
WAKE_KIND_COLD: WakeKind
WAKE_KIND_CANCELLED: WakeKind
SUSPEND_ACTION_UNSPECIFIED: SuspendAction
SUSPEND_ACTION_QUIET: SuspendAction
SUSPEND_ACTION_PREPARE: SuspendAction
SUSPEND_ACTION_CALL_OFF: SuspendAction
STOP_REASON_UNSPECIFIED: StopReason
STOP_REASON_CANCELLED: StopReason
STOP_REASON_TIMEOUT: StopReason
STOP_REASON_FENCED: StopReason
STOP_REASON_DRAIN: StopReason
STOP_REASON_RELEASED: StopReason
SUSPEND_PROGRESS_UNSPECIFIED: SuspendProgress
SUSPEND_PROGRESS_QUIET: SuspendProgress
SUSPEND_PROGRESS_PREPARED: SuspendProgress
SUSPEND_PROGRESS_REFUSED: SuspendProgress

class RegisterRequest(_message.Message):
    __slots__ = ("peer", "machine_id", "join_token", "csr_pem", "agent_instance_id", "total", "provider_machine_id", "pid", "phases", "resumed", "snapshot", "labels", "sent_unix_s")
    class PhasesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PEER_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    JOIN_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_PEM_FIELD_NUMBER: _ClassVar[int]
    AGENT_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SENT_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    peer: _types_pb2.Peer
    machine_id: str
    join_token: str
    csr_pem: bytes
    agent_instance_id: str
    total: _types_pb2.Resources
    provider_machine_id: str
    pid: int
    phases: _containers.ScalarMap[str, float]
    resumed: bool
    snapshot: int
    labels: _containers.ScalarMap[str, str]
    sent_unix_s: float
    def __init__(self, peer: _Optional[_Union[_types_pb2.Peer, _Mapping]] = ..., machine_id: _Optional[str] = ..., join_token: _Optional[str] = ..., csr_pem: _Optional[bytes] = ..., agent_instance_id: _Optional[str] = ..., total: _Optional[_Union[_types_pb2.Resources, _Mapping]] = ..., provider_machine_id: _Optional[str] = ..., pid: _Optional[int] = ..., phases: _Optional[_Mapping[str, float]] = ..., resumed: bool = ..., snapshot: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., sent_unix_s: _Optional[float] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("peer", "cluster_id", "generation", "certificate_pem", "fleet_address", "store_path", "artefact_path", "heartbeat_s", "lost_after_s", "destroy_after_s", "peer_certificate_pem", "wake")
    PEER_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    FLEET_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STORE_PATH_FIELD_NUMBER: _ClassVar[int]
    ARTEFACT_PATH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_S_FIELD_NUMBER: _ClassVar[int]
    LOST_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    DESTROY_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    PEER_CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    WAKE_FIELD_NUMBER: _ClassVar[int]
    peer: _types_pb2.Peer
    cluster_id: str
    generation: int
    certificate_pem: bytes
    fleet_address: str
    store_path: str
    artefact_path: str
    heartbeat_s: float
    lost_after_s: float
    destroy_after_s: float
    peer_certificate_pem: bytes
    wake: Wake
    def __init__(self, peer: _Optional[_Union[_types_pb2.Peer, _Mapping]] = ..., cluster_id: _Optional[str] = ..., generation: _Optional[int] = ..., certificate_pem: _Optional[bytes] = ..., fleet_address: _Optional[str] = ..., store_path: _Optional[str] = ..., artefact_path: _Optional[str] = ..., heartbeat_s: _Optional[float] = ..., lost_after_s: _Optional[float] = ..., destroy_after_s: _Optional[float] = ..., peer_certificate_pem: _Optional[bytes] = ..., wake: _Optional[_Union[Wake, _Mapping]] = ...) -> None: ...

class Wake(_message.Message):
    __slots__ = ("kind", "snapshot", "slept_s", "now_unix_s", "config", "hooks_s", "sessions_over")
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KIND_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SLEPT_S_FIELD_NUMBER: _ClassVar[int]
    NOW_UNIX_S_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    HOOKS_S_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_OVER_FIELD_NUMBER: _ClassVar[int]
    kind: WakeKind
    snapshot: int
    slept_s: float
    now_unix_s: float
    config: _containers.ScalarMap[str, str]
    hooks_s: float
    sessions_over: bool
    def __init__(self, kind: _Optional[_Union[WakeKind, str]] = ..., snapshot: _Optional[int] = ..., slept_s: _Optional[float] = ..., now_unix_s: _Optional[float] = ..., config: _Optional[_Mapping[str, str]] = ..., hooks_s: _Optional[float] = ..., sessions_over: bool = ...) -> None: ...

class AssignmentsRequest(_message.Message):
    __slots__ = ("machine_id", "generation", "agent_instance_id", "received_seq", "wants_lane")
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    AGENT_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SEQ_FIELD_NUMBER: _ClassVar[int]
    WANTS_LANE_FIELD_NUMBER: _ClassVar[int]
    machine_id: str
    generation: int
    agent_instance_id: str
    received_seq: int
    wants_lane: bool
    def __init__(self, machine_id: _Optional[str] = ..., generation: _Optional[int] = ..., agent_instance_id: _Optional[str] = ..., received_seq: _Optional[int] = ..., wants_lane: bool = ...) -> None: ...

class AgentCommands(_message.Message):
    __slots__ = ("acked_report_seq", "acked_sent_s", "commands", "seq", "lane")
    ACKED_REPORT_SEQ_FIELD_NUMBER: _ClassVar[int]
    ACKED_SENT_S_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    acked_report_seq: int
    acked_sent_s: float
    commands: _containers.RepeatedCompositeFieldContainer[AgentCommand]
    seq: int
    lane: _types_pb2.Lane
    def __init__(self, acked_report_seq: _Optional[int] = ..., acked_sent_s: _Optional[float] = ..., commands: _Optional[_Iterable[_Union[AgentCommand, _Mapping]]] = ..., seq: _Optional[int] = ..., lane: _Optional[_Union[_types_pb2.Lane, _Mapping]] = ...) -> None: ...

class AgentCommand(_message.Message):
    __slots__ = ("function", "package", "start", "stop", "resume", "free_segment", "relay", "preload", "exit", "checkpoint_committed", "actor_input", "items_read", "bring", "suspend")
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    FREE_SEGMENT_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    PRELOAD_FIELD_NUMBER: _ClassVar[int]
    EXIT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    ACTOR_INPUT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_READ_FIELD_NUMBER: _ClassVar[int]
    BRING_FIELD_NUMBER: _ClassVar[int]
    SUSPEND_FIELD_NUMBER: _ClassVar[int]
    function: _types_pb2.Function
    package: _types_pb2.Package
    start: Assignment
    stop: StopAttempt
    resume: ResumeAttempt
    free_segment: FreeSegment
    relay: RelayToExecutor
    preload: Preload
    exit: Exit
    checkpoint_committed: CommitCheckpointReply
    actor_input: ActorInput
    items_read: ItemsRead
    bring: Bring
    suspend: Suspend
    def __init__(self, function: _Optional[_Union[_types_pb2.Function, _Mapping]] = ..., package: _Optional[_Union[_types_pb2.Package, _Mapping]] = ..., start: _Optional[_Union[Assignment, _Mapping]] = ..., stop: _Optional[_Union[StopAttempt, _Mapping]] = ..., resume: _Optional[_Union[ResumeAttempt, _Mapping]] = ..., free_segment: _Optional[_Union[FreeSegment, _Mapping]] = ..., relay: _Optional[_Union[RelayToExecutor, _Mapping]] = ..., preload: _Optional[_Union[Preload, _Mapping]] = ..., exit: _Optional[_Union[Exit, _Mapping]] = ..., checkpoint_committed: _Optional[_Union[CommitCheckpointReply, _Mapping]] = ..., actor_input: _Optional[_Union[ActorInput, _Mapping]] = ..., items_read: _Optional[_Union[ItemsRead, _Mapping]] = ..., bring: _Optional[_Union[Bring, _Mapping]] = ..., suspend: _Optional[_Union[Suspend, _Mapping]] = ...) -> None: ...

class Suspend(_message.Message):
    __slots__ = ("snapshot", "action", "interrupts", "hooks_s")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    HOOKS_S_FIELD_NUMBER: _ClassVar[int]
    snapshot: int
    action: SuspendAction
    interrupts: bool
    hooks_s: float
    def __init__(self, snapshot: _Optional[int] = ..., action: _Optional[_Union[SuspendAction, str]] = ..., interrupts: bool = ..., hooks_s: _Optional[float] = ...) -> None: ...

class AttemptKey(_message.Message):
    __slots__ = ("task_id", "attempt")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    attempt: int
    def __init__(self, task_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("key", "slot", "spec", "dependencies", "gpu_ids", "checkpoint", "client_id", "memory_bytes", "items_done", "items_read")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    GPU_IDS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    ITEMS_DONE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_READ_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    slot: int
    spec: bytes
    dependencies: _containers.RepeatedCompositeFieldContainer[_client_pb2.ObjectReady]
    gpu_ids: _containers.RepeatedScalarFieldContainer[int]
    checkpoint: _types_pb2.Checkpoint
    client_id: str
    memory_bytes: int
    items_done: int
    items_read: int
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., slot: _Optional[int] = ..., spec: _Optional[bytes] = ..., dependencies: _Optional[_Iterable[_Union[_client_pb2.ObjectReady, _Mapping]]] = ..., gpu_ids: _Optional[_Iterable[int]] = ..., checkpoint: _Optional[_Union[_types_pb2.Checkpoint, _Mapping]] = ..., client_id: _Optional[str] = ..., memory_bytes: _Optional[int] = ..., items_done: _Optional[int] = ..., items_read: _Optional[int] = ...) -> None: ...

class StopAttempt(_message.Message):
    __slots__ = ("key", "reason", "force")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    reason: StopReason
    force: bool
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., reason: _Optional[_Union[StopReason, str]] = ..., force: bool = ...) -> None: ...

class ActorInput(_message.Message):
    __slots__ = ("key", "caller_id", "frames")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CALLER_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    caller_id: str
    frames: bytes
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., caller_id: _Optional[str] = ..., frames: _Optional[bytes] = ...) -> None: ...

class ItemsRead(_message.Message):
    __slots__ = ("key", "count")
    KEY_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    count: int
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., count: _Optional[int] = ...) -> None: ...

class ResumeAttempt(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ...) -> None: ...

class Bring(_message.Message):
    __slots__ = ("object_id", "path")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    path: str
    def __init__(self, object_id: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class FreeSegment(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class RelayToExecutor(_message.Message):
    __slots__ = ("executor_id", "reply")
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    executor_id: str
    reply: _client_pb2.SessionReply
    def __init__(self, executor_id: _Optional[str] = ..., reply: _Optional[_Union[_client_pb2.SessionReply, _Mapping]] = ...) -> None: ...

class Preload(_message.Message):
    __slots__ = ("modules",)
    MODULES_FIELD_NUMBER: _ClassVar[int]
    modules: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, modules: _Optional[_Iterable[str]] = ...) -> None: ...

class Exit(_message.Message):
    __slots__ = ("reason", "drain")
    REASON_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    reason: str
    drain: bool
    def __init__(self, reason: _Optional[str] = ..., drain: bool = ...) -> None: ...

class CommitCheckpointReply(_message.Message):
    __slots__ = ("key", "step", "accepted", "reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    step: int
    accepted: bool
    reason: str
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., step: _Optional[int] = ..., accepted: bool = ..., reason: _Optional[str] = ...) -> None: ...

class AgentReport(_message.Message):
    __slots__ = ("machine_id", "generation", "first_seq", "sent_s", "items", "received_seq")
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    SENT_S_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_SEQ_FIELD_NUMBER: _ClassVar[int]
    machine_id: str
    generation: int
    first_seq: int
    sent_s: float
    items: _containers.RepeatedCompositeFieldContainer[ReportItem]
    received_seq: int
    def __init__(self, machine_id: _Optional[str] = ..., generation: _Optional[int] = ..., first_seq: _Optional[int] = ..., sent_s: _Optional[float] = ..., items: _Optional[_Iterable[_Union[ReportItem, _Mapping]]] = ..., received_seq: _Optional[int] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReportItem(_message.Message):
    __slots__ = ("started", "ended", "returned", "blocked", "unblocked", "metrics", "logs", "checkpoint", "relay", "executor_gone", "phase", "actor_ready", "actor_output", "items", "pull_served", "values_kept", "bring_failed", "suspend_step", "awake")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    RETURNED_FIELD_NUMBER: _ClassVar[int]
    BLOCKED_FIELD_NUMBER: _ClassVar[int]
    UNBLOCKED_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    RELAY_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_GONE_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_READY_FIELD_NUMBER: _ClassVar[int]
    ACTOR_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PULL_SERVED_FIELD_NUMBER: _ClassVar[int]
    VALUES_KEPT_FIELD_NUMBER: _ClassVar[int]
    BRING_FAILED_FIELD_NUMBER: _ClassVar[int]
    SUSPEND_STEP_FIELD_NUMBER: _ClassVar[int]
    AWAKE_FIELD_NUMBER: _ClassVar[int]
    started: AttemptStarted
    ended: AttemptEnded
    returned: AttemptReturned
    blocked: AttemptBlocked
    unblocked: AttemptUnblocked
    metrics: Metrics
    logs: LogLines
    checkpoint: CheckpointSaved
    relay: RelayFromExecutor
    executor_gone: ExecutorGone
    phase: BootPhase
    actor_ready: ActorReady
    actor_output: ActorOutput
    items: Items
    pull_served: PullServed
    values_kept: ValuesKept
    bring_failed: BringFailed
    suspend_step: SuspendStep
    awake: Awake
    def __init__(self, started: _Optional[_Union[AttemptStarted, _Mapping]] = ..., ended: _Optional[_Union[AttemptEnded, _Mapping]] = ..., returned: _Optional[_Union[AttemptReturned, _Mapping]] = ..., blocked: _Optional[_Union[AttemptBlocked, _Mapping]] = ..., unblocked: _Optional[_Union[AttemptUnblocked, _Mapping]] = ..., metrics: _Optional[_Union[Metrics, _Mapping]] = ..., logs: _Optional[_Union[LogLines, _Mapping]] = ..., checkpoint: _Optional[_Union[CheckpointSaved, _Mapping]] = ..., relay: _Optional[_Union[RelayFromExecutor, _Mapping]] = ..., executor_gone: _Optional[_Union[ExecutorGone, _Mapping]] = ..., phase: _Optional[_Union[BootPhase, _Mapping]] = ..., actor_ready: _Optional[_Union[ActorReady, _Mapping]] = ..., actor_output: _Optional[_Union[ActorOutput, _Mapping]] = ..., items: _Optional[_Union[Items, _Mapping]] = ..., pull_served: _Optional[_Union[PullServed, _Mapping]] = ..., values_kept: _Optional[_Union[ValuesKept, _Mapping]] = ..., bring_failed: _Optional[_Union[BringFailed, _Mapping]] = ..., suspend_step: _Optional[_Union[SuspendStep, _Mapping]] = ..., awake: _Optional[_Union[Awake, _Mapping]] = ...) -> None: ...

class SuspendStep(_message.Message):
    __slots__ = ("snapshot", "progress", "reason")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    snapshot: int
    progress: SuspendProgress
    reason: str
    def __init__(self, snapshot: _Optional[int] = ..., progress: _Optional[_Union[SuspendProgress, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class Awake(_message.Message):
    __slots__ = ("snapshot", "failure")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    snapshot: int
    failure: str
    def __init__(self, snapshot: _Optional[int] = ..., failure: _Optional[str] = ...) -> None: ...

class PullServed(_message.Message):
    __slots__ = ("address",)
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    address: str
    def __init__(self, address: _Optional[str] = ...) -> None: ...

class ValuesKept(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[KeptValue]
    def __init__(self, values: _Optional[_Iterable[_Union[KeptValue, _Mapping]]] = ...) -> None: ...

class KeptValue(_message.Message):
    __slots__ = ("object_id", "path")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    path: str
    def __init__(self, object_id: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class BringFailed(_message.Message):
    __slots__ = ("object_id", "path", "why")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    path: str
    why: str
    def __init__(self, object_id: _Optional[str] = ..., path: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class ActorReady(_message.Message):
    __slots__ = ("key", "address", "secret")
    KEY_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    address: str
    secret: bytes
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., address: _Optional[str] = ..., secret: _Optional[bytes] = ...) -> None: ...

class ActorOutput(_message.Message):
    __slots__ = ("key", "caller_id", "frames")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CALLER_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    caller_id: str
    frames: bytes
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., caller_id: _Optional[str] = ..., frames: _Optional[bytes] = ...) -> None: ...

class Items(_message.Message):
    __slots__ = ("key", "first_index", "values", "plain")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    PLAIN_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    first_index: int
    values: _containers.RepeatedCompositeFieldContainer[_types_pb2.Value]
    plain: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., first_index: _Optional[int] = ..., values: _Optional[_Iterable[_Union[_types_pb2.Value, _Mapping]]] = ..., plain: _Optional[_Iterable[bytes]] = ...) -> None: ...

class AttemptStarted(_message.Message):
    __slots__ = ("key", "executor_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    executor_id: str
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., executor_id: _Optional[str] = ...) -> None: ...

class AttemptEnded(_message.Message):
    __slots__ = ("key", "returns", "failure", "retryable", "duration_s", "executor_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    RETURNS_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    returns: Returns
    failure: _types_pb2.Failure
    retryable: bool
    duration_s: float
    executor_id: str
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., returns: _Optional[_Union[Returns, _Mapping]] = ..., failure: _Optional[_Union[_types_pb2.Failure, _Mapping]] = ..., retryable: bool = ..., duration_s: _Optional[float] = ..., executor_id: _Optional[str] = ...) -> None: ...

class Returns(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[_types_pb2.Value]
    def __init__(self, values: _Optional[_Iterable[_Union[_types_pb2.Value, _Mapping]]] = ...) -> None: ...

class AttemptReturned(_message.Message):
    __slots__ = ("key", "reason")
    KEY_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    reason: str
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class AttemptBlocked(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ...) -> None: ...

class AttemptUnblocked(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ...) -> None: ...

class Metrics(_message.Message):
    __slots__ = ("key", "index", "step", "values")
    KEY_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    index: int
    step: int
    values: bytes
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., index: _Optional[int] = ..., step: _Optional[int] = ..., values: _Optional[bytes] = ...) -> None: ...

class LogLines(_message.Message):
    __slots__ = ("key", "first_index", "stream", "lines", "lines_dropped")
    KEY_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    LINES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    first_index: int
    stream: str
    lines: _containers.RepeatedScalarFieldContainer[str]
    lines_dropped: int
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., first_index: _Optional[int] = ..., stream: _Optional[str] = ..., lines: _Optional[_Iterable[str]] = ..., lines_dropped: _Optional[int] = ...) -> None: ...

class CheckpointSaved(_message.Message):
    __slots__ = ("key", "checkpoint")
    KEY_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    key: AttemptKey
    checkpoint: _types_pb2.Checkpoint
    def __init__(self, key: _Optional[_Union[AttemptKey, _Mapping]] = ..., checkpoint: _Optional[_Union[_types_pb2.Checkpoint, _Mapping]] = ...) -> None: ...

class RelayFromExecutor(_message.Message):
    __slots__ = ("executor_id", "key", "request")
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    executor_id: str
    key: AttemptKey
    request: _client_pb2.SessionRequest
    def __init__(self, executor_id: _Optional[str] = ..., key: _Optional[_Union[AttemptKey, _Mapping]] = ..., request: _Optional[_Union[_client_pb2.SessionRequest, _Mapping]] = ...) -> None: ...

class ExecutorGone(_message.Message):
    __slots__ = ("executor_id",)
    EXECUTOR_ID_FIELD_NUMBER: _ClassVar[int]
    executor_id: str
    def __init__(self, executor_id: _Optional[str] = ...) -> None: ...

class BootPhase(_message.Message):
    __slots__ = ("name", "time_s")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    name: str
    time_s: float
    def __init__(self, name: _Optional[str] = ..., time_s: _Optional[float] = ...) -> None: ...

class UploadHeader(_message.Message):
    __slots__ = ("machine_id", "generation", "key", "object_id", "checkpoint_step", "total_bytes", "brought_path")
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_STEP_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    BROUGHT_PATH_FIELD_NUMBER: _ClassVar[int]
    machine_id: str
    generation: int
    key: AttemptKey
    object_id: str
    checkpoint_step: int
    total_bytes: int
    brought_path: str
    def __init__(self, machine_id: _Optional[str] = ..., generation: _Optional[int] = ..., key: _Optional[_Union[AttemptKey, _Mapping]] = ..., object_id: _Optional[str] = ..., checkpoint_step: _Optional[int] = ..., total_bytes: _Optional[int] = ..., brought_path: _Optional[str] = ...) -> None: ...

class UploadPart(_message.Message):
    __slots__ = ("header", "data", "crc32", "sha256")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    header: UploadHeader
    data: bytes
    crc32: int
    sha256: str
    def __init__(self, header: _Optional[_Union[UploadHeader, _Mapping]] = ..., data: _Optional[bytes] = ..., crc32: _Optional[int] = ..., sha256: _Optional[str] = ...) -> None: ...

class UploadReply(_message.Message):
    __slots__ = ("segment", "uri")
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    segment: _types_pb2.Segment
    uri: str
    def __init__(self, segment: _Optional[_Union[_types_pb2.Segment, _Mapping]] = ..., uri: _Optional[str] = ...) -> None: ...

class DownloadRequest(_message.Message):
    __slots__ = ("machine_id", "generation", "key", "object_id", "checkpoint_uri", "offset")
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_URI_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    machine_id: str
    generation: int
    key: AttemptKey
    object_id: str
    checkpoint_uri: str
    offset: int
    def __init__(self, machine_id: _Optional[str] = ..., generation: _Optional[int] = ..., key: _Optional[_Union[AttemptKey, _Mapping]] = ..., object_id: _Optional[str] = ..., checkpoint_uri: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class DownloadPart(_message.Message):
    __slots__ = ("data", "crc32", "total_bytes", "sha256", "path")
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    crc32: int
    total_bytes: int
    sha256: str
    path: str
    def __init__(self, data: _Optional[bytes] = ..., crc32: _Optional[int] = ..., total_bytes: _Optional[int] = ..., sha256: _Optional[str] = ..., path: _Optional[str] = ...) -> None: ...

class LocateReply(_message.Message):
    __slots__ = ("total_bytes", "path", "machine_id", "generation", "address")
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    total_bytes: int
    path: str
    machine_id: str
    generation: int
    address: str
    def __init__(self, total_bytes: _Optional[int] = ..., path: _Optional[str] = ..., machine_id: _Optional[str] = ..., generation: _Optional[int] = ..., address: _Optional[str] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("object_id", "path", "offset")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    path: str
    offset: int
    def __init__(self, object_id: _Optional[str] = ..., path: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...
