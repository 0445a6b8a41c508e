"""What sessions ask for, read from their frames: one row of a table for each operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runner.clock import Clock
from runner.coordinator import conversion
from runner.coordinator.journal import Journal
from runner.coordinator.machine_links import MachineLinks
from runner.coordinator.task_index import TaskIndex
from runner.core import events, stream_events
from runner.core.cluster import Cluster
from runner.core.group_events import GroupRemovalRequested, GroupRequested
from runner.core.suspend_events import ResumeRequested
from runner.core.values import FailureKind, FailureRecord, TaskRecord
from runner.errors import ProtocolViolationError
from runner.ids import ClientId, FunctionId, MachineId, ObjectId, TaskId, item_id, return_id
from runner.rpc.gen import client_pb2, fleet_pb2, types_pb2
from runner.rpc.limits import ITEM_BYTES_MAX

if TYPE_CHECKING:
    from runner.coordinator.sessions import Session

# Names of functions that the core may not have seen yet.
_NAMES_MAX = 1_000

Parent = tuple[TaskId, int] | None  # the attempt that speaks
Read = Callable[["Session", Any, Parent], events.Event | None]
# Tells a client that these objects will never be, and why.
Refuse = Callable[[ClientId, list[ObjectId], FailureRecord], None]
OnCall = Callable[[ClientId, client_pb2.Call], None]


class Operations:
    """Turns operations into the core's events. An operation that is refused at once has no event."""

    def __init__(
        self, cluster: Cluster, journal: Journal, clock: Clock, tasks: TaskIndex, links: MachineLinks, refuse: Refuse
    ) -> None:
        self.on_call: OnCall = lambda _client_id, _call: None  # set when there is somebody who answers
        self._cluster = cluster
        self._links = links
        self._journal = journal
        self._clock = clock
        self._tasks = tasks
        self._refuse = refuse
        self._function_names: dict[str, str] = {}
        self._readers: dict[str, Read] = {
            "submit": self._submitted,
            "put": self._stored,
            "register_function": self._registered,
            "actor_frames": self._actor_input,
            "call": self._called,
            "create_group": self._create_group,
            **_PLAIN,
        }

    def read(self, session: Session, operation: client_pb2.Operation, parent: Parent) -> events.Event | None:
        """The event of one operation of `session`; None: there is nothing for the core in it.

        Raises:
            ProtocolViolationError: it cannot be read.
        """
        kind = operation.WhichOneof("op")
        reader = self._readers.get(kind) if kind is not None else None
        if kind is None or reader is None:
            raise ProtocolViolationError(
                f"client {session.client_id} sent an operation that this version does not know"
            )
        return reader(session, getattr(operation, kind), parent)

    def _submitted(self, session: Session, spec: types_pb2.TaskSpec, parent: Parent) -> events.Event | None:
        if session.executor_id and parent is None:
            return None  # its attempt is over: the child would only be cancelled again
        # For messages only: the wire's spec stays as the client made it.
        name = spec.name or self._function_name(FunctionId(spec.function_id))
        record = conversion.task_record(spec, session.client_id, parent, self._clock.unix_s(), name)
        size_bytes = conversion.assignment_bytes(record)
        if size_bytes > ITEM_BYTES_MAX:
            self._refuse_task(session, record, too_large(f"task {record.task_id} takes {size_bytes} bytes to tell"))
            return None
        if not self._journal.has_room():
            self._refuse_task(session, record, _no_room(f"task {record.task_id}"))
            return None
        self._tasks.add(record)
        return events.TaskSubmitted(session.client_id, record, record.is_streaming or not session.executor_id)

    def _function_name(self, function_id: FunctionId) -> str:
        name = self._function_names.get(function_id)
        return self._cluster.function_name(function_id) if name is None else name

    def _stored(self, session: Session, put: client_pb2.Put, _parent: Parent) -> events.Event:
        object_id = ObjectId(put.object_id)
        if not object_id:
            raise ProtocolViolationError(f"client {session.client_id} put a value without an id")
        if not self._journal.has_room():
            self._refuse(session.client_id, [object_id], _no_room(f"value {object_id}"))
            return events.PutRefused(object_id, conversion.value_record(put.value, session.machine_id))
        return events.ObjectPut(session.client_id, object_id, conversion.value_record(put.value, session.machine_id))

    def _registered(self, session: Session, function: types_pb2.Function, _parent: Parent) -> events.Event:
        function_id = FunctionId(function.function_id)
        # For tasks that have no name; the core knows those of older functions.
        self._function_names[function_id] = function.name
        if len(self._function_names) > _NAMES_MAX:
            del self._function_names[next(iter(self._function_names))]
        return events.FunctionRegistered(
            session.client_id,
            function_id,
            function.name,
            function.SerializeToString(),
            tuple(function.contained_refs),  # type: ignore[arg-type]  # ids are strings on the wire
            tuple(function.package_ids),
        )

    def _actor_input(self, session: Session, part: client_pb2.ActorFrames, _parent: Parent) -> events.Event | None:
        """Pass on what a caller says that cannot reach the actor. What is too late is dropped: it is told of the end.

        A machine that sleeps is wanted for it; also for nothing, from a caller that can reach the actor and waits for its answer.
        """
        actor_id = TaskId(part.actor_id)
        if part.frames:
            machine_id = self._tell_actor(session, actor_id, part.incarnation, part.frames)
        else:
            place = self._cluster.actor_place(actor_id, part.incarnation)
            machine_id = None if place is None else place[0]
        if machine_id is None:
            return None
        if part.frames:
            session.relayed.add((actor_id, part.incarnation))
        return ResumeRequested(machine_id) if self._cluster.is_asleep(machine_id) else None

    def session_ended(self, session: Session) -> None:
        """Tell the actors to which it spoke through us that it is gone."""
        for actor_id, incarnation in session.relayed:
            self._tell_actor(session, actor_id, incarnation, b"")

    def _tell_actor(self, session: Session, actor_id: TaskId, incarnation: int, frames: bytes) -> MachineId | None:
        """Returns the actor's machine; None: it is over, or not there yet."""
        place = self._cluster.actor_place(actor_id, incarnation)
        if place is None:
            return None
        key = fleet_pb2.AttemptKey(task_id=actor_id, attempt=incarnation)
        told = fleet_pb2.ActorInput(key=key, caller_id=session.client_id, frames=frames)
        self._links.send(*place, fleet_pb2.AgentCommand(actor_input=told))
        return place[0]

    def _create_group(self, session: Session, create: client_pb2.CreateGroup, parent: Parent) -> events.Event | None:
        if session.executor_id and parent is None:
            return None  # its attempt is over
        return GroupRequested(conversion.group_record(create, session.client_id, parent))

    def _called(self, session: Session, call: client_pb2.Call, _parent: Parent) -> None:
        self.on_call(session.client_id, call)

    def _refuse_task(self, session: Session, record: TaskRecord, failure: FailureRecord) -> None:
        failure = failure._replace(task_id=record.task_id, task_name=record.name)
        returns = [return_id(record.task_id, index) for index in range(record.num_returns)]
        if record.is_streaming:
            returns.append(item_id(record.task_id, 0))
        self._refuse(session.client_id, returns, failure)


# ---- operations that need nothing but what they say ----
def _add_refs(session: Session, refs: client_pb2.RefList, _parent: Parent) -> events.Event:
    return events.RefsAdded(session.client_id, _ids(refs))


def _release_refs(session: Session, refs: client_pb2.RefList, _parent: Parent) -> events.Event:
    return events.RefsReleased(session.client_id, _ids(refs))


def _resolve(session: Session, refs: client_pb2.RefList, _parent: Parent) -> events.Event:
    return events.ObjectsResolved(session.client_id, _ids(refs))


def _cancel(_session: Session, cancel: client_pb2.Cancel, _parent: Parent) -> events.Event:
    return events.CancelRequested(TaskId(cancel.task_id), cancel.force, cancel.recursive)


def _register_package(_session: Session, package: types_pb2.Package, _parent: Parent) -> events.Event:
    return events.PackageRegistered(package.package_id, package.SerializeToString())


def _promise(session: Session, refs: client_pb2.RefList, _parent: Parent) -> events.Event:
    return events.ObjectsPromised(session.client_id, _ids(refs))


def _fulfil(session: Session, fulfil: client_pb2.Fulfil, _parent: Parent) -> events.Event:
    object_id = ObjectId(fulfil.object_id)
    if fulfil.HasField("value"):
        return events.PromiseFulfilled(
            session.client_id, object_id, conversion.value_record(fulfil.value, session.machine_id), None
        )
    failure = conversion.failure_record(types_pb2.Failure.FromString(fulfil.failure))
    return events.PromiseFulfilled(session.client_id, object_id, None, failure)


def _watch_actors(session: Session, actors: client_pb2.RefList, _parent: Parent) -> events.Event:
    return events.ActorsWatched(session.client_id, tuple(map(TaskId, actors.object_ids)))


def _find_actor(session: Session, find: client_pb2.FindActor, _parent: Parent) -> events.Event:
    return events.ActorSought(session.client_id, find.request_id, find.name, find.namespace)


def _kill_actor(_session: Session, kill: client_pb2.KillActor, _parent: Parent) -> events.Event:
    return events.ActorKillRequested(TaskId(kill.actor_id), kill.no_restart)


def _read_stream(session: Session, read: client_pb2.StreamRead, _parent: Parent) -> events.Event:
    return stream_events.StreamRead(session.client_id, TaskId(read.task_id), read.count)


def _drop_stream(session: Session, drop: client_pb2.StreamRead, _parent: Parent) -> events.Event:
    return stream_events.StreamDropped(session.client_id, TaskId(drop.task_id), drop.count, drop.go_on)


def _remove_group(_session: Session, remove: client_pb2.RemoveGroup, _parent: Parent) -> events.Event:
    return GroupRemovalRequested(remove.group_id)


_PLAIN: dict[str, Read] = {
    "remove_group": _remove_group,
    "read_stream": _read_stream,
    "drop_stream": _drop_stream,
    "promise": _promise,
    "fulfil": _fulfil,
    "watch_actors": _watch_actors,
    "find_actor": _find_actor,
    "kill_actor": _kill_actor,
    "add_refs": _add_refs,
    "release_refs": _release_refs,
    "resolve": _resolve,
    "cancel": _cancel,
    "register_package": _register_package,
}


def _ids(refs: client_pb2.RefList) -> tuple[ObjectId, ...]:
    return tuple(refs.object_ids)  # type: ignore[arg-type]  # ids are strings on the wire


def too_large(what: str, failure: FailureRecord | None = None) -> FailureRecord:
    """The last resort: what is larger than a message must not end its reader's session."""
    kind = failure.kind if failure is not None else FailureKind.SETUP
    text = f"{what}, the limit is {ITEM_BYTES_MAX}; pass large things by put(), or in one list"
    told = f"{failure.message[:1000]} [{text}]" if failure is not None else text
    return FailureRecord(kind, told, b"", *(failure[3:7] if failure is not None else ()))


def _no_room(what: str) -> FailureRecord:
    return FailureRecord(
        FailureKind.STORE_FULL,
        f"{what} was refused: the coordinator's disk is full up to its reserve; free space there and submit again",
    )
