"""Failures between processes: an exception becomes a Failure where it happened and the right exception where it is read."""

from __future__ import annotations

import builtins
import contextlib
import functools
import traceback
import types
from typing import Any

from runner import errors
from runner.errors import RunnerError, TaskError
from runner.objects.serialization import deserialize, serialize
from runner.rpc.gen import types_pb2
from runner.rpc.limits import cut_text

# A failure travels to everybody who waits for its task, beside others: it tells enough, not everything.
MESSAGE_BYTES_MAX = 16 * 1024
TRACEBACK_BYTES_MAX = 64 * 1024
EXCEPTION_BYTES_MAX = 256 * 1024
_TYPE_BYTES_MAX = 1024

_KINDS: dict[int, type[errors._Attributed]] = {
    types_pb2.FAILURE_KIND_WORKER_CRASHED: errors.WorkerCrashedError,
    types_pb2.FAILURE_KIND_OUT_OF_MEMORY: errors.OutOfMemoryError,
    types_pb2.FAILURE_KIND_MACHINE_LOST: errors.MachineLostError,
    types_pb2.FAILURE_KIND_CANCELLED: errors.TaskCancelledError,
    types_pb2.FAILURE_KIND_KILLED: errors.TaskKilledError,
    types_pb2.FAILURE_KIND_TIMEOUT: errors.TaskTimeoutError,
    types_pb2.FAILURE_KIND_UNSCHEDULABLE: errors.UnschedulableError,
    types_pb2.FAILURE_KIND_OBJECT_LOST: errors.ObjectLostError,
    types_pb2.FAILURE_KIND_SETUP: errors.TaskSetupError,
    types_pb2.FAILURE_KIND_STORE_FULL: errors.StoreFullError,
    types_pb2.FAILURE_KIND_ACTOR_DIED: errors.ActorDiedError,
    types_pb2.FAILURE_KIND_ACTOR_UNAVAILABLE: errors.ActorUnavailableError,
    types_pb2.FAILURE_KIND_OWNER_DIED: errors.OwnerDiedError,
    types_pb2.FAILURE_KIND_GROUP_REMOVED: errors.PlacementGroupRemovedError,
}


def failure_from_exception(error: BaseException) -> types_pb2.Failure:
    """Describe what user code raised. Never fails: an exception that cannot be pickled is told as text.

    Long texts lose their middle; an exception that is too large when pickled is told as text as well. What another task
    raised and this one did not handle is told as that task's exception; the traceback has both stories.
    """
    traceback_text = cut_text("".join(traceback.format_exception(error)), TRACEBACK_BYTES_MAX)
    if isinstance(error, TaskError) and error.cause is not None:
        error = error.cause
    kind = type(error)
    message = cut_text(_one_line(error), MESSAGE_BYTES_MAX)
    pickled = _pickled(error)
    if len(pickled) > EXCEPTION_BYTES_MAX:
        message += (
            f" [pickled it has {len(pickled)} bytes, the limit is {EXCEPTION_BYTES_MAX}:"
            " keep large values out of exceptions]"
        )
        pickled = b""
    return types_pb2.Failure(
        kind=types_pb2.FAILURE_KIND_USER,
        message=message,
        exception=pickled,
        exception_type=cut_text(f"{kind.__module__}.{kind.__qualname__}", _TYPE_BYTES_MAX),
        traceback=traceback_text,
    )


def _pickled(error: BaseException) -> bytes:
    """Empty when it cannot be pickled."""
    for form in (error, _Uninitialised(error)):  # many exceptions pickle and then cannot be loaded
        try:
            data = serialize(form).to_bytes()
        except Exception:
            break
        with contextlib.suppress(Exception):
            if len(data) <= EXCEPTION_BYTES_MAX:
                deserialize(data)
            return data
    return b""


class _Uninitialised:
    """Pickled in place of an exception whose initialiser takes other arguments than its `args`: loads as the exception."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _without_init, (type(self._error), self._error.args, vars(self._error))


def _without_init(kind: type[BaseException], args: tuple[Any, ...], fields: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


def exception_from_failure(failure: types_pb2.Failure) -> RunnerError:
    """The exception that `get` raises for this failure; a new one each time."""
    fields: dict[str, Any] = {
        "task_id": failure.task_id,
        "task_name": failure.task_name,
        "attempt": failure.attempt,
        "machine_id": failure.machine_id,
        "history": tuple(failure.history),
    }
    if failure.kind in _KINDS:
        error = _KINDS[failure.kind](failure.message, **fields)
        if isinstance(error, errors.TaskSetupError):
            error.remote_traceback = failure.traceback
        return error
    cause = _load_cause(failure.exception)
    return _task_error(_describe(failure, cause), cause, failure.traceback, fields)


def _load_cause(pickled: bytes) -> BaseException | None:
    if not pickled:
        return None
    try:
        cause = deserialize(pickled)
    except Exception:  # its class may exist only on the machine
        return None
    return cause if isinstance(cause, BaseException) else None


def _describe(failure: types_pb2.Failure, cause: BaseException | None) -> str:
    name = failure.task_name or failure.task_id or "The task"
    where = f" on {failure.machine_id}" if failure.machine_id else ""
    attempt = f" (attempt {failure.attempt}{where})" if failure.attempt else ""
    kind = failure.exception_type.removeprefix("builtins.") or "an exception"
    text = f"{name} raised {kind}: {failure.message}{attempt}" if failure.message else f"{name} raised {kind}{attempt}"
    if cause is None:
        text += "\nThe exception itself could not be brought here; catch runner.errors.TaskError to handle it."
    return text


def _task_error(message: str, cause: BaseException | None, remote: str, fields: dict[str, Any]) -> TaskError:
    kind: Any = type(cause)
    cls = _RemoteTaskError if cause is None else _dual_type(kind)
    error = _instance(cls, cause)
    if cause is not None:
        _adopt(error, cause)
    else:
        error.args = (message,)
    error.__dict__.update(fields, cause=cause, remote_traceback=remote, _message=message)
    return error


def _instance(cls: type[TaskError], cause: BaseException | None) -> TaskError:
    for args in ((), cause.args if cause is not None else ()):
        try:
            return cls.__new__(cls, *args)
        except Exception:  # a class that insists on its arguments, such as ExceptionGroup
            continue
    try:
        return Exception.__new__(cls)  # MemoryError's own __new__ refuses classes that have another base before it
    except TypeError:
        return _RemoteTaskError.__new__(_RemoteTaskError)


def _adopt(error: TaskError, cause: BaseException) -> None:
    """Make the error look like its cause to those who read attributes: args, errno, start, value, own fields."""
    error.args = cause.args
    error.__dict__.update(vars(cause))
    bases = [base for base in type(cause).__mro__ if base.__module__ == builtins.__name__]
    try:
        bases[0].__init__(error, *cause.args)  # type: ignore[misc]  # a builtin's, on purpose
    except Exception:
        error.args = cause.args
    for name, member in (item for base in bases for item in vars(base).items()):
        # What args do not hold, such as an OSError's file name or an ImportError's module.
        if isinstance(member, types.MemberDescriptorType | types.GetSetDescriptorType) and not name.startswith("_"):
            try:
                setattr(error, name, getattr(cause, name))
            except (AttributeError, TypeError):
                continue


def _str(self: TaskError) -> str:
    """The message, the history and the remote traceback."""
    lines = [errors.with_history(vars(self).get("_message") or type(self).__name__, self.history)]
    if self.remote_traceback:
        lines += ["", "Traceback on the machine:", self.remote_traceback.rstrip()]
    return "\n".join(lines)


def _reduce(self: TaskError) -> tuple[Any, ...]:
    state = vars(self)
    fields = {name: state[name] for name in ("task_id", "task_name", "attempt", "machine_id", "history")}
    cause = _pickled(self.cause) if self.cause is not None else b""
    return _load_error, (state["_message"], cause, self.remote_traceback, fields)


def _load_error(message: str, cause: bytes, remote: str, fields: dict[str, Any]) -> TaskError:
    return _task_error(message, _load_cause(cause), remote, fields)


class _RemoteTaskError(TaskError):
    """A TaskError with the remote story in its text. Tracebacks show it under the name by which it is caught."""

    __module__ = TaskError.__module__
    __str__ = _str
    __reduce__ = _reduce


_RemoteTaskError.__name__ = _RemoteTaskError.__qualname__ = TaskError.__name__


@functools.lru_cache(maxsize=256)
def _dual_type(cause: Any) -> type[TaskError]:
    """A TaskError that is also a `cause`, where Python allows such a class."""
    if not issubclass(cause, Exception):
        return _RemoteTaskError  # raising a SystemExit or KeyboardInterrupt here would end the client
    members = {"__module__": TaskError.__module__, "__str__": _str, "__reduce__": _reduce, "__init__": _no_init}
    if issubclass(cause, _RemoteTaskError):
        return _RemoteTaskError
    bases = (cause,) if issubclass(cause, TaskError) else (TaskError, cause)
    try:
        return type(f"TaskError({cause.__name__})", bases, members)
    except TypeError:
        return _RemoteTaskError


def _no_init(self: TaskError, *args: Any, **kwargs: Any) -> None:
    """Instances are filled by `_task_error`; no initialiser of the user's class runs here."""


def _one_line(error: BaseException) -> str:
    try:
        return str(error) if not isinstance(error, _RemoteTaskError) else str(vars(error)["_message"])
    except Exception as failed:
        return f"<its text could not be made: {type(failed).__name__}>"
