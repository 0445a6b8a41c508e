"""Sessions of clients and of executors: frames of operations in, ready objects and acknowledgements out."""

from __future__ import annotations

import asyncio

from runner.clock import Clock
from runner.coordinator import conversion
from runner.coordinator.engine import Engine
from runner.coordinator.journal import Journal
from runner.coordinator.machine_links import MachineLinks
from runner.coordinator.operations import OnCall, Operations, too_large
from runner.coordinator.outbox import Outbox
from runner.coordinator.task_index import TaskIndex
from runner.core import events
from runner.core.values import FailureRecord, ValueRecord
from runner.errors import ProtocolViolationError
from runner.ids import ClientId, ExecutorId, MachineId, ObjectId, TaskId
from runner.rpc.gen import client_pb2
from runner.rpc.limits import ITEM_BYTES_MAX

# An acknowledgement waits this long for a frame that it can ride on: nobody but the resend buffer waits for it.
_ACK_DELAY_S = 0.005
_READY_OVERHEAD_BYTES = 64
_SEPARATOR = "/"  # in the ids of executors' sessions, and in no client's

Ready = tuple[ObjectId, ValueRecord | None, FailureRecord | None]


class Session:
    """One client's channel. Survives the stream; a client that comes back gets a new outbox on the same session."""

    __slots__ = (
        "acked_seq",
        "applied_seq",
        "client_id",
        "executor_id",
        "generation",
        "is_ack_due",
        "machine_id",
        "outbox",
        "relayed",
        "sent_ack",
        "stream",
    )

    def __init__(self, client_id: ClientId, applied_seq: int) -> None:
        self.client_id = client_id
        self.applied_seq = applied_seq  # newest frame handed to the engine
        self.acked_seq = applied_seq  # newest frame that is durable
        self.sent_ack = applied_seq
        self.is_ack_due = False  # an acknowledgement has waited long enough for a frame to ride on
        self.outbox: Outbox[Ready | client_pb2.ServerFrame] = Outbox()
        self.stream = 0  # counts connections: an old stream must not end a newer one's session
        self.relayed: set[tuple[TaskId, int]] = set()  # incarnations of actors with which it speaks through us
        # Set for executors' sessions, which speak through their machine's agent.
        self.machine_id = MachineId("")
        self.generation = 0
        self.executor_id = ExecutorId("")

    def take_frame(self) -> client_pb2.SessionReply | None:
        """The next reply: what waits, and the newest acknowledgement. None when there is nothing to say."""
        items = self.outbox.take()
        if not items and not self.is_ack_due:
            return None
        self.is_ack_due = False
        reply = client_pb2.SessionReply()
        frame = reply.frame
        frame.acked_seq = self.sent_ack = self.acked_seq
        ready = frame.ready
        for item in items:
            if type(item) is tuple:
                conversion.fill_ready(ready.add(), *item)
            else:
                frame.MergeFrom(item)  # type: ignore[arg-type]  # narrowed by type(), which is cheaper
        return reply


class Sessions:
    """All sessions. Only the loop's thread touches it."""

    def __init__(self, engine: Engine, journal: Journal, clock: Clock, tasks: TaskIndex, links: MachineLinks) -> None:
        self._engine = engine
        self._relay = links.relay
        self._operations = Operations(engine.cluster, journal, clock, tasks, links, self._refuse)
        self._by_id: dict[ClientId, Session] = {}
        self._of_executors: dict[tuple[MachineId, ExecutorId], Session] = {}
        links.on_succeeded = self._machine_came_back
        self._unflushed: set[Session] = set()  # executors' sessions with something to relay after this turn
        self._unacked: set[Session] = set()
        self._ack_timer: asyncio.TimerHandle | None = None

    def serve_calls(self, on_call: OnCall) -> None:
        """Who answers plain calls that come as operations."""
        self._operations.on_call = on_call

    # ---- coming and going ----
    async def connect(self, client_id: ClientId) -> tuple[Session, int]:
        """A client said hello, for the first time or again: its session, and the number of this stream of it.

        Durable when it returns.

        Raises:
            ProtocolViolationError: the id is one of an executor's session.
        """
        if _SEPARATOR in client_id:
            raise ProtocolViolationError(f"{client_id!r} cannot be the id of a client")
        self._prune()
        session = self._open(client_id)
        session.outbox.close()  # the writer of an older stream ends
        session.outbox = Outbox()
        session.stream += 1
        stream = session.stream  # the next hello may come before this one is durable
        self._engine.post(events.ClientConnected(client_id))
        await self._engine.committed()
        return session, stream

    def disconnect(self, session: Session, stream: int, *, on_purpose: bool) -> None:
        """The stream number `stream` of this session ended."""
        if session.stream != stream:
            return
        session.outbox.close()
        if on_purpose:
            self._drop(session.client_id)
            self._engine.post(events.ClientClosed(session.client_id))
        else:
            self._engine.post(events.ClientDisconnected(session.client_id))

    def connect_executor(self, executor_id: ExecutorId, machine_id: MachineId, generation: int) -> Session:
        """An executor's session. A machine can name those of its own executors only."""
        session = self.executor_session(executor_id, machine_id, generation)
        if session is None:
            session = self._open(_session_id(executor_id, machine_id, generation))
            session.executor_id, session.machine_id, session.generation = executor_id, machine_id, generation
            self._of_executors[machine_id, executor_id] = session
        self._engine.post(events.ClientConnected(session.client_id, executor_id))
        return session

    def executor_session(self, executor_id: ExecutorId, machine_id: MachineId, generation: int) -> Session | None:
        """The session of an executor that said hello from this machine."""
        session = self._of_executors.get((machine_id, executor_id))
        return session if session is not None and session.generation == generation else None

    def executor_gone(self, executor_id: ExecutorId, machine_id: MachineId, generation: int) -> None:
        """The executor's process ended: what it held goes, with or without a session."""
        session = self.executor_session(executor_id, machine_id, generation)
        # One that has slept keeps the id that it got from an earlier generation.
        session_id = _session_id(executor_id, machine_id, generation) if session is None else session.client_id
        self._drop(session_id)
        self._engine.post(events.ClientClosed(session_id))

    def machine_gone(self, machine_id: MachineId, generation: int | None = None) -> None:
        """No executor of this machine, or of this generation of it, will speak again."""
        for session in list(self._by_id.values()):
            if session.executor_id and session.machine_id == machine_id and generation in (None, session.generation):
                self.executor_gone(session.executor_id, machine_id, session.generation)

    def _machine_came_back(self, machine_id: MachineId, generation: int) -> None:
        """After a suspend: its executors go on, with all that they hold."""
        for session in self._of_executors.values():
            if session.machine_id == machine_id:
                session.generation = generation

    # ---- from clients ----
    def apply(self, session: Session, frame: client_pb2.ClientFrame, parent: tuple[TaskId, int] | None = None) -> None:
        """Hand a frame's operations to the engine; a frame that was applied before is only acknowledged again.

        Raises:
            ProtocolViolationError: a frame is missing before this one, or an operation cannot be read.
        """
        if frame.seq > session.applied_seq:
            # A client whose lease had ended starts anew here with the number that it has reached.
            if session.applied_seq and frame.seq != session.applied_seq + 1:
                raise ProtocolViolationError(
                    f"client {session.client_id} sent frame {frame.seq} after frame {session.applied_seq}"
                )
            read = self._operations.read
            posted = [read(session, operation, parent) for operation in frame.operations]
            for event in posted:
                if event is not None:
                    self._engine.post(event)
            session.applied_seq = frame.seq
            self._engine.post(events.FrameApplied(session.client_id, frame.seq))
        else:
            session.sent_ack = -1
        self._engine.after_commit(lambda seq=session.applied_seq: self._acknowledge(session, seq))  # type: ignore[misc]

    # ---- to clients ----
    def notify(
        self, client_id: ClientId, object_id: ObjectId, value: ValueRecord | None, failure: FailureRecord | None
    ) -> None:
        """Tell a client about a final object. One that is away asks again when it is back."""
        session = self._by_id.get(client_id)
        if session is not None and not session.outbox.closed:
            size_bytes = _size_bytes(value, failure)
            if size_bytes > ITEM_BYTES_MAX:
                value, failure = None, too_large(f"{object_id} takes {size_bytes} bytes to tell", failure)
                size_bytes = _size_bytes(value, failure)
            session.outbox.push((object_id, value, failure), size_bytes + _READY_OVERHEAD_BYTES)
            if session.executor_id:
                self._unflushed.add(session)

    def flush(self) -> None:
        """Relay what this turn has for executors."""
        if self._unflushed:
            sessions, self._unflushed = self._unflushed, set()
            for session in sessions:
                while len(session.outbox) and (reply := session.take_frame()) is not None:
                    self._relay(session.machine_id, session.executor_id, reply)

    def tell(self, client_id: ClientId, part: client_pb2.ServerFrame) -> None:
        """Send a part of a reply. For a client that is away it is lost: what it waits for it asks for again."""
        session = self._by_id.get(client_id)
        if session is not None and not session.outbox.closed:
            session.outbox.push(part, part.ByteSize())
            if session.executor_id:
                self._unflushed.add(session)

    def close(self) -> None:
        """End all writers. Idempotent."""
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        for session in self._by_id.values():
            session.outbox.close()

    def _open(self, client_id: ClientId) -> Session:
        session = self._by_id.get(client_id)
        if session is None:
            session = self._by_id[client_id] = Session(client_id, self._engine.cluster.frame_seq(client_id))
        return session

    def _prune(self) -> None:
        """Forget clients that were away until their lease ended."""
        has_client = self._engine.cluster.has_client
        away = [key for key, session in self._by_id.items() if session.outbox.closed and not has_client(key)]
        for client_id in away:
            self._drop(client_id)

    def _drop(self, client_id: ClientId) -> None:
        session = self._by_id.pop(client_id, None)
        if session is not None:
            session.outbox.close()
            self._of_executors.pop((session.machine_id, session.executor_id), None)
            self._operations.session_ended(session)
            self._unflushed.discard(session)
            self._unacked.discard(session)

    def _refuse(self, client_id: ClientId, object_ids: list[ObjectId], failure: FailureRecord) -> None:
        """Tell the client, once its frame is acknowledged, that these will never be."""

        def tell() -> None:
            for object_id in object_ids:
                self.notify(client_id, object_id, None, failure)
            self.flush()

        self._engine.after_commit(tell)

    # ---- acknowledgements ----
    def _acknowledge(self, session: Session, seq: int) -> None:
        session.acked_seq = max(session.acked_seq, seq)
        self._unacked.add(session)
        if self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(_ACK_DELAY_S, self._send_acks)

    def _send_acks(self) -> None:
        self._ack_timer = None
        sessions, self._unacked = self._unacked, set()
        for session in sessions:
            if session.sent_ack == session.acked_seq:
                continue
            session.is_ack_due = True
            if not session.executor_id:
                session.outbox.poke()
            elif (reply := session.take_frame()) is not None:
                self._relay(session.machine_id, session.executor_id, reply)


def _session_id(executor_id: ExecutorId, machine_id: MachineId, generation: int) -> ClientId:
    return ClientId(f"{machine_id}.{generation}{_SEPARATOR}{executor_id}")


def _size_bytes(value: ValueRecord | None, failure: FailureRecord | None) -> int:
    if value is not None:
        return len(value.payload)
    return conversion.failure_bytes(failure) if failure is not None else 0
