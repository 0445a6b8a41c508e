"""Carries out the core's commands: queues messages, records events, frees files, tells the fleet."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from runner.coordinator import conversion
from runner.coordinator.artefacts import Artefacts
from runner.coordinator.bulk import Bulk
from runner.coordinator.cost_keeper import CostKeeper
from runner.coordinator.event_log import EventLog
from runner.coordinator.fleet import Fleet
from runner.coordinator.lanes import Lanes
from runner.coordinator.machine_links import MachineLinks
from runner.coordinator.recorder import LogEntry, Recorder
from runner.coordinator.sessions import Sessions
from runner.coordinator.sleepers import Sleepers
from runner.core import commands
from runner.errors import InternalError
from runner.ids import TaskId
from runner.objects import spill
from runner.rpc.gen import client_pb2, fleet_pb2, types_pb2
from runner.rpc.limits import ITEM_BYTES_MAX

_STOP_REASONS = {
    "cancelled": fleet_pb2.STOP_REASON_CANCELLED,
    "timeout": fleet_pb2.STOP_REASON_TIMEOUT,
    "fenced": fleet_pb2.STOP_REASON_FENCED,
    "drain": fleet_pb2.STOP_REASON_DRAIN,
    "released": fleet_pb2.STOP_REASON_RELEASED,
}
_SUSPEND_ACTIONS = {
    "quiet": fleet_pb2.SUSPEND_ACTION_QUIET,
    "prepare": fleet_pb2.SUSPEND_ACTION_PREPARE,
    "call off": fleet_pb2.SUSPEND_ACTION_CALL_OFF,
}

# Values of dependencies that travel with the assignment; a message may have 4 MiB in all.
INLINE_DEPENDENCIES_BYTES = 1 << 20


class Effects:
    """The performer of the engine's turns. Nothing here waits: what takes time is handed to the fleet's tasks."""

    def __init__(
        self,
        links: MachineLinks,
        sessions: Sessions,
        lanes: Lanes,
        recorder: Recorder,
        event_log: EventLog,
        fleet: Fleet,
        sleepers: Sleepers,
        costs: CostKeeper,
        bulk: Bulk,
        *,
        host_id: str,
        store_path: str,
        artefact_path: str,
        suspend_hooks_s: float,
    ) -> None:
        self._suspend_hooks_s = suspend_hooks_s
        self._links = links
        self._sessions = sessions
        self._lanes = lanes
        self._recorder = recorder
        self._event_log = event_log
        self._fleet = fleet
        self._sleepers = sleepers
        self._costs = costs
        self._bulk = bulk
        self._host_id = host_id
        self._store_path = store_path
        self._artefacts = Artefacts(artefact_path)
        self._forgotten: list[TaskId] = []  # in this turn: their files go when all else is sent
        self._first_seq = 0  # of the events of a turn that is not committed
        self._recorders: dict[type[Any], Callable[[Any], None]] = {
            LogEntry: recorder.attempt_item,
            commands.NoteTaskState: recorder.task_state,
            commands.NoteCheckpoint: recorder.checkpoint,
            commands.NoteMachineState: lambda c: recorder.machine_state(c, fleet.phases(c.machine_id)),
            commands.NotePool: recorder.pool_trouble,
        }
        self._handlers = self._performers()

    def _performers(self) -> dict[type[Any], Callable[[Any], None]]:
        fleet, sleepers, sessions = self._fleet, self._sleepers, self._sessions
        return {
            commands.SendFunction: self._send_function,
            commands.SendPackage: self._send_package,
            commands.StartAttempt: self._start_attempt,
            commands.StopAttempt: self._stop_attempt,
            commands.ResumeAttempt: self._resume_attempt,
            commands.ReplyCheckpoint: self._reply_checkpoint,
            commands.FenceAgent: self._fence_agent,
            commands.SuspendAgent: self._suspend_agent,
            commands.CreateMachine: lambda c: fleet.create(c.machine_id, c.shape, c.pool),
            commands.DestroyMachine: self._destroy_machine,
            commands.SuspendMachine: lambda c: sleepers.suspend(c.machine_id, c.snapshot),
            commands.ResumeMachine: lambda c: sleepers.resume(c.machine_id, c.snapshot),
            commands.ColdStartMachine: lambda c: sleepers.cold_start(c.machine_id, c.reason),
            commands.SurveyMachine: lambda c: sleepers.survey(c.machine_id),
            commands.NotifyReady: lambda c: sessions.notify(c.client_id, c.object_id, c.value, c.failure),
            commands.NotifyItems: self._notify_items,
            commands.TellItemsRead: self._tell_items_read,
            commands.NotifyActor: lambda c: sessions.tell(c.client_id, conversion.actor_update(c)),
            commands.NotifyFound: lambda c: sessions.tell(c.client_id, conversion.found_actor(c)),
            commands.NoteMachineState: self._machine_moved,
            commands.ForgetTask: self._forget_task,
            commands.FreeSegment: self._free_segment,
            commands.NoteObject: lambda c: self._bulk.look_again(c.object_id),
            commands.BringObjects: lambda c: self._bulk.ask_for(c.object_ids),
            commands.DropCheckpoint: lambda c: self._artefacts.drop(c.checkpoint.uri),
            commands.SweepCheckpoints: lambda c: self._artefacts.sweep(c.task_id, c.kept.uri if c.kept else ""),
        }

    def record(self, decided: list[commands.Command | LogEntry], turn: int) -> None:
        """Number and store the turn's events; they count once the journal has the turn."""
        recorders = self._recorders
        self._first_seq = self._event_log.newest_seq + 1
        for command in decided:
            record = recorders.get(type(command))
            if record is not None:
                record(command)
        self._event_log.flush(turn)

    def abandon(self) -> None:
        """The turn failed: no reader gets its events."""
        self._event_log.hide(self._first_seq)

    def perform(self, decided: list[commands.Command | LogEntry]) -> None:
        """In order, without waiting for anything."""
        handlers, recorders = self._handlers, self._recorders
        self._lanes.gather()
        self._first_seq = self._event_log.newest_seq + 1  # what was recorded is committed
        for command in decided:
            handler = handlers.get(type(command))
            if handler is not None:
                handler(command)
            elif type(command) not in recorders:
                raise InternalError(f"nobody carries out {type(command).__name__}")

    def finish_turn(self) -> None:
        """Drop the events of forgotten tasks, and send what was gathered for executors and lanes."""
        self._event_log.flush()
        self._sessions.flush()
        self._lanes.flush()
        for task_id in self._forgotten:
            self._artefacts.forget(task_id)
        self._forgotten.clear()

    # ---- to machines ----
    def _send_function(self, c: commands.SendFunction) -> None:
        command = fleet_pb2.AgentCommand(function=types_pb2.Function.FromString(c.payload))
        self._links.send(c.machine_id, c.generation, command)

    def _send_package(self, c: commands.SendPackage) -> None:
        command = fleet_pb2.AgentCommand(package=types_pb2.Package.FromString(c.payload))
        self._links.send(c.machine_id, c.generation, command)

    def _start_attempt(self, c: commands.StartAttempt) -> None:
        command = fleet_pb2.AgentCommand()
        start = command.start
        start.key.task_id = c.task_id
        start.key.attempt = c.attempt
        start.slot = c.slot
        start.spec = c.payload
        start.client_id = c.client_id
        ids_bytes = sum(len(object_id) + 8 for object_id, _ in c.dependencies)
        room_bytes = min(INLINE_DEPENDENCIES_BYTES, ITEM_BYTES_MAX - len(c.payload) - ids_bytes)
        for object_id, value in c.dependencies:
            room_bytes -= len(value.payload)
            # What does not fit in one message is left out: the executor asks for it.
            conversion.fill_ready(start.dependencies.add(), object_id, value if room_bytes >= 0 else None, None)
        start.memory_bytes = c.memory_bytes
        if c.gpu_ids:
            start.gpu_ids.extend(c.gpu_ids)
        start.items_done, start.items_read = c.items_done, c.items_read
        if c.checkpoint is not None:
            start.checkpoint.CopyFrom(conversion.checkpoint_message(c.checkpoint))
        self._links.send(c.machine_id, c.generation, command)

    def _stop_attempt(self, c: commands.StopAttempt) -> None:
        stop = fleet_pb2.StopAttempt(
            key=fleet_pb2.AttemptKey(task_id=c.task_id, attempt=c.attempt),
            reason=_STOP_REASONS.get(c.reason, fleet_pb2.STOP_REASON_CANCELLED),
            force=c.force,
        )
        self._links.send(c.machine_id, c.generation, fleet_pb2.AgentCommand(stop=stop))

    def _resume_attempt(self, c: commands.ResumeAttempt) -> None:
        resume = fleet_pb2.ResumeAttempt(key=fleet_pb2.AttemptKey(task_id=c.task_id, attempt=c.attempt))
        self._links.send(c.machine_id, c.generation, fleet_pb2.AgentCommand(resume=resume))

    def _reply_checkpoint(self, c: commands.ReplyCheckpoint) -> None:
        reply = fleet_pb2.CommitCheckpointReply(
            key=fleet_pb2.AttemptKey(task_id=c.task_id, attempt=c.attempt),
            step=c.step,
            accepted=c.accepted,
            reason=c.reason,
        )
        self._links.send(c.machine_id, c.generation, fleet_pb2.AgentCommand(checkpoint_committed=reply))

    def _tell_items_read(self, c: commands.TellItemsRead) -> None:
        read = fleet_pb2.ItemsRead(key=fleet_pb2.AttemptKey(task_id=c.task_id, attempt=c.attempt), count=c.count)
        self._links.send(c.machine_id, c.generation, fleet_pb2.AgentCommand(items_read=read))

    def _fence_agent(self, c: commands.FenceAgent) -> None:
        self._links.fence(c.machine_id, c.generation, c.reason)
        self._sessions.machine_gone(c.machine_id, c.generation)

    def _suspend_agent(self, c: commands.SuspendAgent) -> None:
        suspend = fleet_pb2.Suspend(
            snapshot=c.snapshot,
            action=_SUSPEND_ACTIONS[c.action],
            interrupts=c.interrupts,
            hooks_s=self._suspend_hooks_s,
        )
        self._links.send(c.machine_id, c.generation, fleet_pb2.AgentCommand(suspend=suspend))

    # ---- to clients ----
    def _notify_items(self, c: commands.NotifyItems) -> None:
        for part in conversion.stream_items(c.task_id, c.first_index, c.values, is_over=c.is_over):
            self._sessions.tell(c.client_id, client_pb2.ServerFrame(items=[part]))

    # ---- to the provider ----
    def _destroy_machine(self, c: commands.DestroyMachine) -> None:
        self._sessions.machine_gone(c.machine_id)
        self._sleepers.let_go(c.machine_id)
        self._fleet.destroy(c.machine_id, c.reason)

    def _machine_moved(self, c: commands.NoteMachineState) -> None:
        self._costs.machine_state(c.machine_id, c.state)
        if c.state == "destroyed":
            self._links.forget(c.machine_id)
            self._fleet.forget(c.machine_id)

    # ---- files ----
    def _free_segment(self, c: commands.FreeSegment) -> None:
        segment = c.segment
        if segment.host_id == self._host_id:
            # Unlinking is safe under live mappings. The path came from a peer: nothing outside the store is touched.
            if os.path.dirname(segment.path) == self._store_path:
                with contextlib.suppress(OSError):
                    spill.remove(segment.path)
        holders = self._bulk.released(segment.path)
        if segment.host_id != self._host_id:
            holders.update(self._fleet.machines_on(segment.host_id))
        for machine_id, generation in holders:
            command = fleet_pb2.AgentCommand(free_segment=fleet_pb2.FreeSegment(path=segment.path))
            self._links.send(machine_id, generation, command)

    def _forget_task(self, c: commands.ForgetTask) -> None:
        self._recorder.forget(c.task_id)
        self._forgotten.append(c.task_id)
