"""The session of a process: submits calls, puts values, waits for results. Thread-safe.

It joins the pure machine, the object store and a transport. Clients have it over gRPC, executors over their agent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from runner.client import context, fork_guard
from runner.client.calls import PreparedCall
from runner.client.checks import check_get, check_own, check_wait, not_ready
from runner.client.futures import FutureResolver, until_ready
from runner.client.generators import ObjectRefGenerator, waited_id
from runner.client.outgoing import Outgoing
from runner.client.session_info import SessionInfo
from runner.client.session_machine import SessionMachine
from runner.client.task_errors import exception_from_failure
from runner.client.transport import Transport
from runner.client.waiting import Waiter
from runner.client.wire import bounded, encode_submit
from runner.errors import BadTypeError, RunnerError, UsageError
from runner.ids import ObjectId, TaskId, is_call, return_id, task_of
from runner.objects.refs import ObjectRef
from runner.objects.serialization import Buffer
from runner.objects.values import from_wire
from runner.rpc.gen import client_pb2, types_pb2

if TYPE_CHECKING:
    from runner.client.actors.client import ActorClient

_LINKS_S = 1.0  # for the thread of the actors' links to end
_log = logging.getLogger("runner")


class Session:
    """One process's channel to its cluster."""

    def __init__(self, info: SessionInfo, transport: Transport) -> None:
        self.info = info
        self.transport = transport
        self.machine = SessionMachine(subscribed=not info.is_executor)
        self.dropped: deque[ObjectId] = self.machine.dropped
        self.runs: dict[str, str] = {}  # named tasks submitted here: id -> name
        self.env_packages: list[str] = []  # ids: of the runtime_env of the task that runs here
        # Re-entrant: a garbage collection inside may run a user's __del__ that calls us.
        self._lock = threading.RLock()
        self.outgoing = Outgoing(self, self._lock)
        self._failure: RunnerError | None = None
        self._futures = FutureResolver(self)
        self._actors: ActorClient | None = None
        fork_guard.guard(self)

    @property
    def actors(self) -> ActorClient:
        """The actors of this session."""
        if self._actors is None:
            from runner.client.actors.client import ActorClient

            with self._lock:
                if self._actors is None:
                    self._actors = ActorClient(self)
        return self._actors

    # ---- submitting ----
    def submit(
        self, call: PreparedCall, args: tuple[Any, ...], kwargs: dict[str, Any], name: str = ""
    ) -> list[ObjectRef[Any]]:
        """Submit one call; returns a ref per return value. Blocks only while too much is unacknowledged.

        `name` replaces the run's name.
        """
        self._check_usable()
        self.outgoing.register(call.function)
        task_id = TaskId(self.outgoing.new_id("t"))
        context.submitted(task_id, self.cancel_child)
        spec, keep = self.outgoing.spec(call, task_id, args, kwargs, name)
        object_ids = [return_id(task_id, index) for index in range(call.num_returns)]
        operation = bounded(encode_submit(spec), f"A call of {call.name}", keep[1])
        with self._lock:
            self.machine.created(object_ids)
            if call.is_streaming:
                self.machine.streams.open(task_id, has_backpressure=call.has_backpressure)
            self.machine.operate(operation)
            if call.is_run:
                self.runs[task_id] = name or call.name
            is_full = self.machine.is_full
        refs: list[ObjectRef[Any]] = [ObjectRef(object_id, self) for object_id in object_ids]
        del keep  # refs inside the arguments had to live until the operation was queued
        self.transport.wake()
        if is_full:
            self.wait_for_room()
        return refs

    def put(self, value: Any) -> ObjectRef[Any]:
        """Store a value; returns its ref."""
        self._check_usable()
        if isinstance(value, ObjectRef):
            raise BadTypeError(f"{value!r} is a ref already; put() takes a value, or a list with the ref in it.")
        return self.outgoing.put(self.outgoing.serialize(value, "value"))

    def cancel(self, ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool, recursive: bool) -> None:
        """Ask for the end of the task that makes `ref`."""
        self._check_usable()
        if isinstance(ref, ObjectRefGenerator):
            ref = ref.completed()
        if not isinstance(ref, ObjectRef):
            raise BadTypeError(f"cancel() takes an ObjectRef, not a {type(ref).__name__}.")
        check_own(self, [ref])
        task_id = task_of(ref.id)
        if task_id is None:
            raise UsageError(f"{ref!r} was made by put(): there is no task to cancel.")
        if is_call(task_id):
            self.actors.cancel(ref, task_id, force=force, recursive=recursive)
            return
        cancel = client_pb2.Cancel(task_id=task_id, force=force, recursive=recursive)
        self._operate(client_pb2.Operation(cancel=cancel))

    def cancel_child(self, task_id: str) -> None:
        """Ask for the end of a task that was submitted here, and of what it has submitted."""
        self._operate(client_pb2.Operation(cancel=client_pb2.Cancel(task_id=task_id, recursive=True)))

    # ---- reading ----
    def get(self, refs: ObjectRef[Any] | Sequence[ObjectRef[Any]], timeout_s: float | None = None) -> Any:
        """The value, or the values in order.

        Raises what the task raised (as soon as one of the values is an error), or GetTimeoutError.
        """
        self._check_usable()
        if isinstance(refs, ObjectRef):
            return self._get([refs], timeout_s)[0]
        if isinstance(refs, ObjectRefGenerator):
            return refs  # as in Ray: what it yields are refs
        check_get(refs)
        return self._get(refs, timeout_s)

    def wait(
        self, refs: Sequence[ObjectRef[Any]], num_returns: int, timeout_s: float | None
    ) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
        """Split `refs` into at most `num_returns` ready ones and the others, each in the order given."""
        self._check_usable()
        check_wait(refs, num_returns, timeout_s)
        check_own(self, refs)
        if not refs:
            return [], []
        with self._lock:
            ids = [waited_id(ref) for ref in refs]
            missing = self.machine.want(ids)
            needed = num_returns - (len(ids) - len(missing))
            waiter = self._new_waiter(missing, needed, wake_on_failure=False) if needed > 0 else None
        if waiter is not None:
            self._block(waiter, timeout_s)
            self._check_usable()
        ready: list[ObjectRef[Any]] = []
        others: list[ObjectRef[Any]] = []
        outcomes = self.machine.outcomes
        for ref in refs:
            (ready if len(ready) < num_returns and waited_id(ref) in outcomes else others).append(ref)
        return ready, others

    # ---- RefOwner ----
    def share(self, object_id: ObjectId) -> None:
        if object_id in self.machine.local:
            with self._lock:
                self.machine.local.share(object_id)

    def borrow(self, object_id: ObjectId) -> None:
        with self._lock:
            self.machine.borrow(object_id)

    @property
    def cluster_id(self) -> str:
        return self.info.cluster_id

    def keep(self, object_id: ObjectId) -> None:
        with self._lock:
            self.machine.keep(object_id)

    def await_ref(self, object_id: ObjectId) -> Generator[Any, None, Any]:
        self._check_usable()
        yield from until_ready(self, object_id)
        self._check_usable()
        return self._decode(object_id)

    def future_of(self, object_id: ObjectId) -> Future[Any]:
        self._check_usable()
        with self._lock:
            self.machine.borrow(object_id)
        return self._futures.future(ObjectRef(object_id, self))

    def when_ready(self, object_id: str, callback: Any) -> bool:
        """Call back once, in any thread, when the object is final or the session over; False if it already is."""
        with self._lock:
            is_pending = self._failure is None and self.machine.when_ready(object_id, callback)
        if is_pending:
            self.transport.want_callbacks()
            self.transport.wake()
            if self._actors is not None:
                self._actors.links.serve()
        return is_pending

    def send_request(self, method: str, request: bytes, waiter: Waiter) -> str:
        """Send a plain call as an operation; `waiter` is done when it is answered. See `runner.client.requests.ask`."""
        self._check_usable()
        with self._lock:
            request_id, operation = self.machine.requests.add(method, request, waiter)
            self.machine.operate(operation)
        self.transport.wake()
        return request_id

    def take_answer(self, request_id: str) -> client_pb2.Answer | None:
        """The answer, if there is one; the request is over."""
        with self._lock:
            return self.machine.requests.take(request_id)

    # ---- for the transport ----
    def take_frame(self) -> bytes | None:
        """The next serialised SessionRequest to send; None when there is nothing to send."""
        with self._lock:
            return self.machine.take_frame()

    def connected(self, acked_seq: int) -> list[bytes]:
        """A stream is open: requests that must be sent again before any new one."""
        with self._lock:
            return self.machine.connected(acked_seq)

    def disconnected(self) -> None:
        """The stream ended; operations wait for the next one."""
        with self._lock:
            self.machine.disconnected()

    def deliver(self, reply: bytes) -> None:
        """Take in one serialised SessionReply."""
        frame = client_pb2.SessionReply.FromString(reply).frame
        with self._lock:
            self.machine.received(frame)
        for warning in frame.warnings:
            _log.warning("%s", warning.message)  # type: ignore[attr-defined]  # taken for the builtin Warning

    def replies_lost(self) -> None:
        """Replies may have been lost on the way: ask for everything awaited again."""
        with self._lock:
            self.machine.ask_again()
        self.transport.wake()

    def fail(self, error: RunnerError) -> None:
        """The session is over: everything that waits or is called from now on raises `error`."""
        with self._lock:
            self._failure = self._failure or error
            self.machine.finish_waiting()

    def forked(self) -> None:
        """In a forked child: nothing here works, and no lock may be taken."""
        self._failure = UsageError(
            "This process was forked from one with a runner session, which does not survive a fork."
            " Call runner in the parent, or start the child with the 'spawn' method and connect there."
        )

    # ---- the rest ----
    def held(self) -> list[str]:
        """Objects of which this process has refs."""
        with self._lock:
            return self.machine.held()

    @property
    def failure(self) -> RunnerError | None:
        """Why the session is over, if it is."""
        return self._failure

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is acknowledged; False when time is over first."""
        with self._lock:
            self.machine.drain_dropped()
            if self.machine.is_flushed:
                return True
            waiter = Waiter((), 1, wake_on_failure=False)
            self.machine.add_ack_waiter(waiter, lambda: self.machine.is_flushed)
        return self._block(waiter, timeout_s, is_for_objects=False) and self._failure is None

    def close(self, timeout_s: float) -> None:
        """Send and confirm what waits, at most `timeout_s`; then end. Idempotent."""
        if self._failure is not None:
            self._futures.close()
            self._close_actors()
            self.transport.close(0.0)
            return
        deadline_s = time.monotonic() + timeout_s
        self.flush(timeout_s)
        self.fail(UsageError("This session was shut down. Call runner.init() for a new one."))
        self._futures.close()
        self._close_actors()
        self.transport.close(max(0.0, deadline_s - time.monotonic()))
        self.machine.outcomes.clear()

    def _close_actors(self) -> None:
        if self._actors is not None:
            self._actors.close(_LINKS_S)

    def _get(self, refs: Sequence[ObjectRef[Any]], timeout_s: float | None) -> list[Any]:
        check_own(self, refs)
        ids = [ref.id for ref in refs]
        with self._lock:
            missing = self.machine.want(ids)
            outcomes = self.machine.outcomes
            # An error that is known already is raised now, whatever else is still running.
            has_failed = missing and any(outcomes[each].is_failure for each in ids if each in outcomes)
            waiter = None
            if missing and not has_failed:
                needed = len(set(missing))
                waiter = self._new_waiter(missing, needed, wake_on_failure=True)
        if waiter is not None and not self._block(waiter, timeout_s):
            raise not_ready(ids, outcomes, timeout_s)
        if waiter is not None or has_failed:
            self._check_usable()
            for each in ids:
                outcome = outcomes.get(each)
                if outcome is not None and outcome.is_failure:
                    self._decode(each)
        return [self._decode(each) for each in ids]

    def _decode(self, object_id: str) -> Any:
        outcome = self.machine.outcomes[object_id]
        if outcome.is_failure:
            raise exception_from_failure(types_pb2.Failure.FromString(outcome.payload))
        value = types_pb2.Value.FromString(outcome.payload)

        def fetch(segment: types_pb2.Segment) -> Buffer:
            return self.transport.fetch(object_id, segment)

        return from_wire(value, fetch, self.info.host_id)

    def _new_waiter(self, ids: Sequence[str], needed: int, *, wake_on_failure: bool) -> Waiter:
        waiter = Waiter(ids, needed, wake_on_failure=wake_on_failure)
        self.machine.add_waiter(waiter)
        return waiter

    def _block(self, waiter: Waiter, timeout_s: float | None, *, is_for_objects: bool = True) -> bool:
        """Wait outside the lock; the waiter is gone afterwards, also when a signal's exception passes."""
        try:
            self.transport.wake()
            if self._failure is not None:
                return True
            if not is_for_objects:
                return self.transport.wait(waiter, timeout_s)
            self.transport.blocked()
            try:
                wait = self.transport.wait if self._actors is None else self._actors.wait
                return wait(waiter, timeout_s)
            finally:
                self.transport.unblocked()
        finally:
            with self._lock:
                self.machine.remove_waiter(waiter)

    def wait_for_room(self) -> None:
        """Block while too much is unacknowledged."""
        with self._lock:
            if not self.machine.is_full:
                return
            waiter = Waiter((), 1, wake_on_failure=False)
            self.machine.add_ack_waiter(waiter, lambda: not self.machine.is_full)
        self._block(waiter, None, is_for_objects=False)
        self._check_usable()

    def _operate(self, operation: client_pb2.Operation) -> None:
        encoded = operation.SerializeToString()
        with self._lock:
            self.machine.operate(encoded)
        self.transport.wake()

    def _check_usable(self) -> None:
        if self._failure is not None:
            failure = self._failure
            raise type(failure)(*failure.args)
