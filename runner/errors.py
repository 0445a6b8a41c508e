"""Every error a user can see. The branch says who must act.

RunnerError
├─ TaskError                   the user's function failed; also an instance of the user's own exception type
├─ TaskCancelledError          somebody cancelled it
│  └─ TaskKilledError          with force: its process was ended (also a WorkerCrashedError)
├─ TaskTimeoutError            it ran longer than its timeout_s
├─ GetTimeoutError             get() gave up waiting; the task goes on (also a TimeoutError)
├─ StateTimeoutError           a machine was not in a state in time; what was asked for goes on (also a TimeoutError)
├─ UsageError                  the caller must change the call
│  ├─ BadOptionsError          an unknown option or a bad value (also a ValueError)
│  │  └─ BadTypeError          a value of the wrong type (also a TypeError)
│  ├─ NotSerializableError     cannot be pickled; says where the offending object is (also a TypeError)
│  ├─ NotScalarError           a reported metric is not a number, string, bool or None (also a TypeError)
│  ├─ DirectCallError          a remote function was called without .remote() (also a TypeError)
│  ├─ NotInitializedError      runner.init() has not been called
│  ├─ UnschedulableError       no machine of this cluster can ever hold the task
│  ├─ PendingCallsLimitExceededError  an actor has max_pending_calls unanswered calls of this process
│  ├─ AuthenticationError      wrong token, wrong certificate authority, revoked certificate
│  ├─ VersionMismatchError     other protocol or other Python minor version
│  └─ AddressInUseError        the port is taken (also an OSError)
├─ ClusterError                the world failed
│  ├─ WorkerCrashedError       the executor process died
│  │  └─ OutOfMemoryError      it was killed for memory (also a MemoryError)
│  ├─ MachineLostError         the machine is gone
│  ├─ MachineStateError        a machine will not come to a state that somebody waits for
│  ├─ ActorError               a call of an actor has no answer
│  │  ├─ ActorDiedError        the actor is dead; says of what
│  │  └─ ActorUnavailableError it cannot be reached now, or is being restarted; the call may or may not have run
│  ├─ ObjectLostError          a value is gone and cannot be made again
│  │  └─ OwnerDiedError        the process that was to make it is gone
│  ├─ PlacementGroupRemovedError  the placement group of the task or actor is gone
│  ├─ CoordinatorUnreachableError  nobody answers at that address, or no longer
│  ├─ ProviderError            a machine could not be created
│  ├─ TaskSetupError           the function or an argument could not be loaded on the machine
│  └─ StoreFullError           no space left for a value, checkpoint or journal (also an OSError)
└─ InternalError               a bug of runner; carries the story
   ├─ IllegalTransitionError
   └─ ProtocolViolationError

Message order: what failed, which one, what was seen, what to do next.
"""

from __future__ import annotations

from typing import Any


class RunnerError(Exception):
    """Base of all errors of this library."""

    # Exceptions with keyword-only fields do not survive pickle by default.
    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(cls: type[RunnerError], args: tuple[Any, ...], state: dict[str, Any]) -> RunnerError:
    try:
        error = cls.__new__(cls)
    except TypeError:  # MemoryError's own __new__ refuses classes that have another base before it
        error = Exception.__new__(cls)
    error.args = args
    error.__dict__.update(state)
    return error


def with_history(text: str, history: tuple[str, ...]) -> str:
    """`text` and, a line each, how attempts ended ("attempt 1 on m-2: ..."), but for what the text tells already."""
    lines = (f"  {line}" for line in history if line.partition(": ")[2] not in text)
    return "\n".join([text, *lines])


class _Attributed(RunnerError):
    """An error that belongs to one attempt of one task."""

    task_id: str = ""
    task_name: str = ""
    attempt: int = 0
    machine_id: str = ""
    history: tuple[str, ...] = ()

    def __init__(
        self,
        message: str,
        *,
        task_id: str = "",
        task_name: str = "",
        attempt: int = 0,
        machine_id: str = "",
        history: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.task_name = task_name
        self.attempt = attempt
        self.machine_id = machine_id
        self.history = history

    def __str__(self) -> str:
        return with_history(str(self.args[0]) if self.args else type(self).__name__, self.history)


class TaskError(_Attributed):
    """The user's function raised.

    What `get` raises is both a TaskError and an instance of the original type
    when that type can be subclassed, so `except ValueError` works.
    `cause` is the original exception, or None when it could not be pickled;
    `remote_traceback` is the text of the traceback where it happened.
    """

    cause: BaseException | None = None
    remote_traceback: str = ""


class TaskCancelledError(_Attributed):
    """The task was cancelled before it had a result."""


class TaskTimeoutError(_Attributed):
    """The task ran longer than its `timeout_s` and was stopped."""


class GetTimeoutError(RunnerError, TimeoutError):
    """The value was not ready in time; the task goes on."""


class StateTimeoutError(RunnerError, TimeoutError):
    """A machine was not in a state in time; what was asked for goes on. Says how far each is, and what it waits for."""


# ---- the caller must change the call ----
class UsageError(RunnerError):
    """The caller must change the call."""


class BadOptionsError(UsageError, ValueError):
    """An option is unknown or its value is out of range."""


class BadTypeError(BadOptionsError, TypeError):
    """An option or argument is of the wrong type."""


class NotSerializableError(UsageError, TypeError):
    """An object cannot be pickled; `path` says where it sits, such as `train.<closure>.lock`."""

    path: str = ""


class NotScalarError(UsageError, TypeError):
    """A reported metric is not a number, string, bool or None."""


class DirectCallError(UsageError, TypeError):
    """A remote function was called like a local one."""


class NotInitializedError(UsageError):
    """There is no session."""


class UnschedulableError(_Attributed, UsageError):
    """No machine of this cluster, present or growable, can ever hold the task."""


class PendingCallsLimitExceededError(UsageError):
    """The actor has as many unanswered calls of this process as its `max_pending_calls` allows."""


class AuthenticationError(UsageError):
    """The token, the certificate authority or the certificate was refused."""


class VersionMismatchError(UsageError):
    """The other end runs another protocol or another Python minor version."""


class AddressInUseError(UsageError, OSError):
    """The port is taken by another process."""


# ---- the world failed ----
class ClusterError(RunnerError):
    """The world failed; trying again may help."""


class WorkerCrashedError(_Attributed, ClusterError):
    """The executor process that ran the task died."""


class OutOfMemoryError(WorkerCrashedError, MemoryError):
    """The executor was killed for using too much memory."""


class TaskKilledError(TaskCancelledError, WorkerCrashedError):
    """The task was cancelled with `force`: the process that ran it was ended."""


class MachineLostError(_Attributed, ClusterError):
    """The machine that ran the task is gone."""


class MachineStateError(ClusterError):
    """A machine will not come to the state that somebody waits for; says where it is, and why."""


class ActorError(_Attributed, ClusterError):
    """A call of an actor has no answer because of what happened to the actor."""

    actor_id: str = ""


class ActorDiedError(ActorError):
    """The actor is dead; the message says of what."""


class ActorUnavailableError(ActorError):
    """The actor cannot be reached now, or is being restarted; the call may or may not have run."""


class ObjectLostError(_Attributed, ClusterError):
    """A value is gone and cannot be made again."""


class OwnerDiedError(ObjectLostError):
    """The process that was to make the value is gone."""


class PlacementGroupRemovedError(_Attributed, ClusterError):
    """The placement group in which the task or actor was to run is gone."""


class CoordinatorUnreachableError(ClusterError, ConnectionError):
    """Nobody answers at the coordinator's address."""


class ProviderError(ClusterError):
    """The provider could not create or destroy a machine.

    `phase` is the step that failed, `log_lines` are the last lines that the machine wrote. `is_permanent`: the same
    request fails whenever it is made. `is_capacity`: the provider has no room for it now.
    """

    is_permanent: bool = False
    is_capacity: bool = False
    phase: str = ""
    machine_id: str = ""
    log_lines: tuple[str, ...] = ()

    def __init__(self, message: str, *, phase: str = "", machine_id: str = "", log_lines: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.phase = phase
        self.machine_id = machine_id
        self.log_lines = log_lines

    def __str__(self) -> str:
        text = str(self.args[0]) if self.args else type(self).__name__
        return "\n".join([text, *(f"  {line}" for line in self.log_lines)])


class TaskSetupError(_Attributed, ClusterError):
    """The function, an argument, its template or the environment could not be loaded on the machine.

    `remote_traceback` is the text of the traceback where it happened, if there is one.
    """

    remote_traceback: str = ""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n\n{self.remote_traceback.rstrip()}" if self.remote_traceback else text


class StoreFullError(_Attributed, ClusterError, OSError):
    """No space is left for a value, a checkpoint or the journal."""


# ---- our bug ----
class InternalError(RunnerError):
    """A bug of runner. Please report it with the text below."""


class IllegalTransitionError(InternalError):
    """The core tried a move that its table does not list."""


class ProtocolViolationError(InternalError):
    """The other end sent something that it must not send."""
