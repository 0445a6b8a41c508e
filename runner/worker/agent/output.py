"""Everything an agent reports, as items in one ordered buffer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from runner.core.values import FailureKind
from runner.rpc.gen import client_pb2, fleet_pb2, types_pb2
from runner.rpc.limits import ITEM_BYTES_MAX, cut_text
from runner.rpc.phases import MARKED_MAX
from runner.worker.agent import events as ev
from runner.worker.agent.events import Key
from runner.worker.agent.executors import Handle
from runner.worker.agent.report_buffer import ReportBuffer
from runner.worker.frames import Frame

# Above the first, log lines are counted instead of kept; above the second, executors wait.
LOG_BYTES_MAX = 4 << 20
BYTES_MAX = 16 << 20
ITEMS_MAX = 50_000
_ITEM_BYTES = 64
_LINES_BYTES_MAX = 256 << 10  # of one LogLines item
_REASON_BYTES_MAX = 16 << 10  # what a hook has raised may be any text

log = logging.getLogger(__name__)


class Output:
    """Makes items and keeps them until they are acknowledged."""

    def __init__(self, machine_id: str) -> None:
        self._machine_id = machine_id
        self._is_gathering = self._is_due = False
        self._marked: set[str] = set()  # phases that user code has told of
        self.buffer: ReportBuffer[fleet_pb2.ReportItem] = ReportBuffer()
        self.wake: Callable[[], None] = lambda: None
        self.wake_now: Callable[[], None] = lambda: self.wake()
        self.wake_later: Callable[[], None] = lambda: None  # in a few milliseconds: nobody waits for it

    def gather(self) -> None:
        """More may follow in this callback, at whose end `let_out` is called."""
        self._is_gathering = True

    def let_out(self) -> None:
        """Report what was gathered."""
        self._is_gathering = False
        if self._is_due:
            self._is_due = False
            self.wake_now()

    def _wake(self) -> None:
        if self._is_gathering:
            self._is_due = True
        else:
            self.wake()

    @property
    def is_full(self) -> bool:
        """Executors must not add any more."""
        return self.buffer.size_bytes > BYTES_MAX or len(self.buffer) > ITEMS_MAX

    # ---- attempts ----
    def started(self, command: ev.ReportStarted, handle: Handle) -> None:
        """The attempt is in an executor."""
        item = fleet_pb2.ReportItem()
        started = item.started
        started.key.task_id, started.key.attempt = command.key
        started.executor_id = handle.executor_id
        entry = self.buffer.add(item, _ITEM_BYTES)
        if command.is_run:
            self._wake()
        else:
            # The core takes an end without a start, so an attempt that ends before the next frame costs one item, not two.
            handle.started = entry
            self.wake_later()

    def ended(self, command: ev.ReportEnded, handle: Handle | None) -> None:
        """The one final report of an attempt: the executor's own words, or what the agent saw."""
        item = fleet_pb2.ReportItem()
        ended = item.ended
        fault = command.fault
        if fault is None and len(command.outcome) > ITEM_BYTES_MAX:
            text = f"its result takes {len(command.outcome)} bytes to tell, the limit is {ITEM_BYTES_MAX}"
            fault = ev.Fault(FailureKind.USER, text)
        if fault is None:
            ended.MergeFromString(command.outcome)
        else:
            ended.duration_s = command.duration_s
            self._fill_failure(ended, command.key, fault)
        size_bytes = _ITEM_BYTES + (
            len(command.outcome) if fault is None else _text_bytes(fault.message + fault.traceback)
        )
        if handle is not None:
            ended.executor_id = handle.executor_id
            if handle.started is not None:
                self.buffer.withdraw(handle.started)
                handle.started = None
        # In a burst of short attempts many ends travel together: each message costs as much as an attempt.
        self._add(item, size_bytes, is_urgent=command.is_last)

    def returned(self, key: Key, reason: str) -> None:
        """Given back, not started here or stopped without fault of its own."""
        returned = fleet_pb2.AttemptReturned(key=_key(key), reason=reason)
        self._add(fleet_pb2.ReportItem(returned=returned), _ITEM_BYTES)

    def pull_served(self, address: str) -> None:
        """Other machines can pull values there."""
        self._add(fleet_pb2.ReportItem(pull_served=fleet_pb2.PullServed(address=address)), _ITEM_BYTES)

    def values_kept(self, kept: Mapping[str, str]) -> None:
        """What an attempt that is over has kept here: objects by path."""
        item = fleet_pb2.ReportItem()
        for path, object_id in kept.items():
            item.values_kept.values.add(object_id=object_id, path=path)
        self._add(item, item.ByteSize())

    def bring_failed(self, object_id: str, path: str, why: str) -> None:
        """The coordinator does not get this value."""
        failed = fleet_pb2.BringFailed(object_id=object_id, path=path, why=why)
        self._add(fleet_pb2.ReportItem(bring_failed=failed), failed.ByteSize())

    def suspend_step(self, snapshot: int, progress: fleet_pb2.SuspendProgress, reason: str = "") -> None:
        """How far a suspend has come. After PREPARED nothing more is said in this generation."""
        step = fleet_pb2.SuspendStep(snapshot=snapshot, progress=progress, reason=cut_text(reason, _REASON_BYTES_MAX))
        self._add(fleet_pb2.ReportItem(suspend_step=step), step.ByteSize() + _ITEM_BYTES)
        if progress == fleet_pb2.SUSPEND_PROGRESS_PREPARED:
            self.buffer.seal()

    def awake(self, snapshot: int, failure: str) -> None:
        """The hooks after a resume have run, or one has failed."""
        awake = fleet_pb2.Awake(snapshot=snapshot, failure=cut_text(failure, _REASON_BYTES_MAX))
        self._add(fleet_pb2.ReportItem(awake=awake), awake.ByteSize() + _ITEM_BYTES)

    def blocked(self, key: Key) -> None:
        self._add(fleet_pb2.ReportItem(blocked=fleet_pb2.AttemptBlocked(key=_key(key))), _ITEM_BYTES)

    def unblocked(self, key: Key) -> None:
        self._add(fleet_pb2.ReportItem(unblocked=fleet_pb2.AttemptUnblocked(key=_key(key))), _ITEM_BYTES)

    # ---- what executors say ----
    def metrics(self, handle: Handle, frame: Frame) -> None:
        """[kind, serial, step, values]"""
        if handle.attempt is None or frame[1] != handle.serial:
            return
        metrics = fleet_pb2.Metrics(
            key=_key(handle.attempt.key), index=handle.next_index, step=frame[2], values=frame[3]
        )
        handle.next_index += 1
        self._said(handle)
        self._add(fleet_pb2.ReportItem(metrics=metrics), _ITEM_BYTES + len(frame[3]))

    def checkpoint(self, handle: Handle, frame: Frame) -> None:
        """[kind, serial, step, uri, sha256, size_bytes]"""
        if handle.attempt is None or frame[1] != handle.serial:
            return
        key = handle.attempt.key
        checkpoint = types_pb2.Checkpoint(
            step=frame[2], uri=frame[3], sha256=frame[4], size_bytes=frame[5], attempt=key[1]
        )
        self._said(handle)
        saved = fleet_pb2.CheckpointSaved(key=_key(key), checkpoint=checkpoint)
        self._add(fleet_pb2.ReportItem(checkpoint=saved), 2 * _ITEM_BYTES + len(frame[3]))

    def actor_ready(self, handle: Handle, frame: Frame) -> None:
        """[kind, serial, address, secret]"""
        if handle.attempt is not None and frame[1] == handle.serial:
            ready = fleet_pb2.ActorReady(key=_key(handle.attempt.key), address=frame[2], secret=frame[3])
            self._said(handle)
            self._add(fleet_pb2.ReportItem(actor_ready=ready), _ITEM_BYTES)

    def actor_output(self, handle: Handle, frame: Frame) -> None:
        """[kind, serial, caller_id, frames]"""
        if handle.attempt is not None and frame[1] == handle.serial:
            output = fleet_pb2.ActorOutput(key=_key(handle.attempt.key), caller_id=frame[2], frames=frame[3])
            self._add(fleet_pb2.ReportItem(actor_output=output), _ITEM_BYTES + len(frame[3]))

    def items(self, handle: Handle, frame: Frame) -> None:
        """[kind, serial, Items]"""
        if handle.attempt is not None and frame[1] == handle.serial:
            item = fleet_pb2.ReportItem()
            item.items.MergeFromString(frame[2])
            item.items.key.CopyFrom(_key(handle.attempt.key))
            self._said(handle)
            self._add(item, _ITEM_BYTES + len(frame[2]))

    def relay(self, handle: Handle, request: bytes) -> None:
        """A session request; the attempt that runs there is the parent of what it submits."""
        if handle.held is not None:
            handle.held.append(request)
            return
        relay = fleet_pb2.RelayFromExecutor(
            executor_id=handle.executor_id, request=client_pb2.SessionRequest.FromString(request)
        )
        if handle.attempt is not None:
            relay.key.CopyFrom(_key(handle.attempt.key))
        self._said(handle)
        self._add(fleet_pb2.ReportItem(relay=relay), _ITEM_BYTES + len(request))

    def hold(self, handle: Handle) -> None:
        """The attempt has ended and its report waits for the process to go.

        What the executor releases now, the results may need: requests must not overtake the report.
        """
        handle.held = []

    def let_go(self, handle: Handle) -> None:
        """The end was reported, or never will be: what waited for it follows."""
        held, handle.held = handle.held, None
        for request in held or ():
            self.relay(handle, request)

    def lines(self, handle: Handle, stream: str, lines: list[str]) -> None:
        """Log lines of the attempt that runs there. In a flood they are counted, and the next that fit tell how many."""
        if handle.attempt is None:
            return  # a thread or process that outlived its attempt: nobody's output
        if self.buffer.size_bytes > LOG_BYTES_MAX:
            handle.lines_dropped += len(lines)
            return
        self._said(handle)
        start = 0
        while start < len(lines):
            stop, size_bytes = start, 0
            while stop < len(lines) and (stop == start or size_bytes + _text_bytes(lines[stop]) <= _LINES_BYTES_MAX):
                size_bytes += _text_bytes(lines[stop])
                stop += 1
            self._add_lines(handle, stream, lines[start:stop], size_bytes)
            start = stop

    def tell_dropped(self, handle: Handle) -> None:
        """The attempt is over: lines that were dropped last are told without a line after them."""
        if handle.attempt is not None and handle.lines_dropped:
            self._add_lines(handle, "stdout", [], 0)

    def executor_gone(self, executor_id: str) -> None:
        self._add(fleet_pb2.ReportItem(executor_gone=fleet_pb2.ExecutorGone(executor_id=executor_id)), _ITEM_BYTES)

    def phase(self, name: str, time_s: float) -> None:
        """A boot phase was reached at this unix time."""
        self._add(fleet_pb2.ReportItem(phase=fleet_pb2.BootPhase(name=name, time_s=time_s)), _ITEM_BYTES)

    def mark_phase(self, name: str, time_s: float) -> None:
        """User code has come to a phase: the first word on each name counts, and only so many names."""
        if name not in self._marked and len(self._marked) < MARKED_MAX:
            self._marked.add(name)
            self.phase(name, time_s)

    def _add_lines(self, handle: Handle, stream: str, lines: list[str], size_bytes: int) -> None:
        assert handle.attempt is not None
        logs = fleet_pb2.LogLines(
            key=_key(handle.attempt.key),
            first_index=handle.next_index,
            stream=stream,
            lines=lines,
            lines_dropped=handle.lines_dropped,
        )
        handle.next_index += max(1, len(lines))
        handle.lines_dropped = 0
        self._add(fleet_pb2.ReportItem(logs=logs), _ITEM_BYTES + size_bytes)

    def _said(self, handle: Handle) -> None:
        handle.started = None  # what follows it must find the attempt running

    def _add(self, item: fleet_pb2.ReportItem, size_bytes: int, *, is_urgent: bool = True) -> None:
        if size_bytes > ITEM_BYTES_MAX:
            # What executors send is bounded there; whatever one makes of it must not end the machine's stream.
            log.error("a report of %d bytes (%s) cannot be sent; dropped", size_bytes, item.WhichOneof("item"))
            return
        self.buffer.add(item, size_bytes)
        if is_urgent:
            self._wake()
        else:
            self.wake_later()

    def _fill_failure(self, ended: fleet_pb2.AttemptEnded, key: Key, fault: ev.Fault) -> None:
        ended.key.task_id, ended.key.attempt = key
        failure = ended.failure
        failure.kind = fault.kind.value  # type: ignore[assignment]  # the stubs want their own enum
        failure.message = fault.message
        failure.task_id, failure.attempt = key
        failure.machine_id = self._machine_id
        failure.used_bytes = fault.used_bytes
        failure.traceback = fault.traceback


def _text_bytes(text: str) -> int:
    """At most what a line takes on the wire; encoding it to know better would cost more."""
    return 8 + (len(text) if text.isascii() else 4 * len(text))


def _key(key: Key) -> fleet_pb2.AttemptKey:
    return fleet_pb2.AttemptKey(task_id=key[0], attempt=key[1])
