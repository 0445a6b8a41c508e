"""What agents report, as events for the engine: in order, each item once, acknowledged when it is durable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from runner.coordinator import conversion
from runner.coordinator.bulk import Bulk
from runner.coordinator.engine import Engine
from runner.coordinator.fleet import Fleet
from runner.coordinator.machine_links import MachineLink, MachineLinks
from runner.coordinator.recorder import LogEntry, Recorder
from runner.coordinator.sessions import Session, Sessions
from runner.core import commands, events, stream_events, suspend_events
from runner.core.values import SegmentRecord, ValueRecord
from runner.errors import ProtocolViolationError
from runner.ids import ClientId, ExecutorId, ObjectId, TaskId
from runner.rpc.gen import client_pb2, fleet_pb2, types_pb2
from runner.rpc.phases import DRAINING
from runner.rpc.version import check_peer

log = logging.getLogger(__name__)

Welcome = Callable[[Session], client_pb2.Welcome]


class Reports:
    """Turns report items into events. Fences are the core's business; sequence numbers are ours."""

    def __init__(
        self,
        *,
        engine: Engine,
        links: MachineLinks,
        sessions: Sessions,
        recorder: Recorder,
        fleet: Fleet,
        bulk: Bulk,
        welcome: Welcome,
        use_leases: bool,
    ) -> None:
        self._engine = engine
        self._links = links
        self._sessions = sessions
        self._recorder = recorder
        self._fleet = fleet
        self._welcome = welcome
        self._use_leases = use_leases
        self._handlers: dict[str, Callable[[MachineLink, Any], None]] = {
            "started": self._started,
            "ended": self._ended,
            "returned": self._returned,
            "blocked": self._blocked,
            "unblocked": self._unblocked,
            "metrics": self._log_item,
            "logs": self._log_item,
            "checkpoint": self._checkpoint,
            "relay": self._relayed,
            "executor_gone": self._executor_gone,
            "phase": self._phase,
            "items": self._items,
            "actor_ready": self._actor_ready,
            "actor_output": self._actor_output,
            "pull_served": lambda link, item: bulk.serves(link.machine_id, link.generation, item.address),
            "values_kept": self._values_kept,
            "suspend_step": self._suspend_step,
            "awake": lambda link, item: self._engine.post(
                suspend_events.AgentAwoke(link.machine_id, link.generation, item.snapshot, item.failure)
            ),
            "bring_failed": lambda link, item: bulk.bring_failed(ObjectId(item.object_id), item.path, item.why),
        }

    def take(self, link: MachineLink, report: fleet_pb2.AgentReport) -> None:
        """Hand one report to the engine. Items that were taken before are skipped.

        Raises:
            ProtocolViolationError: items are missing before this report's first; the agent must resend.
        """
        if self._use_leases:
            self._engine.post(events.MachineHeard(link.machine_id, link.generation))
        link.confirm(report.received_seq)
        items = report.items
        if items:
            known = link.taken_seq + 1 - report.first_seq
            if known < 0:
                raise ProtocolViolationError(
                    f"machine {link.machine_id} sent item {report.first_seq} after item {link.taken_seq}"
                )
            for item in items[known:] if known else items:
                kind = item.WhichOneof("item")
                handler = self._handlers.get(kind or "")
                # An item of a newer agent that this version does not know says nothing that it could need.
                if handler is not None:
                    handler(link, getattr(item, kind))
            link.taken_seq = max(link.taken_seq, report.first_seq + len(items) - 1)
        seq, sent_s = link.taken_seq, report.sent_s
        self._engine.after_commit(lambda: self._links.acknowledge(link, seq, sent_s))

    def _started(self, link: MachineLink, item: fleet_pb2.AttemptStarted) -> None:
        key = item.key
        self._engine.post(
            events.AttemptStarted(
                link.machine_id, link.generation, TaskId(key.task_id), key.attempt, ExecutorId(item.executor_id)
            )
        )

    def _ended(self, link: MachineLink, item: fleet_pb2.AttemptEnded) -> None:
        key = item.key
        task_id = TaskId(key.task_id)
        if item.HasField("returns"):
            values = tuple([conversion.value_record(value, link.machine_id) for value in item.returns.values])
            self._engine.post(
                events.AttemptSucceeded(
                    link.machine_id,
                    link.generation,
                    task_id,
                    key.attempt,
                    values,
                    item.duration_s,
                )
            )
            return
        failure = item.failure
        if not failure.kind:
            failure = types_pb2.Failure(kind=types_pb2.FAILURE_KIND_WORKER_CRASHED, message="ended without an outcome")
        self._engine.post(
            events.AttemptFailed(
                link.machine_id,
                link.generation,
                task_id,
                key.attempt,
                conversion.failure_record(failure),
                item.retryable,
            )
        )

    def _items(self, link: MachineLink, item: fleet_pb2.Items) -> None:
        key = item.key
        if item.plain:
            values = tuple([ValueRecord(value) for value in item.plain])
        else:
            values = tuple([conversion.value_record(value, link.machine_id) for value in item.values])
        self._engine.post(
            stream_events.ItemsYielded(
                link.machine_id, link.generation, TaskId(key.task_id), key.attempt, item.first_index, values
            )
        )

    def _actor_ready(self, link: MachineLink, item: fleet_pb2.ActorReady) -> None:
        task_id = TaskId(item.key.task_id)
        self._engine.post(
            events.ActorCameUp(link.machine_id, link.generation, task_id, item.key.attempt, item.address, item.secret)
        )

    def _actor_output(self, link: MachineLink, item: fleet_pb2.ActorOutput) -> None:
        """For a caller that cannot reach the actor itself; only the actor's own machine speaks for it."""
        actor_id = TaskId(item.key.task_id)
        if self._engine.cluster.actor_place(actor_id, item.key.attempt) != (link.machine_id, link.generation):
            return
        part = client_pb2.ActorFrames(actor_id=actor_id, incarnation=item.key.attempt, frames=item.frames)
        self._sessions.tell(ClientId(item.caller_id), client_pb2.ServerFrame(actor_frames=[part]))
        self._sessions.flush()

    def _values_kept(self, link: MachineLink, item: fleet_pb2.ValuesKept) -> None:
        machine = self._engine.cluster.machine(link.machine_id)
        host_id = "" if machine is None else machine.host_id
        kept = tuple(
            (ObjectId(each.object_id), SegmentRecord(host_id, each.path, 0, link.machine_id)) for each in item.values
        )
        self._engine.post(events.ValuesKept(link.machine_id, kept))

    def _returned(self, link: MachineLink, item: fleet_pb2.AttemptReturned) -> None:
        self._post_key(events.AttemptReturned, link, item.key)

    def _blocked(self, link: MachineLink, item: fleet_pb2.AttemptBlocked) -> None:
        self._post_key(events.AttemptBlocked, link, item.key)

    def _unblocked(self, link: MachineLink, item: fleet_pb2.AttemptUnblocked) -> None:
        self._post_key(events.AttemptUnblocked, link, item.key)

    def _post_key(
        self,
        event: type[events.AttemptReturned | events.AttemptBlocked | events.AttemptUnblocked],
        link: MachineLink,
        key: fleet_pb2.AttemptKey,
    ) -> None:
        self._engine.post(event(link.machine_id, link.generation, TaskId(key.task_id), key.attempt))

    def _log_item(self, link: MachineLink, item: fleet_pb2.Metrics | fleet_pb2.LogLines) -> None:
        key = item.key
        self._engine.post(LogEntry(link.machine_id, link.generation, TaskId(key.task_id), key.attempt, item))

    def _checkpoint(self, link: MachineLink, item: fleet_pb2.CheckpointSaved) -> None:
        key = item.key
        record = conversion.checkpoint_record(item.checkpoint, key.attempt)
        self._engine.post(
            events.CheckpointSaved(link.machine_id, link.generation, TaskId(key.task_id), key.attempt, record)
        )

    def _relayed(self, link: MachineLink, item: fleet_pb2.RelayFromExecutor) -> None:
        executor_id = ExecutorId(item.executor_id)
        request = item.request
        if request.WhichOneof("body") == "hello":
            if request.hello.client_id != executor_id:
                log.error("executor %s said hello as %r; dropped", executor_id, request.hello.client_id)
                return
            check_peer(request.hello.peer, who=f"executor {executor_id} on machine {link.machine_id}")
            opened = self._sessions.connect_executor(executor_id, link.machine_id, link.generation)

            def greet() -> None:
                reply = client_pb2.SessionReply(welcome=self._welcome(opened))
                self._links.relay(link.machine_id, executor_id, reply)

            self._engine.after_commit(greet)
            return
        session = self._sessions.executor_session(executor_id, link.machine_id, link.generation)
        if session is None:
            log.error("executor %s on machine %s has not said hello; frame dropped", executor_id, link.machine_id)
            return
        key = item.key
        task_id = TaskId(key.task_id)
        # A machine may submit only as a child of what is assigned to it.
        is_current = self._engine.cluster.is_current(link.machine_id, link.generation, task_id, key.attempt)
        try:
            self._sessions.apply(session, request.frame, (task_id, key.attempt) if is_current else None)
        except ProtocolViolationError:
            # One executor's fault must not end its machine's stream.
            log.exception("frame %d of executor %s dropped", request.frame.seq, executor_id)

    def _executor_gone(self, link: MachineLink, item: fleet_pb2.ExecutorGone) -> None:
        self._sessions.executor_gone(ExecutorId(item.executor_id), link.machine_id, link.generation)

    def _suspend_step(self, link: MachineLink, item: fleet_pb2.SuspendStep) -> None:
        place = (link.machine_id, link.generation, item.snapshot)
        if item.progress == fleet_pb2.SUSPEND_PROGRESS_QUIET:
            self._engine.post(suspend_events.AgentIsQuiet(*place))
        elif item.progress == fleet_pb2.SUSPEND_PROGRESS_REFUSED:
            self._engine.post(suspend_events.AgentRefused(*place, item.reason))
        elif item.progress == fleet_pb2.SUSPEND_PROGRESS_PREPARED:
            # Its last word. It counts once it has hung up, see `hung_up`: a snapshot must hold no connection.
            link.prepared, link.prepared_s = item.snapshot, asyncio.get_running_loop().time()

    def hung_up(self, link: MachineLink) -> None:
        """A connection of this machine has ended."""
        if link.prepared:
            self._engine.post(suspend_events.AgentPrepared(link.machine_id, link.generation, link.prepared))

    def _phase(self, link: MachineLink, item: fleet_pb2.BootPhase) -> None:
        if item.name == DRAINING:
            self._engine.post(events.MachineRemovalRequested(link.machine_id, force=False, by_itself=True))
            return
        self._fleet.note_machine_phase(link.machine_id, item.name, item.time_s)
        machine = self._engine.cluster.machine(link.machine_id)
        if machine is not None:
            note = commands.NoteMachineState(link.machine_id, machine.state, link.generation)
            self._recorder.machine_state(note, self._fleet.phases(link.machine_id))
