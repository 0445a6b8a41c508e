"""Whose session this process has, and which task runs in it. Set by `init` in a client and by the executor in a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import NotInitializedError

if TYPE_CHECKING:
    from runner.client.session import Session
    from runner.hooks import ResumeContext


class TaskContext(Protocol):
    """What the executor offers to the running task."""

    @property
    def task_id(self) -> str: ...
    @property
    def task_name(self) -> str: ...
    @property
    def actor_id(self) -> str:
        """Empty in tasks."""

    @property
    def actor_name(self) -> str: ...
    @property
    def actor_meta(self) -> bytes:
        """What handles of the actor are made of; see `ActorMeta`."""

    @property
    def attempt(self) -> int: ...
    @property
    def machine_id(self) -> str: ...
    @property
    def gpu_ids(self) -> tuple[int, ...]: ...
    @property
    def group_id(self) -> str:
        """Of the placement group that it runs in; empty: none."""

    @property
    def is_group_for_children(self) -> bool:
        """Whether what it submits goes to the group too."""

    @property
    def resources(self) -> Mapping[str, float]: ...

    def report(self, values: Mapping[str, Any], *, step: int | None, checkpoint: Any) -> None:
        """Send metrics and keep a checkpoint; blocks while the buffer is full."""

    def mark_phase(self, name: str) -> None:
        """Tell that the machine has come to a phase of its boot."""

    def ready_to_snapshot(self) -> ResumeContext | None:
        """Let a suspend that waits take place now; None when none does."""

    def get_checkpoint(self) -> Any:
        """What the last committed checkpoint holds, or None."""

    def is_canceled(self) -> bool:
        """True once somebody asked this task to stop."""


class CallContext(TaskContext, Protocol):
    """The same for one call of an actor."""

    @property
    def children(self) -> list[tuple[str, Callable[[str], None]]]:
        """Tasks and calls that it has submitted, and how each is cancelled."""


_session: Session | None = None
_task: TaskContext | None = None
# The call of an actor: several may run at a time, in threads and in coroutines.
_call: ContextVar[CallContext | None] = ContextVar("runner_call", default=None)


def current_session() -> Session:
    """The session of this process.

    Raises:
        NotInitializedError: there is none.
    """
    if _session is None:
        raise NotInitializedError("There is no session. Call runner.init() first.")
    return _session


def session_or_none() -> Session | None:
    """The session of this process, if any."""
    return _session


def set_session(session: Session | None) -> None:
    """Make this the session of the process, and the owner of refs that are unpickled in it."""
    from runner.objects.refs import set_owner_lookup

    global _session
    _session = session
    set_owner_lookup(session_or_none)


def current_task() -> TaskContext | None:
    """The task or the actor's call that runs here, or None outside of both."""
    return _call.get() or _task


def set_task(task: TaskContext | None) -> None:
    """Called by the executor around user code."""
    global _task
    _task = task


def submitted(task_id: str, cancel: Callable[[str], None]) -> None:
    """This process has submitted a task or a call: `cancel(task_id)` when the actor's call that did is cancelled with its children."""
    call = _call.get()
    if call is not None:
        call.children.append((task_id, cancel))


def enter_call(call: CallContext) -> Token[CallContext | None]:
    """Called by an actor's executor before a method runs, in the thread or coroutine that runs it."""
    return _call.set(call)


def leave_call(token: Token[CallContext | None]) -> None:
    """The method is over."""
    _call.reset(token)
