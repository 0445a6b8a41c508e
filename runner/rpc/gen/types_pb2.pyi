from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FailureKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_KIND_UNSPECIFIED: _ClassVar[FailureKind]
    FAILURE_KIND_USER: _ClassVar[FailureKind]
    FAILURE_KIND_WORKER_CRASHED: _ClassVar[FailureKind]
    FAILURE_KIND_OUT_OF_MEMORY: _ClassVar[FailureKind]
    FAILURE_KIND_MACHINE_LOST: _ClassVar[FailureKind]
    FAILURE_KIND_CANCELLED: _ClassVar[FailureKind]
    FAILURE_KIND_TIMEOUT: _ClassVar[FailureKind]
    FAILURE_KIND_UNSCHEDULABLE: _ClassVar[FailureKind]
    FAILURE_KIND_OBJECT_LOST: _ClassVar[FailureKind]
    FAILURE_KIND_SETUP: _ClassVar[FailureKind]
    FAILURE_KIND_STORE_FULL: _ClassVar[FailureKind]
    FAILURE_KIND_ACTOR_DIED: _ClassVar[FailureKind]
    FAILURE_KIND_ACTOR_UNAVAILABLE: _ClassVar[FailureKind]
    FAILURE_KIND_OWNER_DIED: _ClassVar[FailureKind]
    FAILURE_KIND_GROUP_REMOVED: _ClassVar[FailureKind]
    FAILURE_KIND_KILLED: _ClassVar[FailureKind]
FAILURE_KIND_UNSPECIFIED: FailureKind
FAILURE_KIND_USER: FailureKind
FAILURE_KIND_WORKER_CRASHED: FailureKind
FAILURE_KIND_OUT_OF_MEMORY: FailureKind
FAILURE_KIND_MACHINE_LOST: FailureKind
FAILURE_KIND_CANCELLED: FailureKind
FAILURE_KIND_TIMEOUT: FailureKind
FAILURE_KIND_UNSCHEDULABLE: FailureKind
FAILURE_KIND_OBJECT_LOST: FailureKind
FAILURE_KIND_SETUP: FailureKind
FAILURE_KIND_STORE_FULL: FailureKind
FAILURE_KIND_ACTOR_DIED: FailureKind
FAILURE_KIND_ACTOR_UNAVAILABLE: FailureKind
FAILURE_KIND_OWNER_DIED: FailureKind
FAILURE_KIND_GROUP_REMOVED: FailureKind
FAILURE_KIND_KILLED: FailureKind

class Peer(_message.Message):
    __slots__ = ("protocol", "runner_version", "python_version", "host_id")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    RUNNER_VERSION_FIELD_NUMBER: _ClassVar[int]
    PYTHON_VERSION_FIELD_NUMBER: _ClassVar[int]
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    runner_version: str
    python_version: str
    host_id: str
    def __init__(self, protocol: _Optional[int] = ..., runner_version: _Optional[str] = ..., python_version: _Optional[str] = ..., host_id: _Optional[str] = ...) -> None: ...

class Lane(_message.Message):
    __slots__ = ("address", "secret")
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    address: str
    secret: bytes
    def __init__(self, address: _Optional[str] = ..., secret: _Optional[bytes] = ...) -> None: ...

class Resources(_message.Message):
    __slots__ = ("amounts",)
    class AmountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    AMOUNTS_FIELD_NUMBER: _ClassVar[int]
    amounts: _containers.ScalarMap[str, int]
    def __init__(self, amounts: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Value(_message.Message):
    __slots__ = ("inline", "segment", "contained_refs")
    INLINE_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_FIELD_NUMBER: _ClassVar[int]
    CONTAINED_REFS_FIELD_NUMBER: _ClassVar[int]
    inline: bytes
    segment: Segment
    contained_refs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, inline: _Optional[bytes] = ..., segment: _Optional[_Union[Segment, _Mapping]] = ..., contained_refs: _Optional[_Iterable[str]] = ...) -> None: ...

class Segment(_message.Message):
    __slots__ = ("host_id", "path", "size_bytes", "machine_id")
    HOST_ID_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    host_id: str
    path: str
    size_bytes: int
    machine_id: str
    def __init__(self, host_id: _Optional[str] = ..., path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., machine_id: _Optional[str] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("kind", "message", "exception", "exception_type", "traceback", "task_id", "task_name", "attempt", "machine_id", "history", "used_bytes")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    EXCEPTION_FIELD_NUMBER: _ClassVar[int]
    EXCEPTION_TYPE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_NAME_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    kind: FailureKind
    message: str
    exception: bytes
    exception_type: str
    traceback: str
    task_id: str
    task_name: str
    attempt: int
    machine_id: str
    history: _containers.RepeatedScalarFieldContainer[str]
    used_bytes: int
    def __init__(self, kind: _Optional[_Union[FailureKind, str]] = ..., message: _Optional[str] = ..., exception: _Optional[bytes] = ..., exception_type: _Optional[str] = ..., traceback: _Optional[str] = ..., task_id: _Optional[str] = ..., task_name: _Optional[str] = ..., attempt: _Optional[int] = ..., machine_id: _Optional[str] = ..., history: _Optional[_Iterable[str]] = ..., used_bytes: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("step", "uri", "sha256", "size_bytes", "attempt")
    STEP_FIELD_NUMBER: _ClassVar[int]
    URI_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    step: int
    uri: str
    sha256: str
    size_bytes: int
    attempt: int
    def __init__(self, step: _Optional[int] = ..., uri: _Optional[str] = ..., sha256: _Optional[str] = ..., size_bytes: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Function(_message.Message):
    __slots__ = ("function_id", "name", "blob", "contained_refs", "modules", "package_ids")
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    BLOB_FIELD_NUMBER: _ClassVar[int]
    CONTAINED_REFS_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    PACKAGE_IDS_FIELD_NUMBER: _ClassVar[int]
    function_id: str
    name: str
    blob: bytes
    contained_refs: _containers.RepeatedScalarFieldContainer[str]
    modules: _containers.RepeatedScalarFieldContainer[str]
    package_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, function_id: _Optional[str] = ..., name: _Optional[str] = ..., blob: _Optional[bytes] = ..., contained_refs: _Optional[_Iterable[str]] = ..., modules: _Optional[_Iterable[str]] = ..., package_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Package(_message.Message):
    __slots__ = ("package_id", "zip")
    PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    ZIP_FIELD_NUMBER: _ClassVar[int]
    package_id: str
    zip: bytes
    def __init__(self, package_id: _Optional[str] = ..., zip: _Optional[bytes] = ...) -> None: ...

class TaskSpec(_message.Message):
    __slots__ = ("task_id", "function_id", "name", "args", "dependencies", "resources", "num_returns", "max_retries", "retry_user_errors", "retry_exceptions", "timeout_s", "max_calls", "reuse_gpu_worker", "env_vars", "detached", "priority", "parent_task_id", "is_run", "is_streaming", "backpressure", "actor", "label_selector", "group_id", "bundle", "affinity_key", "grow_on_oom", "startup_timeout_s", "cwd_package_id", "spread", "machine", "group_for_children")
    class EnvVarsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LabelSelectorEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TASK_ID_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ARGS_FIELD_NUMBER: _ClassVar[int]
    DEPENDENCIES_FIELD_NUMBER: _ClassVar[int]
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    NUM_RETURNS_FIELD_NUMBER: _ClassVar[int]
    MAX_RETRIES_FIELD_NUMBER: _ClassVar[int]
    RETRY_USER_ERRORS_FIELD_NUMBER: _ClassVar[int]
    RETRY_EXCEPTIONS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    MAX_CALLS_FIELD_NUMBER: _ClassVar[int]
    REUSE_GPU_WORKER_FIELD_NUMBER: _ClassVar[int]
    ENV_VARS_FIELD_NUMBER: _ClassVar[int]
    DETACHED_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    PARENT_TASK_ID_FIELD_NUMBER: _ClassVar[int]
    IS_RUN_FIELD_NUMBER: _ClassVar[int]
    IS_STREAMING_FIELD_NUMBER: _ClassVar[int]
    BACKPRESSURE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    LABEL_SELECTOR_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    AFFINITY_KEY_FIELD_NUMBER: _ClassVar[int]
    GROW_ON_OOM_FIELD_NUMBER: _ClassVar[int]
    STARTUP_TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    CWD_PACKAGE_ID_FIELD_NUMBER: _ClassVar[int]
    SPREAD_FIELD_NUMBER: _ClassVar[int]
    MACHINE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FOR_CHILDREN_FIELD_NUMBER: _ClassVar[int]
    task_id: str
    function_id: str
    name: str
    args: Value
    dependencies: _containers.RepeatedScalarFieldContainer[str]
    resources: Resources
    num_returns: int
    max_retries: int
    retry_user_errors: bool
    retry_exceptions: bytes
    timeout_s: float
    max_calls: int
    reuse_gpu_worker: bool
    env_vars: _containers.ScalarMap[str, str]
    detached: bool
    priority: int
    parent_task_id: str
    is_run: bool
    is_streaming: bool
    backpressure: int
    actor: ActorSpec
    label_selector: _containers.ScalarMap[str, str]
    group_id: str
    bundle: int
    affinity_key: str
    grow_on_oom: bool
    startup_timeout_s: float
    cwd_package_id: str
    spread: bool
    machine: MachineAffinity
    group_for_children: bool
    def __init__(self, task_id: _Optional[str] = ..., function_id: _Optional[str] = ..., name: _Optional[str] = ..., args: _Optional[_Union[Value, _Mapping]] = ..., dependencies: _Optional[_Iterable[str]] = ..., resources: _Optional[_Union[Resources, _Mapping]] = ..., num_returns: _Optional[int] = ..., max_retries: _Optional[int] = ..., retry_user_errors: bool = ..., retry_exceptions: _Optional[bytes] = ..., timeout_s: _Optional[float] = ..., max_calls: _Optional[int] = ..., reuse_gpu_worker: bool = ..., env_vars: _Optional[_Mapping[str, str]] = ..., detached: bool = ..., priority: _Optional[int] = ..., parent_task_id: _Optional[str] = ..., is_run: bool = ..., is_streaming: bool = ..., backpressure: _Optional[int] = ..., actor: _Optional[_Union[ActorSpec, _Mapping]] = ..., label_selector: _Optional[_Mapping[str, str]] = ..., group_id: _Optional[str] = ..., bundle: _Optional[int] = ..., affinity_key: _Optional[str] = ..., grow_on_oom: bool = ..., startup_timeout_s: _Optional[float] = ..., cwd_package_id: _Optional[str] = ..., spread: bool = ..., machine: _Optional[_Union[MachineAffinity, _Mapping]] = ..., group_for_children: bool = ...) -> None: ...

class ActorSpec(_message.Message):
    __slots__ = ("name", "namespace", "get_if_exists", "max_concurrency", "meta", "options")
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    GET_IF_EXISTS_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    name: str
    namespace: str
    get_if_exists: bool
    max_concurrency: int
    meta: bytes
    options: bytes
    def __init__(self, name: _Optional[str] = ..., namespace: _Optional[str] = ..., get_if_exists: bool = ..., max_concurrency: _Optional[int] = ..., meta: _Optional[bytes] = ..., options: _Optional[bytes] = ...) -> None: ...

class MachineAffinity(_message.Message):
    __slots__ = ("machine_id", "soft")
    MACHINE_ID_FIELD_NUMBER: _ClassVar[int]
    SOFT_FIELD_NUMBER: _ClassVar[int]
    machine_id: str
    soft: bool
    def __init__(self, machine_id: _Optional[str] = ..., soft: bool = ...) -> None: ...
