"""Errors on the wire: each error class has one gRPC status, and each status an error class.

The detail text is `ClassName: message`, or `ClassName{"task_id": ...}: message`
when the error belongs to an attempt, so the caller gets the same typed error
that was raised at the other end.
"""

from __future__ import annotations

import json
import re
from typing import Any

import grpc

from runner import errors
from runner.errors import (
    AuthenticationError,
    CoordinatorUnreachableError,
    InternalError,
    ProtocolViolationError,
    RunnerError,
)
from runner.rpc.security import fingerprint

# Metadata is limited to 8 KiB, and a non-ASCII character costs up to 12 bytes in it.
DETAIL_BYTES_MAX = 4096

_Code = grpc.StatusCode

# Most general first; a class that is not listed goes by its nearest listed base.
CODES: dict[type[RunnerError], grpc.StatusCode] = {
    RunnerError: _Code.UNKNOWN,
    errors.TaskError: _Code.UNKNOWN,
    errors.TaskCancelledError: _Code.CANCELLED,
    errors.TaskKilledError: _Code.CANCELLED,
    errors.TaskTimeoutError: _Code.DEADLINE_EXCEEDED,
    errors.GetTimeoutError: _Code.DEADLINE_EXCEEDED,
    errors.StateTimeoutError: _Code.DEADLINE_EXCEEDED,
    errors.UsageError: _Code.INVALID_ARGUMENT,
    errors.BadOptionsError: _Code.INVALID_ARGUMENT,
    errors.BadTypeError: _Code.INVALID_ARGUMENT,
    errors.NotSerializableError: _Code.INVALID_ARGUMENT,
    errors.NotScalarError: _Code.INVALID_ARGUMENT,
    errors.DirectCallError: _Code.INVALID_ARGUMENT,
    errors.NotInitializedError: _Code.FAILED_PRECONDITION,
    errors.UnschedulableError: _Code.FAILED_PRECONDITION,
    errors.PendingCallsLimitExceededError: _Code.RESOURCE_EXHAUSTED,
    errors.AuthenticationError: _Code.UNAUTHENTICATED,
    errors.VersionMismatchError: _Code.FAILED_PRECONDITION,
    errors.AddressInUseError: _Code.ALREADY_EXISTS,
    errors.ClusterError: _Code.ABORTED,
    errors.WorkerCrashedError: _Code.ABORTED,
    errors.OutOfMemoryError: _Code.RESOURCE_EXHAUSTED,
    errors.MachineLostError: _Code.ABORTED,
    errors.MachineStateError: _Code.ABORTED,
    errors.ActorError: _Code.ABORTED,
    errors.ActorDiedError: _Code.ABORTED,
    errors.ActorUnavailableError: _Code.ABORTED,
    errors.ObjectLostError: _Code.DATA_LOSS,
    errors.OwnerDiedError: _Code.DATA_LOSS,
    errors.PlacementGroupRemovedError: _Code.ABORTED,
    errors.CoordinatorUnreachableError: _Code.UNAVAILABLE,
    errors.ProviderError: _Code.ABORTED,
    errors.TaskSetupError: _Code.FAILED_PRECONDITION,
    errors.StoreFullError: _Code.RESOURCE_EXHAUSTED,
    errors.InternalError: _Code.INTERNAL,
    errors.IllegalTransitionError: _Code.INTERNAL,
    errors.ProtocolViolationError: _Code.INTERNAL,
}

# For a status that gRPC itself, a proxy or a foreign server made: no class name in its detail.
FOREIGN: dict[grpc.StatusCode, type[RunnerError]] = {
    _Code.OK: InternalError,
    _Code.CANCELLED: CoordinatorUnreachableError,  # the server cancels open calls when it stops
    _Code.UNKNOWN: InternalError,  # the handler raised something that was not translated
    _Code.INVALID_ARGUMENT: ProtocolViolationError,
    _Code.DEADLINE_EXCEEDED: CoordinatorUnreachableError,
    _Code.NOT_FOUND: errors.UsageError,
    _Code.ALREADY_EXISTS: errors.UsageError,
    _Code.PERMISSION_DENIED: AuthenticationError,
    _Code.UNAUTHENTICATED: AuthenticationError,
    _Code.RESOURCE_EXHAUSTED: ProtocolViolationError,  # a message above the limit
    _Code.FAILED_PRECONDITION: errors.UsageError,
    _Code.ABORTED: errors.ClusterError,
    _Code.OUT_OF_RANGE: errors.UsageError,
    _Code.UNIMPLEMENTED: errors.VersionMismatchError,  # the server does not know this call
    _Code.INTERNAL: InternalError,
    _Code.UNAVAILABLE: CoordinatorUnreachableError,
    _Code.DATA_LOSS: errors.ObjectLostError,
}

_CLASSES: dict[str, type[RunnerError]] = {cls.__name__: cls for cls in CODES}
_NAME = re.compile(r"([A-Z]\w+?Error)(?=[:{])")


def abort_status(error: BaseException) -> tuple[grpc.StatusCode, str]:
    """The status and detail to end a call with: `await context.abort(*abort_status(error))`.

    An exception that is not ours is told as an InternalError without its text,
    which may hold anything.
    """
    if not isinstance(error, RunnerError):
        error = InternalError(f"unexpected {type(error).__name__}; the coordinator's log has the traceback")
    cls = next(base for base in type(error).__mro__ if base in CODES)
    return CODES[cls], _detail(cls.__name__, error)


def from_rpc_error(exc: grpc.RpcError, address: str, *, ca_pem: bytes = b"") -> RunnerError:
    """The typed error behind a failed call to `address`.

    With `ca_pem` a failed handshake's message says which authority was expected.
    """
    code = exc.code() if callable(getattr(exc, "code", None)) else None
    detail = (exc.details() if callable(getattr(exc, "details", None)) else "") or ""
    known = _parse_detail(detail)
    if known is not None:
        return known
    if code in (_Code.UNAVAILABLE, _Code.UNKNOWN) and _is_handshake_failure(detail):
        return AuthenticationError(_handshake_message(detail, address, ca_pem))
    if code is None or code is _Code.UNAVAILABLE:
        return CoordinatorUnreachableError(_unreachable_message(detail, address))
    return FOREIGN[code](_foreign_message(code, detail, address))


def _detail(name: str, error: RunnerError) -> str:
    fields = {
        key: value for key, value in vars(error).items() if value and isinstance(value, str | int | float | tuple)
    }
    # str() of an attributed error includes its history, which travels as a field.
    message = str(error.args[-1]) if error.args else ""
    head = name + (json.dumps(fields) if fields else "")
    if len(head) > DETAIL_BYTES_MAX // 2:  # a long history: the message matters more
        fields = {key: value for key, value in fields.items() if not isinstance(value, tuple)}
        head = name + json.dumps(fields)
    return _cut(f"{head}: {message}")


def _cut(text: str) -> str:
    room = DETAIL_BYTES_MAX
    for index, char in enumerate(text):
        room -= 1 if " " <= char <= "~" else 3 * len(char.encode("utf-8", "replace"))
        if room < 0:
            return text[:index] + "…"
    return text


def _parse_detail(detail: str) -> RunnerError | None:
    match = _NAME.match(detail)
    cls = _CLASSES.get(match[1]) if match else None
    if match is None or cls is None:
        return None
    fields: dict[str, Any] = {}
    end = match.end()
    if detail[end] == "{":
        try:
            fields, end = json.JSONDecoder().raw_decode(detail, end)
        except ValueError:  # cut on the way
            return cls(detail)
    return _rebuild(cls, detail[end:].removeprefix(": "), fields)


def _rebuild(cls: type[RunnerError], message: str, fields: dict[str, Any]) -> RunnerError:
    error = cls(message)
    for key, value in fields.items():
        # Only fields that the class declares: the other end may be newer.
        if isinstance(getattr(cls, key, None), str | int | float | tuple) and not key.startswith("_"):
            setattr(error, key, tuple(value) if isinstance(value, list) else value)
    return error


# A handshake that the network or a restart cut short says nothing about keys.
_CUT_SHORT = ("socket closed", "reset by peer", "broken pipe", "endpoint closing", "deadline", "timed out", "(eof)")


def _is_handshake_failure(detail: str) -> bool:
    lowered = detail.lower()
    if any(word in lowered for word in _CUT_SHORT):
        return False
    return any(word in lowered for word in ("handshake", "certificate", "tsi_", "ssl_error"))


def _handshake_message(detail: str, address: str, ca_pem: bytes) -> str:
    if not ca_pem:
        expected = "the cluster's certificate authority"
    else:
        expected = f"the certificate authority {fingerprint(ca_pem)}"
    return (
        f"the TLS handshake with {address} failed: expected a certificate by {expected} ({_tls_reason(detail)}); "
        f"check that address, RUNNER_CA and token belong to the same cluster"
    )


def _unreachable_message(detail: str, address: str) -> str:
    reason = re.sub(r"^.*last error: (?:[A-Z_]+: )?(?:ipv[46]:\S+: )?", "", detail)
    if reason == "Socket closed":
        # Under TLS 1.3 a client learns only this when its certificate is refused.
        reason = "the connection was closed at once: another service, a refused client certificate, or a stop"
    return (
        f"no coordinator answers at {address} ({_short(reason) or 'no detail'}); "
        f"check the address and that it runs there: `runner status`, or start one: `runner up`"
    )


def _tls_reason(detail: str) -> str:
    match = re.search(r"OPENSSL_internal:([A-Z0-9_]+)(?:: ([\w ,.'-]+))?", detail)
    if match is None:
        return _short(detail)
    return ": ".join(part.strip() for part in (match[1].lower().replace("_", " "), match[2]) if part)


def _foreign_message(code: grpc.StatusCode, detail: str, address: str) -> str:
    if code is _Code.DEADLINE_EXCEEDED:
        return f"the coordinator at {address} did not answer in time; look at it with `runner status`"
    if code is _Code.CANCELLED:
        return f"the coordinator at {address} ended the call; it may be stopping"
    if code is _Code.UNIMPLEMENTED:
        return f"the server at {address} does not know this call; install the same runner version on both sides"
    return f"the call to {address} failed with {code.name} ({_short(detail) or 'no detail'})"


def _short(detail: str) -> str:
    return detail if len(detail) <= 300 else detail[:300] + "…"
