"""What an actor's class says to the process that hosts it: methods to call at its begin and end, and the wish to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from runner.client.context import current_task
from runner.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__runner_hook__"
ENTER = "enter"
EXIT = "exit"


class ActorExit(BaseException):
    """Raised by `exit_actor` through the method that called it. Not an Exception, so that `except Exception` lets it pass."""


def enter(method: F) -> F:
    """Mark a method without arguments that runs after the constructor, before the actor takes calls.

    What it raises fails the actor as an error of its constructor does.
    """
    setattr(method, _MARK, ENTER)
    return method


def exit(method: F) -> F:  # noqa: A001  runner.exit
    """Mark a method without arguments that runs when the actor ends and there is time: not after a kill or a crash.

    It runs when nobody holds a handle any more, after `exit_actor()`, and when its machine goes. All of them together have the
    actor's grace time; what they raise is printed.
    """
    setattr(method, _MARK, EXIT)
    return method


def exit_actor() -> NoReturn:
    """End the actor whose method calls this. The call and all that wait fail with ActorDiedError; it is not restarted.

    Raises:
        UsageError: called outside an actor's methods.
    """
    if not getattr(current_task(), "actor_id", ""):
        raise UsageError("exit_actor() was called outside an actor; it ends the actor whose method calls it.")
    raise ActorExit


def hooks(cls: type, kind: str) -> list[str]:
    """Names of the methods marked with `kind` (ENTER or EXIT): those of base classes first, each in the order of the class body."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    return [name for name in names if getattr(getattr(cls, name, None), _MARK, None) == kind]
