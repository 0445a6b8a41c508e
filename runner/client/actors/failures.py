"""Failures of calls that an actor did not answer, from what the server says happened to the actor."""

from __future__ import annotations

from runner.client.actors.channel import Call, End
from runner.rpc.gen import types_pb2

_TRACEBACK_CHARS_MAX = 8_000


def failure_of(call: Call, actor_id: str, end: End, cause: bytes) -> bytes:
    """A serialised Failure for `call`; `cause` is the actor's own, serialised, or empty."""
    failure = types_pb2.Failure.FromString(cause)
    why = _told(failure)
    if end is End.CANCELLED:
        kind = types_pb2.FAILURE_KIND_CANCELLED
        message = f"{call.name} ({call.call_id}) was cancelled before it had a result"
    elif end is End.DIED:
        kind = types_pb2.FAILURE_KIND_ACTOR_DIED
        message = f"{call.name} has no result: the actor {actor_id} is dead. {why or 'Nothing is known of the cause.'}"
    else:
        kind = types_pb2.FAILURE_KIND_ACTOR_UNAVAILABLE
        message = (
            f"{call.name} has no result: the connection to the actor {actor_id} broke after the call was sent, so it may or"
            f" may not have run. {why}".rstrip()
            + " With max_task_retries such calls are sent again; a new call waits until the actor is back."
        )
    return types_pb2.Failure(
        kind=kind,
        message=message,
        task_id=call.call_id,
        task_name=call.name,
        attempt=failure.attempt,
        machine_id=failure.machine_id,
        history=failure.history,
    ).SerializeToString()


def _told(failure: types_pb2.Failure) -> str:
    """What happened, in words; with the traceback where the user's code raised."""
    text = failure.message
    if text and not text.endswith("."):
        text += "."
    if failure.traceback:
        text += f"\n\nTraceback on the machine:\n{failure.traceback[-_TRACEBACK_CHARS_MAX:].rstrip()}\n"
    return text
