"""Decides what enters the event log: lazily announced attempts, deduplicated items, bounded floods of log lines."""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from runner.clock import Clock
from runner.coordinator.conversion import failure_message
from runner.coordinator.event_log import EventLog
from runner.coordinator.task_index import KnownTask, TaskIndex
from runner.core import commands
from runner.ids import MachineId, TaskId
from runner.rpc.gen import client_pb2, fleet_pb2

# Log lines of one attempt: a burst, then a steady rate. What is above is counted, not kept.
LOG_LINES_BURST = 20_000
LOG_LINES_PER_S = 2_000.0

TERMINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})

_KIND_STATE = client_pb2.EVENT_KIND_STATE
_KIND_ATTEMPT = client_pb2.EVENT_KIND_ATTEMPT
_KIND_METRICS = client_pb2.EVENT_KIND_METRICS
_KIND_LOG = client_pb2.EVENT_KIND_LOG
_KIND_LOG_GAP = client_pb2.EVENT_KIND_LOG_GAP
_KIND_CHECKPOINT = client_pb2.EVENT_KIND_CHECKPOINT
_KIND_MACHINE = client_pb2.EVENT_KIND_MACHINE
_KIND_FLEET = client_pb2.EVENT_KIND_FLEET


class LogEntry(NamedTuple):
    """Metrics or log lines of one attempt on their way to the event log; they pass the engine only to keep their place."""

    machine_id: MachineId
    generation: int
    task_id: TaskId
    attempt: int
    item: fleet_pb2.Metrics | fleet_pb2.LogLines


class _Stream:
    """What is known about the newest attempt of a task that has something in the log."""

    __slots__ = ("attempt", "client_id", "dropped", "is_run", "item", "name", "refilled_s", "tokens")

    def __init__(self, attempt: int, task: KnownTask, now_s: float, item: int) -> None:
        self.attempt = attempt
        self.client_id = task.client_id
        self.name = task.name
        self.is_run = task.is_run
        self.item = item  # newest index kept
        self.tokens = float(LOG_LINES_BURST)
        self.refilled_s = now_s
        self.dropped = 0


class Recorder:
    """Turns the core's notes and the agents' items into numbered events."""

    def __init__(self, log: EventLog, clock: Clock, tasks: TaskIndex) -> None:
        self._log = log
        self._clock = clock
        self._tasks = tasks
        self._streams: dict[TaskId, _Stream] = {}
        # Attempts of plain tasks that go on from a checkpoint, until their first item announces them.
        self._resumed: dict[TaskId, tuple[int, int]] = {}

    def task_state(self, note: commands.NoteTaskState) -> None:
        """The task moved. Runs have it stored; plain tasks only show it to whoever watches now."""
        task_id = note.task_id
        known = self._tasks.get(task_id)
        is_run = known is not None and known.is_run
        client_id = note.client_id if known is None else known.client_id
        is_terminal = note.state in TERMINAL_STATES
        stream = self._streams.get(task_id)
        if stream is not None and (is_terminal or note.attempt != stream.attempt):
            self._note_gap(task_id, stream)
            del self._streams[task_id]
        if is_run or self._log.is_wanted(task_id, client_id, _KIND_STATE):
            event = self._event(_KIND_STATE, task_id, note.name, note.attempt)
            event.state = note.state
            event.machine_id = note.machine_id or ""
            if note.failure is not None:
                event.failure.CopyFrom(failure_message(note.failure))
            self._log.append(event, client_id, is_run=is_run, keep=is_run)
        else:
            self._log.wake_task(task_id)
        step = note.resumed_from_step
        if is_terminal:
            self._resumed.pop(task_id, None)
        elif step is not None and known is not None and is_run:
            self._announce(task_id, note.attempt, known, step)
        elif step is not None and step >= 0:
            self._resumed[task_id] = (note.attempt, step)

    def attempt_item(self, entry: LogEntry) -> None:
        """Metrics or log lines, already fenced. Items that were kept before are dropped."""
        stream = self._streams.get(entry.task_id)
        if stream is None or stream.attempt != entry.attempt:
            task = self._tasks.describe(entry.task_id)
            if task is None:
                return
            stream = self._open(entry.task_id, entry.attempt, task)
        item = entry.item
        if isinstance(item, fleet_pb2.LogLines):
            self._add_lines(entry.task_id, stream, item)
        elif item.index > stream.item:
            stream.item = item.index
            event = self._event(_KIND_METRICS, entry.task_id, stream.name, stream.attempt)
            event.step = item.step
            event.values = item.values
            self._log.append(event, stream.client_id, item=item.index, is_run=stream.is_run)

    def checkpoint(self, note: commands.NoteCheckpoint) -> None:
        """A checkpoint was committed."""
        known = self._tasks.get(note.task_id)
        client_id = note.client_id if known is None else known.client_id
        event = self._event(_KIND_CHECKPOINT, note.task_id, note.name, note.attempt)
        event.step = note.step
        self._log.append(event, client_id, is_run=known is not None and known.is_run)

    def machine_state(self, note: commands.NoteMachineState, phases: dict[str, float]) -> None:
        """A machine moved; `phases` are seconds since it was requested."""
        event = client_pb2.Event(kind=_KIND_MACHINE, time_s=self._clock.unix_s())
        event.machine_id = note.machine_id
        event.state = note.state
        event.text = note.reason
        event.phases = msgpack.packb(phases)
        self._log.append(event, "", is_run=True)

    def pool_trouble(self, note: commands.NotePool) -> None:
        """A pool has fewer machines than it should."""
        event = client_pb2.Event(kind=_KIND_FLEET, time_s=self._clock.unix_s(), name=note.pool, text=note.text)
        self._log.append(event, "", is_run=True)

    def forget(self, task_id: TaskId) -> None:
        """Nobody can ask for this task again."""
        self._streams.pop(task_id, None)
        self._resumed.pop(task_id, None)
        self._tasks.forget(task_id)
        self._log.forget(task_id)

    def _open(self, task_id: TaskId, attempt: int, task: KnownTask) -> _Stream:
        """The first item of an attempt: a plain task's attempt is announced now."""
        newest_item = self._log.newest_item(task_id, attempt)
        stream = _Stream(attempt, task, self._clock.monotonic_s(), newest_item)
        self._streams[task_id] = stream
        if not task.is_run and newest_item == 0:
            resumed_attempt, step = self._resumed.pop(task_id, (0, -1))
            self._announce(task_id, attempt, task, step if resumed_attempt == attempt else -1)
        return stream

    def _announce(self, task_id: TaskId, attempt: int, task: KnownTask, step: int) -> None:
        event = self._event(_KIND_ATTEMPT, task_id, task.name, attempt)
        event.step = step
        self._log.append(event, task.client_id, is_run=task.is_run)

    def _add_lines(self, task_id: TaskId, stream: _Stream, item: fleet_pb2.LogLines) -> None:
        lines = list(item.lines)
        first = item.first_index
        # Lines that were only counted take one index as well.
        last = first + max(1, len(lines)) - 1
        if last <= stream.item:
            return
        known = max(0, stream.item + 1 - first)
        if known == 0:
            stream.dropped += item.lines_dropped
        stream.item = last
        room = self._take_tokens(stream, len(lines) - known)
        for position in range(known, known + room):
            self._note_gap(task_id, stream)
            event = self._event(_KIND_LOG, task_id, stream.name, stream.attempt)
            event.stream = item.stream
            event.text = lines[position]
            self._log.append(event, stream.client_id, item=first + position, is_run=stream.is_run)
        stream.dropped += len(lines) - known - room

    def _take_tokens(self, stream: _Stream, wanted: int) -> int:
        now_s = self._clock.monotonic_s()
        refill = (now_s - stream.refilled_s) * LOG_LINES_PER_S
        stream.tokens = min(float(LOG_LINES_BURST), stream.tokens + refill)
        stream.refilled_s = now_s
        granted = min(wanted, int(stream.tokens))
        stream.tokens -= granted
        return granted

    def _note_gap(self, task_id: TaskId, stream: _Stream) -> None:
        if stream.dropped:
            event = self._event(_KIND_LOG_GAP, task_id, stream.name, stream.attempt)
            event.lines_dropped = stream.dropped
            stream.dropped = 0
            self._log.append(event, stream.client_id, is_run=stream.is_run)

    def _event(self, kind: int, task_id: TaskId, name: str, attempt: int) -> client_pb2.Event:
        event = client_pb2.Event()
        event.kind = kind  # type: ignore[assignment]  # generated code types enums by their wrapper
        event.time_s = self._clock.unix_s()
        event.task_id = task_id
        event.name = name
        event.attempt = attempt
        return event
