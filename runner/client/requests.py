"""Plain calls of the coordinator's service: over a client's own connection, or from a task as operations of its session."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from runner import errors
from runner.client.waiting import Waiter
from runner.errors import ClusterError, CoordinatorUnreachableError, RunnerError
from runner.rpc.gen import client_pb2, types_pb2

if TYPE_CHECKING:
    from runner.client.session import Session

Reply = TypeVar("Reply")

CALL_TIMEOUT_S = 30.0


class _Asked(NamedTuple):
    operation: bytes
    waiter: Waiter


class Requests:
    """Calls that wait for their answer, of a session that speaks through others. Under the session's lock."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}
        self._answers: dict[str, client_pb2.Answer] = {}
        self._numbers = itertools.count(1)

    def add(self, method: str, request: bytes, waiter: Waiter) -> tuple[str, bytes]:
        """A new call: its id, and the operation to send."""
        request_id = f"q-{next(self._numbers)}"
        call = client_pb2.Call(request_id=request_id, method=method, request=request)
        operation = client_pb2.Operation(call=call).SerializeToString()
        self._asked[request_id] = _Asked(operation, waiter)
        return request_id, operation

    def take(self, request_id: str) -> client_pb2.Answer | None:
        """The answer, if it has come; nobody waits for it any more."""
        self._asked.pop(request_id, None)
        return self._answers.pop(request_id, None)

    def arrived(self, answer: client_pb2.Answer) -> None:
        """Wake who waits for it. An answer that comes twice, or too late, is dropped."""
        asked = self._asked.get(answer.request_id)
        if asked is not None and answer.request_id not in self._answers:
            self._answers[answer.request_id] = answer
            asked.waiter.finish()

    def unanswered(self) -> list[bytes]:
        """Operations to send again: answers may have been lost."""
        return [asked.operation for request_id, asked in self._asked.items() if request_id not in self._answers]

    def finish(self) -> None:
        """The session is over: wake everybody."""
        for asked in self._asked.values():
            asked.waiter.finish()


def ask(session: Session, method: str, message: Any, reply: type[Reply], timeout_s: float = CALL_TIMEOUT_S) -> Reply:
    """One plain call, from any thread but the connection's own.

    Raises:
        RunnerError: the coordinator refused it, or did not answer in time.
    """
    if not session.info.is_executor:
        from runner.client.streams import client_transport

        return client_transport(session).request(method, message, reply, timeout_s)
    waiter = Waiter((), 1, wake_on_failure=False)
    request_id = session.send_request(method, message.SerializeToString(), waiter)
    try:
        session.transport.wait(waiter, timeout_s)
    finally:
        answer = session.take_answer(request_id)
    if session.failure is not None:
        raise session.failure
    if answer is None:
        raise CoordinatorUnreachableError(f"the coordinator did not answer {method} within {timeout_s:g} s")
    if answer.failure:
        raise _refusal(types_pb2.Failure.FromString(answer.failure))
    parsed: Reply = reply.FromString(answer.reply)  # type: ignore[attr-defined]
    return parsed


def _refusal(failure: types_pb2.Failure) -> RunnerError:
    kind = getattr(errors, failure.exception_type, None)
    is_ours = isinstance(kind, type) and issubclass(kind, RunnerError)
    return kind(failure.message) if is_ours and kind is not None else ClusterError(failure.message)
