"""The session transport of executors: frames that the agent relays to the coordinator."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from runner.client.waiting import Waiter
from runner.errors import ObjectLostError, StoreFullError
from runner.rpc.gen import client_pb2, types_pb2
from runner.rpc.version import local_peer
from runner.worker.executor.channel import ExecutorSocket
from runner.worker.executor.files import AgentFiles
from runner.worker.executor.interrupts import TaskInterrupt
from runner.worker.frames import Frame, Kind

if TYPE_CHECKING:
    from runner.client.session import Session
    from runner.objects.serialization import Buffer, Serialized

_log = logging.getLogger("runner")
# What is there sooner is not worth giving the CPUs back for.
BLOCK_AFTER_S = 0.002
# A value that takes longer to come is being made again, maybe, and that needs CPUs.
FETCH_BLOCK_AFTER_S = 1.0


class RelayedTransport:
    """Implements `runner.client.transport.Transport`."""

    def __init__(self, sock: ExecutorSocket, executor_id: str, files: AgentFiles | None) -> None:
        """`files`: how large values move where this machine shares no files with the coordinator."""
        self._sock = sock
        self._executor_id = executor_id
        self._files = files
        self._session: Session | None = None
        self._sending = threading.RLock()
        self._said_hello = False
        self._serial = 0
        self._main_thread = threading.get_ident()
        self._has_cpus = True
        self._has_warned = False
        self._is_waiting = False  # between `blocked` and `unblocked`, in the main thread
        self._is_blocked = False  # the agent was told
        self._resumed = Waiter((), 1, wake_on_failure=False)
        if files is not None:
            files.wait_long = self._wait_for_value
        sock.on(Kind.SESSION_REPLY, self._replied)
        sock.on(Kind.RECONNECTED, self._reconnected)
        sock.on(Kind.RESUME, self._resume)

    def attach(self, session: Session) -> None:
        """The session that this transport carries."""
        self._session = session

    def begin(self, serial: int, *, has_cpus: bool = True) -> None:
        """An attempt runs from now on; it gives its CPUs back while it waits, if it has any."""
        self._serial = serial
        self._has_cpus = has_cpus
        if self._files is not None:
            self._files.serial = serial
        self._is_waiting = self._is_blocked = False

    # ---- Transport ----
    @property
    def gate(self) -> AbstractContextManager[None]:
        return self._sock.gate

    def wake(self) -> None:
        session = self._session
        if session is None or not (session.dropped or session.machine.has_operations):
            return
        with self._sending:  # frames leave in the order of their numbers
            if not self._said_hello:
                self._said_hello = True
                hello = client_pb2.Hello(peer=local_peer(), client_id=self._executor_id)
                self._sock.send(Kind.SESSION, client_pb2.SessionRequest(hello=hello).SerializeToString())
                session.connected(0)
            while (frame := session.take_frame()) is not None:
                self._sock.send(Kind.SESSION, frame)

    def wait(self, waiter: Waiter, timeout_s: float | None) -> bool:
        if not self._is_waiting or self._is_blocked or threading.get_ident() != self._main_thread:
            return self._sock.wait(waiter, timeout_s)
        first_s = BLOCK_AFTER_S if timeout_s is None else min(BLOCK_AFTER_S, timeout_s)
        if self._sock.wait(waiter, first_s):
            return True
        if timeout_s is not None:
            timeout_s -= first_s
            if timeout_s <= 0:
                return False
        self._resumed = Waiter((), 1, wake_on_failure=False)
        self._is_blocked = True
        self._sock.send(Kind.BLOCKED, self._serial)
        return self._sock.wait(waiter, timeout_s)

    def _wait_for_value(self, waiter: Waiter) -> None:
        if self._sock.wait(waiter, FETCH_BLOCK_AFTER_S):
            return
        is_ours = not self._is_waiting
        if is_ours:
            self.blocked()
        try:
            self.wait(waiter, None)
        finally:
            if is_ours:
                self.unblocked()

    def blocked(self) -> None:
        if not self._has_warned and asyncio._get_running_loop() is not None:
            self._has_warned = True
            _log.warning(
                "runner.get() or wait() inside a coroutine blocks the actor's event loop: no other call goes on meanwhile."
                " Use `await ref`, or asyncio.gather for several."
            )
        # Other threads of the task may wait while its main thread computes.
        if threading.get_ident() == self._main_thread and self._serial and self._has_cpus:
            self._is_waiting = True

    def unblocked(self) -> None:
        if threading.get_ident() != self._main_thread:
            return
        self._is_waiting = False
        if not self._is_blocked:
            return
        self._is_blocked = False
        self._sock.send(Kind.UNBLOCKED, self._serial)
        if not isinstance(sys.exception(), TaskInterrupt):  # one that is to end needs no CPUs for it
            self._sock.wait(self._resumed, None)

    def want_callbacks(self) -> None:
        self._sock.read_always()

    def fetch(self, object_id: str, segment: types_pb2.Segment) -> Buffer:
        if self._files is None:
            raise ObjectLostError(
                f"object {object_id} lies in the memory of host {segment.host_id}, and this machine cannot read it"
            )
        return self._files.fetch(object_id, segment)

    def upload(self, object_id: str, serialized: Serialized) -> types_pb2.Segment:
        if self._files is None:
            raise StoreFullError(
                f"object {object_id} ({serialized.total_bytes} bytes): this machine has no object store"
            )
        return self._files.upload(object_id, serialized)

    def close(self, timeout_s: float) -> None:
        self.wake()

    # ---- from the agent ----
    def _replied(self, frame: Frame) -> None:
        if self._session is not None:
            self._session.deliver(frame[1])

    def _reconnected(self, _frame: Frame) -> None:
        if self._session is not None and self._said_hello:
            self._session.replies_lost()

    def _resume(self, frame: Frame) -> None:
        if frame[1] == self._serial:
            self._resumed.finish()
