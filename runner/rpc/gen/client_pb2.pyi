from runner.rpc.gen import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_KIND_UNSPECIFIED: _ClassVar[EventKind]
    EVENT_KIND_STATE: _ClassVar[EventKind]
    EVENT_KIND_ATTEMPT: _ClassVar[EventKind]
    EVENT_KIND_METRICS: _ClassVar[EventKind]
    EVENT_KIND_LOG: _ClassVar[EventKind]
    EVENT_KIND_LOG_GAP: _ClassVar[EventKind]
    EVENT_KIND_CHECKPOINT: _ClassVar[EventKind]
    EVENT_KIND_MACHINE: _ClassVar[EventKind]
    EVENT_KIND_FLEET: _ClassVar[EventKind]
EVENT_KIND_UNSPECIFIED: EventKind
EVENT_KIND_STATE: EventKind
EVENT_KIND_ATTEMPT: EventKind
EVENT_KIND_METRICS: EventKind
EVENT_KIND_LOG: EventKind
EVENT_KIND_LOG_GAP: EventKind
EVENT_KIND_CHECKPOINT: EventKind
EVENT_KIND_MACHINE: EventKind
EVENT_KIND_FLEET: EventKind

class SessionRequest(_message.Message):
    __slots__ = ("hello", "frame")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    frame: ClientFrame
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., frame: _Optional[_Union[ClientFrame, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("peer", "client_id", "last_reply_seq", "wants_lane")
    PEER_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    LAST_REPLY_SEQ_FIELD_NUMBER: _ClassVar[int]
    WANTS_LANE_FIELD_NUMBER: _ClassVar[int]
    peer: _types_pb2.Peer
    client_id: str
    last_reply_seq: int
    wants_lane: bool
    def __init__(self, peer: _Optional[_Union[_types_pb2.Peer, _Mapping]] = ..., client_id: _Optional[str] = ..., last_reply_seq: _Optional[int] = ..., wants_lane: bool = ...) -> None: ...

class ClientFrame(_message.Message):
    __slots__ = ("seq", "operations")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, seq: _Optional[int] = ..., operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("register_function", "register_package", "submit", "put", "add_refs", "release_refs", "resolve", "cancel", "promise", "fulfil", "watch_actors", "find_actor", "kill_actor", "actor_frames", "read_stream", "drop_stream", "create_group", "remove_group", "call")
    REGISTER_FUNCTION_FIELD_NUMBER: _ClassVar[int]
    REGISTER_PACKAGE_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    ADD_REFS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_REFS_FIELD_NUMBER: _ClassVar[int]
    RESOLVE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    PROMISE_FIELD_NUMBER: _ClassVar[int]
    FULFIL_FIELD_NUMBER: _ClassVar[int]
    WATCH_ACTORS_FIELD_NUMBER: _ClassVar[int]
    FIND_ACTOR_FIELD_NUMBER: _ClassVar[int]
    KILL_ACTOR_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FRAMES_FIELD_NUMBER: _ClassVar[int]
    READ_STREAM_FIELD_NUMBER: _ClassVar[int]
    DROP_STREAM_FIELD_NUMBER: _ClassVar[int]
    CREATE_GROUP_FIELD_NUMBER: _ClassVar[int]
    REMOVE_GROUP_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    register_function: _types_pb2.Function
    register_package: _types_pb2.Package
    submit: _types_pb2.TaskSpec
    put: Put
    add_refs: RefList
    release_refs: RefList
    resolve: RefList
    cancel: Cancel
    promise: RefList
    fulfil: Fulfil
    watch_actors: RefList
    find_actor: FindActor
    kill_actor: KillActor
    actor_frames: ActorFrames
    read_stream: StreamRead
    drop_stream: StreamRead
    create_group: CreateGroup
    remove_group: RemoveGroup
    call: Call
    def __init__(self, register_function: _Optional[_Union[_types_pb2.Function, _Mapping]] = ..., register_package: _Optional[_Union[_types_pb2.Package, _Mapping]] = ..., submit: _Optional[_Union[_types_pb2.TaskSpec, _Mapping]] = ..., put: _Optional[_Union[Put, _Mapping]] = ..., add_refs: _Optional[_Union[RefList, _Mapping]] = ..., release_refs: _Optional[_Union[RefList, _Mapping]] = ..., resolve: _Optional[_Union[RefList, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., promise: _Optional[_Union[RefList, _Mapping]] = ..., fulfil: _Optional[_Union[Fulfil, _Mapping]] = ..., watch_actors: _Optional[_Union[RefList, _Mapping]] = ..., find_actor: _Optional[_Union[FindActor, _Mapping]] = ..., kill_actor: _Optional[_Union[KillActor, _Mapping]] = ..., actor_frames: _Optional[_Union[ActorFrames, _Mapping]] = ..., read_stream: _Optional[_Union[StreamRead, _Mapping]] = ..., drop_stream: _Optional[_Union[StreamRead, _Mapping]] = ..., create_group: _Optional[_Union[CreateGroup, _Mapping]] = ..., remove_group: _Optional[_Union[RemoveGroup, _Mapping]] = ..., call: _Optional[_Union[Call, _Mapping]] = ...) -> None: ...

class Put(_message.Message):
    __slots__ = ("object_id", "value")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    value: _types_pb2.Value
    def __init__(self, object_id: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ...) -> None: ...

class RefList(_message.Message):
    __slots__ = ("object_ids",)
    OBJECT_IDS_FIELD_NUMBER: _ClassVar[int]
    object_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, object_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("task_id", "force", "recursive")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    RECURSIVE_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    force: bool
    recursive: bool
    def __init__(self, task_id: _Optional[str] = ..., force: bool = ..., recursive: bool = ...) -> None: ...

class Fulfil(_message.Message):
    __slots__ = ("object_id", "value", "failure")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    value: _types_pb2.Value
    failure: bytes
    def __init__(self, object_id: _Optional[str] = ..., value: _Optional[_Union[_types_pb2.Value, _Mapping]] = ..., failure: _Optional[bytes] = ...) -> None: ...

class FindActor(_message.Message):
    __slots__ = ("request_id", "name", "namespace")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    namespace: str
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., namespace: _Optional[str] = ...) -> None: ...

class KillActor(_message.Message):
    __slots__ = ("actor_id", "no_restart")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    NO_RESTART_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    no_restart: bool
    def __init__(self, actor_id: _Optional[str] = ..., no_restart: bool = ...) -> None: ...

class ActorFrames(_message.Message):
    __slots__ = ("actor_id", "incarnation", "frames")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    incarnation: int
    frames: bytes
    def __init__(self, actor_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., frames: _Optional[bytes] = ...) -> None: ...

class StreamRead(_message.Message):
    __slots__ = ("task_id", "count", "go_on")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    GO_ON_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    count: int
    go_on: bool
    def __init__(self, task_id: _Optional[str] = ..., count: _Optional[int] = ..., go_on: bool = ...) -> None: ...

class CreateGroup(_message.Message):
    __slots__ = ("group_id", "name", "bundles", "strategy", "deadline_s", "detached")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    name: str
    bundles: _containers.RepeatedCompositeFieldContainer[_types_pb2.Resources]
    strategy: str
    deadline_s: float
    detached: bool
    def __init__(self, group_id: _Optional[str] = ..., name: _Optional[str] = ..., bundles: _Optional[_Iterable[_Union[_types_pb2.Resources, _Mapping]]] = ..., strategy: _Optional[str] = ..., deadline_s: _Optional[float] = ..., detached: bool = ...) -> None: ...

class RemoveGroup(_message.Message):
    __slots__ = ("group_id",)
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    def __init__(self, group_id: _Optional[str] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("request_id", "method", "request")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    method: str
    request: bytes
    def __init__(self, request_id: _Optional[str] = ..., method: _Optional[str] = ..., request: _Optional[bytes] = ...) -> None: ...

class SessionReply(_message.Message):
    __slots__ = ("welcome", "frame")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    frame: ServerFrame
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., frame: _Optional[_Union[ServerFrame, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("peer", "cluster_id", "acked_seq", "embedded", "store_path", "event_seq", "client_lost_after_s", "lane")
    PEER_FIELD_NUMBER: _ClassVar[int]
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    ACKED_SEQ_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    STORE_PATH_FIELD_NUMBER: _ClassVar[int]
    EVENT_SEQ_FIELD_NUMBER: _ClassVar[int]
    CLIENT_LOST_AFTER_S_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    peer: _types_pb2.Peer
    cluster_id: str
    acked_seq: int
    embedded: bool
    store_path: str
    event_seq: int
    client_lost_after_s: float
    lane: _types_pb2.Lane
    def __init__(self, peer: _Optional[_Union[_types_pb2.Peer, _Mapping]] = ..., cluster_id: _Optional[str] = ..., acked_seq: _Optional[int] = ..., embedded: bool = ..., store_path: _Optional[str] = ..., event_seq: _Optional[int] = ..., client_lost_after_s: _Optional[float] = ..., lane: _Optional[_Union[_types_pb2.Lane, _Mapping]] = ...) -> None: ...

class ServerFrame(_message.Message):
    __slots__ = ("acked_seq", "ready", "warnings", "actors", "actor_frames", "found_actors", "answers", "items")
    ACKED_SEQ_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FRAMES_FIELD_NUMBER: _ClassVar[int]
    FOUND_ACTORS_FIELD_NUMBER: _ClassVar[int]
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    acked_seq: int
    ready: _containers.RepeatedCompositeFieldContainer[ObjectReady]
    warnings: _containers.RepeatedCompositeFieldContainer[Warning]
    actors: _containers.RepeatedCompositeFieldContainer[ActorUpdate]
    actor_frames: _containers.RepeatedCompositeFieldContainer[ActorFrames]
    found_actors: _containers.RepeatedCompositeFieldContainer[FoundActor]
    answers: _containers.RepeatedCompositeFieldContainer[Answer]
    items: _containers.RepeatedCompositeFieldContainer[StreamItems]
    def __init__(self, acked_seq: _Optional[int] = ..., ready: _Optional[_Iterable[_Union[ObjectReady, _Mapping]]] = ..., warnings: _Optional[_Iterable[_Union[Warning, _Mapping]]] = ..., actors: _Optional[_Iterable[_Union[ActorUpdate, _Mapping]]] = ..., actor_frames: _Optional[_Iterable[_Union[ActorFrames, _Mapping]]] = ..., found_actors: _Optional[_Iterable[_Union[FoundActor, _Mapping]]] = ..., answers: _Optional[_Iterable[_Union[Answer, _Mapping]]] = ..., items: _Optional[_Iterable[_Union[StreamItems, _Mapping]]] = ...) -> None: ...

class StreamItems(_message.Message):
    __slots__ = ("task_id", "first_index", "values", "is_over")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FIRST_INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    IS_OVER_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    first_index: int
    values: _containers.RepeatedScalarFieldContainer[bytes]
    is_over: bool
    def __init__(self, task_id: _Optional[str] = ..., first_index: _Optional[int] = ..., values: _Optional[_Iterable[bytes]] = ..., is_over: bool = ...) -> None: ...

class ActorUpdate(_message.Message):
    __slots__ = ("actor_id", "state", "incarnation", "host_id", "address", "secret", "failure", "asleep")
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ASLEEP_FIELD_NUMBER: _ClassVar[int]
    actor_id: str
    state: str
    incarnation: int
    host_id: str
    address: str
    secret: bytes
    failure: bytes
    asleep: bool
    def __init__(self, actor_id: _Optional[str] = ..., state: _Optional[str] = ..., incarnation: _Optional[int] = ..., host_id: _Optional[str] = ..., address: _Optional[str] = ..., secret: _Optional[bytes] = ..., failure: _Optional[bytes] = ..., asleep: bool = ...) -> None: ...

class FoundActor(_message.Message):
    __slots__ = ("request_id", "actor_id", "meta", "failure")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ACTOR_ID_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    actor_id: str
    meta: bytes
    failure: bytes
    def __init__(self, request_id: _Optional[str] = ..., actor_id: _Optional[str] = ..., meta: _Optional[bytes] = ..., failure: _Optional[bytes] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("request_id", "reply", "failure")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reply: bytes
    failure: bytes
    def __init__(self, request_id: _Optional[str] = ..., reply: _Optional[bytes] = ..., failure: _Optional[bytes] = ...) -> None: ...

class ObjectReady(_message.Message):
    __slots__ = ("object_id", "value", "failure")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    value: bytes
    failure: bytes
    def __init__(self, object_id: _Optional[str] = ..., value: _Optional[bytes] = ..., failure: _Optional[bytes] = ...) -> None: ...

class Warning(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("task_ids", "client_id", "from_seq", "kinds", "follow", "until_done")
    TASK_IDS_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    FROM_SEQ_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    UNTIL_DONE_FIELD_NUMBER: _ClassVar[int]
    task_ids: _containers.RepeatedScalarFieldContainer[str]
    client_id: str
    from_seq: int
    kinds: _containers.RepeatedScalarFieldContainer[EventKind]
    follow: bool
    until_done: bool
    def __init__(self, task_ids: _Optional[_Iterable[str]] = ..., client_id: _Optional[str] = ..., from_seq: _Optional[int] = ..., kinds: _Optional[_Iterable[_Union[EventKind, str]]] = ..., follow: bool = ..., until_done: bool = ...) -> None: ...

class WatchReply(_message.Message):
    __slots__ = ("events", "next_seq", "is_over")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_SEQ_FIELD_NUMBER: _ClassVar[int]
    IS_OVER_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    next_seq: int
    is_over: bool
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., next_seq: _Optional[int] = ..., is_over: bool = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("seq", "time_s", "kind", "task_id", "name", "attempt", "step", "values", "text", "stream", "state", "machine_id", "failure", "lines_dropped", "phases")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    LINES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    seq: int
    time_s: float
    kind: EventKind
    task_id: str
    name: str
    attempt: int
    step: int
    values: bytes
    text: str
    stream: str
    state: str
    machine_id: str
    failure: _types_pb2.Failure
    lines_dropped: int
    phases: bytes
    def __init__(self, seq: _Optional[int] = ..., time_s: _Optional[float] = ..., kind: _Optional[_Union[EventKind, str]] = ..., task_id: _Optional[str] = ..., name: _Optional[str] = ..., attempt: _Optional[int] = ..., step: _Optional[int] = ..., values: _Optional[bytes] = ..., text: _Optional[str] = ..., stream: _Optional[str] = ..., state: _Optional[str] = ..., machine_id: _Optional[str] = ..., failure: _Optional[_Union[_types_pb2.Failure, _Mapping]] = ..., lines_dropped: _Optional[int] = ..., phases: _Optional[bytes] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("object_id", "offset")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    offset: int
    def __init__(self, object_id: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("data", "crc32", "total_bytes")
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    crc32: int
    total_bytes: int
    def __init__(self, data: _Optional[bytes] = ..., crc32: _Optional[int] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class UploadStart(_message.Message):
    __slots__ = ("object_id", "total_bytes")
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    object_id: str
    total_bytes: int
    def __init__(self, object_id: _Optional[str] = ..., total_bytes: _Optional[int] = ...) -> None: ...

class UploadRequest(_message.Message):
    __slots__ = ("data", "crc32")
    DATA_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    crc32: int
    def __init__(self, data: _Optional[bytes] = ..., crc32: _Optional[int] = ...) -> None: ...

class ListMachinesRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListMachinesReply(_message.Message):
    __slots__ = ("machines", "next_page_token")
    MACHINES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    machines: _containers.RepeatedCompositeFieldContainer[MachineInfo]
    next_page_token: str
    def __init__(self, machines: _Optional[_Iterable[_Union[MachineInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class MachineInfo(_message.Message):
    __slots__ = ("machine_id", "state", "generation", "total", "available", "provider", "provider_machine_id", "pid", "host_id", "phases", "reason", "running_tasks", "pool", "size", "region", "labels", "cost", "snapshot", "sleep", "wake", "slept_s")
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
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RUNNING_TASKS_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    REGION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    SLEEP_FIELD_NUMBER: _ClassVar[int]
    WAKE_FIELD_NUMBER: _ClassVar[int]
    SLEPT_S_FIELD_NUMBER: _ClassVar[int]
    machine_id: str
    state: str
    generation: int
    total: _types_pb2.Resources
    available: _types_pb2.Resources
    provider: str
    provider_machine_id: str
    pid: int
    host_id: str
    phases: _containers.ScalarMap[str, float]
    reason: str
    running_tasks: int
    pool: str
    size: str
    region: str
    labels: _containers.ScalarMap[str, str]
    cost: float
    snapshot: int
    sleep: str
    wake: str
    slept_s: float
    def __init__(self, machine_id: _Optional[str] = ..., state: _Optional[str] = ..., generation: _Optional[int] = ..., total: _Optional[_Union[_types_pb2.Resources, _Mapping]] = ..., available: _Optional[_Union[_types_pb2.Resources, _Mapping]] = ..., provider: _Optional[str] = ..., provider_machine_id: _Optional[str] = ..., pid: _Optional[int] = ..., host_id: _Optional[str] = ..., phases: _Optional[_Mapping[str, float]] = ..., reason: _Optional[str] = ..., running_tasks: _Optional[int] = ..., pool: _Optional[str] = ..., size: _Optional[str] = ..., region: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., cost: _Optional[float] = ..., snapshot: _Optional[int] = ..., sleep: _Optional[str] = ..., wake: _Optional[str] = ..., slept_s: _Optional[float] = ...) -> None: ...

class PoolInfo(_message.Message):
    __slots__ = ("name", "machine", "min", "max", "coming", "ready", "idle", "going", "problem", "hopeless", "asleep")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    COMING_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    GOING_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    HOPELESS_FIELD_NUMBER: _ClassVar[int]
    ASLEEP_FIELD_NUMBER: _ClassVar[int]
    name: str
    machine: _types_pb2.Resources
    min: int
    max: int
    coming: int
    ready: int
    idle: int
    going: int
    problem: str
    hopeless: bool
    asleep: int
    def __init__(self, name: _Optional[str] = ..., machine: _Optional[_Union[_types_pb2.Resources, _Mapping]] = ..., min: _Optional[int] = ..., max: _Optional[int] = ..., coming: _Optional[int] = ..., ready: _Optional[int] = ..., idle: _Optional[int] = ..., going: _Optional[int] = ..., problem: _Optional[str] = ..., hopeless: bool = ..., asleep: _Optional[int] = ...) -> None: ...

class ListTasksRequest(_message.Message):
    __slots__ = ("state", "name", "runs_only", "page_size", "page_token", "task_id")
    STATE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUNS_ONLY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    state: str
    name: str
    runs_only: bool
    page_size: int
    page_token: str
    task_id: str
    def __init__(self, state: _Optional[str] = ..., name: _Optional[str] = ..., runs_only: bool = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., task_id: _Optional[str] = ...) -> None: ...

class ListTasksReply(_message.Message):
    __slots__ = ("tasks", "next_page_token")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedCompositeFieldContainer[TaskInfo]
    next_page_token: str
    def __init__(self, tasks: _Optional[_Iterable[_Union[TaskInfo, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class TaskInfo(_message.Message):
    __slots__ = ("task_id", "name", "function_name", "state", "attempt", "machine_id", "submitted_s", "started_s", "ended_s", "why_waiting", "checkpoint", "failure", "num_returns")
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_S_FIELD_NUMBER: _ClassVar[int]
    STARTED_S_FIELD_NUMBER: _ClassVar[int]
    ENDED_S_FIELD_NUMBER: _ClassVar[int]
    WHY_WAITING_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    NUM_RETURNS_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    name: str
    function_name: str
    state: str
    attempt: int
    machine_id: str
    submitted_s: float
    started_s: float
    ended_s: float
    why_waiting: str
    checkpoint: _types_pb2.Checkpoint
    failure: _types_pb2.Failure
    num_returns: int
    def __init__(self, task_id: _Optional[str] = ..., name: _Optional[str] = ..., function_name: _Optional[str] = ..., state: _Optional[str] = ..., attempt: _Optional[int] = ..., machine_id: _Optional[str] = ..., submitted_s: _Optional[float] = ..., started_s: _Optional[float] = ..., ended_s: _Optional[float] = ..., why_waiting: _Optional[str] = ..., checkpoint: _Optional[_Union[_types_pb2.Checkpoint, _Mapping]] = ..., failure: _Optional[_Union[_types_pb2.Failure, _Mapping]] = ..., num_returns: _Optional[int] = ...) -> None: ...

class ListGroupsRequest(_message.Message):
    __slots__ = ("group_id",)
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    def __init__(self, group_id: _Optional[str] = ...) -> None: ...

class ListGroupsReply(_message.Message):
    __slots__ = ("groups",)
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    groups: _containers.RepeatedCompositeFieldContainer[GroupInfo]
    def __init__(self, groups: _Optional[_Iterable[_Union[GroupInfo, _Mapping]]] = ...) -> None: ...

class GroupInfo(_message.Message):
    __slots__ = ("group_id", "name", "state", "strategy", "bundles", "machine_ids", "attempt", "reason")
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    MACHINE_IDS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    group_id: str
    name: str
    state: str
    strategy: str
    bundles: _containers.RepeatedCompositeFieldContainer[_types_pb2.Resources]
    machine_ids: _containers.RepeatedScalarFieldContainer[str]
    attempt: int
    reason: str
    def __init__(self, group_id: _Optional[str] = ..., name: _Optional[str] = ..., state: _Optional[str] = ..., strategy: _Optional[str] = ..., bundles: _Optional[_Iterable[_Union[_types_pb2.Resources, _Mapping]]] = ..., machine_ids: _Optional[_Iterable[str]] = ..., attempt: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusReply(_message.Message):
    __slots__ = ("cluster_id", "peer", "embedded", "uptime_s", "total", "available", "tasks_by_state", "machines_by_state", "objects", "clients", "pid", "state_dir", "pools", "cost")
    class TasksByStateEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class MachinesByStateEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    CLUSTER_ID_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    EMBEDDED_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    TASKS_BY_STATE_FIELD_NUMBER: _ClassVar[int]
    MACHINES_BY_STATE_FIELD_NUMBER: _ClassVar[int]
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    STATE_DIR_FIELD_NUMBER: _ClassVar[int]
    POOLS_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    cluster_id: str
    peer: _types_pb2.Peer
    embedded: bool
    uptime_s: float
    total: _types_pb2.Resources
    available: _types_pb2.Resources
    tasks_by_state: _containers.ScalarMap[str, int]
    machines_by_state: _containers.ScalarMap[str, int]
    objects: int
    clients: int
    pid: int
    state_dir: str
    pools: _containers.RepeatedCompositeFieldContainer[PoolInfo]
    cost: Cost
    def __init__(self, cluster_id: _Optional[str] = ..., peer: _Optional[_Union[_types_pb2.Peer, _Mapping]] = ..., embedded: bool = ..., uptime_s: _Optional[float] = ..., total: _Optional[_Union[_types_pb2.Resources, _Mapping]] = ..., available: _Optional[_Union[_types_pb2.Resources, _Mapping]] = ..., tasks_by_state: _Optional[_Mapping[str, int]] = ..., machines_by_state: _Optional[_Mapping[str, int]] = ..., objects: _Optional[int] = ..., clients: _Optional[int] = ..., pid: _Optional[int] = ..., state_dir: _Optional[str] = ..., pools: _Optional[_Iterable[_Union[PoolInfo, _Mapping]]] = ..., cost: _Optional[_Union[Cost, _Mapping]] = ...) -> None: ...

class Cost(_message.Message):
    __slots__ = ("spent", "per_hour", "spent_by_pool", "unpriced_machines", "max_cost", "is_budget_spent")
    class SpentByPoolEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SPENT_FIELD_NUMBER: _ClassVar[int]
    PER_HOUR_FIELD_NUMBER: _ClassVar[int]
    SPENT_BY_POOL_FIELD_NUMBER: _ClassVar[int]
    UNPRICED_MACHINES_FIELD_NUMBER: _ClassVar[int]
    MAX_COST_FIELD_NUMBER: _ClassVar[int]
    IS_BUDGET_SPENT_FIELD_NUMBER: _ClassVar[int]
    spent: float
    per_hour: float
    spent_by_pool: _containers.ScalarMap[str, float]
    unpriced_machines: int
    max_cost: float
    is_budget_spent: bool
    def __init__(self, spent: _Optional[float] = ..., per_hour: _Optional[float] = ..., spent_by_pool: _Optional[_Mapping[str, float]] = ..., unpriced_machines: _Optional[int] = ..., max_cost: _Optional[float] = ..., is_budget_spent: bool = ...) -> None: ...

class AddMachinesRequest(_message.Message):
    __slots__ = ("count", "resources", "request_id", "pool")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    count: int
    resources: _types_pb2.Resources
    request_id: str
    pool: str
    def __init__(self, count: _Optional[int] = ..., resources: _Optional[_Union[_types_pb2.Resources, _Mapping]] = ..., request_id: _Optional[str] = ..., pool: _Optional[str] = ...) -> None: ...

class AddMachinesReply(_message.Message):
    __slots__ = ("machine_ids",)
    MACHINE_IDS_FIELD_NUMBER: _ClassVar[int]
    machine_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, machine_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RemoveMachineRequest(_message.Message):
    __slots__ = ("machine_id", "force")
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    machine_id: str
    force: bool
    def __init__(self, machine_id: _Optional[str] = ..., force: bool = ...) -> None: ...

class RemoveMachineReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SuspendMachinesRequest(_message.Message):
    __slots__ = ("machine_ids", "interrupts")
    MACHINE_IDS_FIELD_NUMBER: _ClassVar[int]
    INTERRUPTS_FIELD_NUMBER: _ClassVar[int]
    machine_ids: _containers.RepeatedScalarFieldContainer[str]
    interrupts: bool
    def __init__(self, machine_ids: _Optional[_Iterable[str]] = ..., interrupts: bool = ...) -> None: ...

class SuspendMachinesReply(_message.Message):
    __slots__ = ("machine_ids",)
    MACHINE_IDS_FIELD_NUMBER: _ClassVar[int]
    machine_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, machine_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ResumeMachinesRequest(_message.Message):
    __slots__ = ("machine_ids",)
    MACHINE_IDS_FIELD_NUMBER: _ClassVar[int]
    machine_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, machine_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ResumeMachinesReply(_message.Message):
    __slots__ = ("machine_ids",)
    MACHINE_IDS_FIELD_NUMBER: _ClassVar[int]
    machine_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, machine_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class SetMachineConfigRequest(_message.Message):
    __slots__ = ("config",)
    class ConfigEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: _containers.ScalarMap[str, str]
    def __init__(self, config: _Optional[_Mapping[str, str]] = ...) -> None: ...

class SetMachineConfigReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ShutdownRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class ShutdownReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
