"""Wire messages to the core's records and back. Values, functions and exceptions stay opaque bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runner.core import commands
from runner.core.gangs import BUNDLES_MAX, STRATEGIES
from runner.core.values import (
    ActorRecord,
    CheckpointRecord,
    FailureKind,
    FailureRecord,
    GroupRecord,
    SegmentRecord,
    Shape,
    TaskRecord,
    ValueRecord,
    WishRecord,
    make_shape,
)
from runner.errors import ProtocolViolationError
from runner.ids import ClientId, FunctionId, MachineId, ObjectId, TaskId
from runner.rpc.gen import client_pb2, types_pb2


def task_record(
    spec: types_pb2.TaskSpec, client_id: ClientId, parent: tuple[TaskId, int] | None, now_unix_s: float, name: str
) -> TaskRecord:
    """What a submitted task is to the core. `name` is for people.

    Raises:
        ProtocolViolationError: no id or no function is named.
    """
    task_id, function_id = spec.task_id, spec.function_id
    if not task_id or not function_id:
        raise ProtocolViolationError(f"client {client_id} submitted a task without id or function")
    args = spec.args
    return TaskRecord(
        TaskId(task_id),
        client_id,
        FunctionId(function_id),
        spec.SerializeToString(),
        make_shape(spec.resources.amounts),
        name,
        tuple(spec.dependencies),  # type: ignore[arg-type]  # ids are strings on the wire
        tuple(args.contained_refs),  # type: ignore[arg-type]
        spec.num_returns,
        spec.max_retries,
        spec.retry_user_errors,
        spec.is_run,
        spec.detached,
        spec.priority,
        parent,
        now_unix_s,
        spec.is_streaming,
        spec.backpressure,
        _actor_record(spec.actor) if spec.HasField("actor") else None,
        _wish_record(spec) if _has_wishes(spec) else None,
    )


def _actor_record(actor: types_pb2.ActorSpec) -> ActorRecord:
    return ActorRecord(actor.name, actor.namespace, actor.get_if_exists, actor.meta)


def _has_wishes(spec: types_pb2.TaskSpec) -> bool:
    return bool(
        spec.label_selector
        or spec.group_id
        or spec.affinity_key
        or spec.grow_on_oom
        or spec.spread
        or spec.HasField("machine")
    )


def _wish_record(spec: types_pb2.TaskSpec) -> WishRecord:
    return WishRecord(
        tuple(sorted(spec.label_selector.items())),
        spec.group_id,
        spec.bundle,
        spec.affinity_key,
        spec.grow_on_oom,
        spec.spread,
        spec.machine.machine_id,
        spec.machine.soft,
    )


def group_record(create: client_pb2.CreateGroup, client_id: ClientId, parent: tuple[TaskId, int] | None) -> GroupRecord:
    """What a placement group is to the core.

    Raises:
        ProtocolViolationError: it has no id, no bundles or too many of them, or a strategy that there is not.
    """
    bundles = tuple(make_shape(bundle.amounts) for bundle in create.bundles)
    if not create.group_id or not 0 < len(bundles) <= BUNDLES_MAX or create.strategy not in STRATEGIES:
        raise ProtocolViolationError(f"client {client_id} asked for a placement group that cannot be")
    return GroupRecord(
        create.group_id,
        client_id,
        bundles,
        create.strategy,
        create.name,
        create.deadline_s,
        create.detached,
        parent,
    )


def value_record(value: types_pb2.Value, machine_id: str = "") -> ValueRecord:
    """A value as the core keeps it. `machine_id`: who tells it, and may say that it alone has the value."""
    segment = None
    if value.HasField("segment"):
        wire = value.segment
        holder = MachineId(machine_id if wire.machine_id else "")
        segment = SegmentRecord(wire.host_id, wire.path, wire.size_bytes, holder)
    contained: tuple[ObjectId, ...] = tuple(value.contained_refs)  # type: ignore[arg-type]
    if contained:
        # Readers find the refs in the value itself; a list of many would not fit in a message beside anything else.
        bare = types_pb2.Value()
        bare.CopyFrom(value)
        bare.ClearField("contained_refs")
        value = bare
    return ValueRecord(value.SerializeToString(), contained, segment)


def failure_record(failure: types_pb2.Failure) -> FailureRecord:
    """A failure as an agent reported it. A kind that this version does not know counts as a crash."""
    try:
        kind = FailureKind(failure.kind)
    except ValueError:
        kind = FailureKind.WORKER_CRASHED
    return FailureRecord(
        kind,
        failure.message,
        failure.SerializeToString(),
        TaskId(failure.task_id),
        failure.task_name,
        failure.attempt,
        MachineId(failure.machine_id),
        tuple(failure.history),
        failure.used_bytes,
    )


def failure_message(record: FailureRecord) -> types_pb2.Failure:
    """What clients are told: the agent's report, with what the core knows laid over it."""
    message = types_pb2.Failure.FromString(record.payload) if record.payload else types_pb2.Failure()
    message.kind = record.kind.value  # type: ignore[assignment]  # generated code types enums by their wrapper
    message.message = record.message
    message.task_id = record.task_id
    message.task_name = record.task_name
    message.attempt = record.attempt
    message.machine_id = record.machine_id
    del message.history[:]
    message.history.extend(record.history)
    return message


def failure_bytes(record: FailureRecord) -> int:
    """About what `failure_message` takes on the wire, without making it."""
    return 256 + len(record.payload) + sum(4 * len(text) + 8 for text in (record.message, *record.history))


def assignment_bytes(record: TaskRecord) -> int:
    """What the assignment of this task takes on the wire, before any values."""
    return 256 + len(record.payload) + sum(len(object_id) + 8 for object_id in record.dependencies)


def checkpoint_record(checkpoint: types_pb2.Checkpoint, attempt: int) -> CheckpointRecord:
    """A saved checkpoint of `attempt`."""
    return CheckpointRecord(checkpoint.step, checkpoint.uri, checkpoint.sha256, checkpoint.size_bytes, attempt)


def checkpoint_message(record: CheckpointRecord) -> types_pb2.Checkpoint:
    """A committed checkpoint."""
    return types_pb2.Checkpoint(
        step=record.step,
        uri=record.uri,
        sha256=record.sha256,
        size_bytes=record.size_bytes,
        attempt=record.attempt,
    )


def resources_message(shape: Shape) -> types_pb2.Resources:
    """Amounts in units."""
    return types_pb2.Resources(amounts=dict(shape))


def fill_ready(
    target: client_pb2.ObjectReady, object_id: ObjectId, value: ValueRecord | None, failure: FailureRecord | None
) -> None:
    """Write the final state of one object into `target`."""
    target.object_id = object_id
    if value is not None:
        target.value = value.payload
    elif failure is not None:
        target.failure = failure_message(failure).SerializeToString()


def actor_update(notice: commands.NotifyActor) -> client_pb2.ServerFrame:
    """Where an actor is, as part of a reply."""
    update = client_pb2.ActorUpdate(
        actor_id=notice.actor_id,
        state=notice.state,
        incarnation=notice.incarnation,
        host_id=notice.host_id,
        address=notice.address,
        secret=notice.secret,
        failure=_failure_or_empty(notice.failure),
        asleep=notice.is_asleep,
    )
    return client_pb2.ServerFrame(actors=[update])


def found_actor(notice: commands.NotifyFound) -> client_pb2.ServerFrame:
    """The answer to a search, as part of a reply."""
    found = client_pb2.FoundActor(
        request_id=notice.request_id,
        actor_id=notice.actor_id or "",
        meta=notice.meta,
        failure=_failure_or_empty(notice.failure),
    )
    return client_pb2.ServerFrame(found_actors=[found])


def _failure_or_empty(failure: FailureRecord | None) -> bytes:
    return b"" if failure is None else failure_message(failure).SerializeToString()


# Of what one message tells of a generator, about.
_ITEMS_BYTES = 512 << 10


def stream_items(
    task_id: TaskId, first_index: int, values: Sequence[ValueRecord], *, is_over: bool
) -> Iterator[client_pb2.StreamItems]:
    """Items for their reader, in messages of bounded size; the last one says whether it was all."""
    part = client_pb2.StreamItems(task_id=task_id, first_index=first_index)
    room_bytes = _ITEMS_BYTES
    for index, value in enumerate(values, first_index):
        room_bytes -= len(value.payload)
        if room_bytes < 0 and part.values:
            yield part
            part = client_pb2.StreamItems(task_id=task_id, first_index=index)
            room_bytes = _ITEMS_BYTES - len(value.payload)
        part.values.append(value.payload)
    part.is_over = is_over
    yield part
