"""What a session needs from the wire. Two shipped: gRPC in clients, frames relayed by the agent in executors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from runner.client.waiting import Waiter
from runner.objects.serialization import Buffer, Serialized
from runner.rpc.gen import types_pb2


class Transport(Protocol):
    """Carries the frames of one session, in order. All methods may be called from any thread.

    The transport takes what is to be sent from `Session.take_frame()` and hands what arrives to `Session.deliver()`.
    """

    @property
    def gate(self) -> AbstractContextManager[None]:
        """Inside it the main thread is not interrupted by a cancelled task."""

    def wake(self) -> None:
        """Operations are waiting in the session: send them soon. Cheap; never blocks on the other end."""

    def wait(self, waiter: Waiter, timeout_s: float | None) -> bool:
        """Block until `waiter` is done (True) or the time is over (False). Interruptible by signals."""

    def blocked(self) -> None:
        """The caller is about to wait for objects: an executor gives its CPUs back."""

    def unblocked(self) -> None:
        """The wait is over: an executor takes its CPUs again, waiting until it has them."""

    def want_callbacks(self) -> None:
        """Somebody awaits an object without waiting in `wait`: replies must be read all the same."""

    def fetch(self, object_id: str, segment: types_pb2.Segment) -> Buffer:
        """The bytes of a value that cannot be mapped here.

        Raises:
            ObjectLostError: nobody has them any more.
        """

    def upload(self, object_id: str, serialized: Serialized) -> types_pb2.Segment:
        """Bring a large value to the cluster, where this process cannot write to its store."""

    def close(self, timeout_s: float) -> None:
        """Send what is waiting, wait for its acknowledgement at most `timeout_s`, and end the connection."""
