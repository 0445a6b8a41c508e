"""What user code wants done around a suspend of its machine: the hooks of this process, and what they are told.

A leaf: it knows nothing of executors. These run the hooks; see docs/suspend.md.
"""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Literal, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__runner_suspend_hook__"
BEFORE = "before_suspend"
AFTER = "after_resume"
CANCELLED: Literal["cancelled"] = "cancelled"


@dataclass(frozen=True, slots=True)
class ResumeContext:
    """What an `after_resume` hook is told.

    `kind`: "resumed" after a resume; "cancelled" when the suspend did not take place; "cold" in a new process that was forked from
    a template whose code registered the hook. `config` is what the cluster's owner has set for machines; it may hold secrets.
    """

    kind: Literal["resumed", "cold", "cancelled"]
    slept_s: float = 0.0  # by the coordinator's clock
    generation: int = 0  # of the machine: one more with each registration
    snapshot: int = 0  # of the machine: 1, 2, 3, ...
    config: Mapping[str, str] = field(default_factory=dict, repr=False)
    clock_behind_s: float = 0.0  # how far this machine's wall clock is behind and could not be set; negative: ahead

    def to_dict(self) -> dict[str, Any]:
        """A map that msgpack can pack."""
        return {name: getattr(self, name) for name in self.__slots__} | {"config": dict(self.config)}


class HookFailed(Exception):
    """A hook has raised; the message says which and what. Its cause is what it raised."""


@dataclass(slots=True, eq=False)
class _Hook:
    name: str
    before: Callable[..., Any] | None
    after: Callable[..., Any] | None
    has_begun: bool = False  # `before`, and `after` has not run since


# By name, in the order of registration.
_hooks: dict[str, _Hook] = {}


def register(before: Callable[..., Any] | None = None, after: Callable[..., Any] | None = None, *, name: str) -> None:
    """Have `before()` run before each suspend of this process and `after(context)` after it, or after its failure.

    `after` may also take no argument; one with a default is not given the context. Both may be coroutine functions. A registration
    takes the place of an earlier one of its name.
    """
    _hooks.pop(name, None)
    _hooks[name] = _Hook(name, before, after)


def unregister(name: str) -> None:
    """Forget the hooks of that name, if there are any."""
    _hooks.pop(name, None)


def before_suspend(function: F) -> F:
    """Have the function run before the machine is suspended, in this process; those registered last run first.

    On a method of an actor's class: it is called on the actor. On a function, or a method of an object: it is registered where and when the decorator runs,
    in a task, in an actor's constructor, in a module that is imported there. A function of the same module and name takes the
    place of an earlier one. What it raises keeps the machine from being suspended.
    """
    return _marked(function, BEFORE)


def after_resume(function: F) -> F:
    """Have the function run when the machine is back, in the order of registration; it may take a `ResumeContext`.

    Registered as with `before_suspend`. It also runs, with kind "cancelled", when a suspend does not take place. No task begins
    before all hooks have run. What it raises, or takes too long for, has the machine started cold.
    """
    return _marked(function, AFTER)


def _marked(function: F, kind: str) -> F:
    if not isinstance(function, FunctionType):  # such as a method of an object
        what = getattr(function, "__qualname__", type(function).__name__)
        owner = getattr(function, "__self__", function)
        register(**_sides(function, kind), name=f"{kind} {what} of object {id(owner):#x}")
        return function
    setattr(function, _MARK, kind)
    owner, _, _ = function.__qualname__.rpartition(".")
    if not owner or owner.endswith("<locals>"):  # else a method: which object it is called on is known later
        name = f"{kind} {function.__module__}.{function.__qualname__}"
        if function.__name__ == "<lambda>":  # all have the same name
            name += f" in line {function.__code__.co_firstlineno}"
        register(**_sides(function, kind), name=name)
    return function


def register_methods(instance: object) -> list[str]:
    """Register the marked methods of an actor: those of base classes first, each in the order of the class body. Returns their names."""
    registered = []
    cls = type(instance)
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    for name in names:
        kind = getattr(getattr(cls, name, None), _MARK, None)
        if kind is not None:
            method = getattr(instance, name)
            registered.append(f"{kind} {cls.__module__}.{cls.__qualname__}.{name}")
            register(**_sides(method, kind), name=registered[-1])
    return registered


def _sides(function: Callable[..., Any], kind: str) -> dict[str, Any]:
    return {"before" if kind == BEFORE else "after": function}


# ---- running them ----
def run_before() -> None:
    """Run the `before` hooks, those registered last first. Blocks; coroutine functions get a loop of their own.

    Raises:
        HookFailed: one has raised; those before it in the order of registration have not run.
    """
    for hook, result in _begin():
        _finish(hook, result, BEFORE)


async def run_before_async() -> None:
    """As `run_before`, on the running loop."""
    for hook, result in _begin():
        await _finish_async(hook, result, BEFORE)


def run_after(context: ResumeContext) -> None:
    """Run the `after` hooks in the order of registration. After a cancelled suspend: those whose `before` has begun, or that have none.

    Raises:
        HookFailed: one has raised; those after it have not run.
    """
    for hook, result in _end(context):
        _finish(hook, result, AFTER)


async def run_after_async(context: ResumeContext) -> None:
    """As `run_after`, on the running loop."""
    for hook, result in _end(context):
        await _finish_async(hook, result, AFTER)


def run_cold(*, generation: int = 0, snapshot: int = 0, config: Mapping[str, str] | None = None) -> None:
    """For a process just forked from a template: run the `after` hooks that the template's code has registered, with kind "cold".

    Raises:
        HookFailed: one has raised.
    """
    if _hooks:
        run_after(ResumeContext("cold", generation=generation, snapshot=snapshot, config=config or {}))


def _begin() -> Iterator[tuple[_Hook, Any]]:
    for hook in reversed(list(_hooks.values())):
        hook.has_begun = True
        if hook.before is not None:
            yield hook, _call(hook, hook.before, BEFORE, None)


def _end(context: ResumeContext) -> Iterator[tuple[_Hook, Any]]:
    for hook in list(_hooks.values()):
        is_due = hook.has_begun or hook.before is None or context.kind != CANCELLED
        hook.has_begun = False
        if is_due and hook.after is not None:
            yield hook, _call(hook, hook.after, AFTER, context)


def _call(hook: _Hook, function: Callable[..., Any], kind: str, context: ResumeContext | None) -> Any:
    try:
        return function(context) if context is not None and _takes_context(function) else function()
    except Exception as error:
        raise _failed(hook, kind, error) from error


def _takes_context(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # written in C
        return True
    # One with a default is the user's own: `lambda model=model: ...` in a loop.
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        each.kind is each.VAR_POSITIONAL or (each.kind in positional and each.default is each.empty)
        for each in parameters
    )


def _finish(hook: _Hook, result: Any, kind: str) -> None:
    if inspect.isawaitable(result):
        import asyncio  # not by whoever only imports runner

        try:
            asyncio.run(_await(result))
        except Exception as error:
            raise _failed(hook, kind, error) from error


async def _finish_async(hook: _Hook, result: Any, kind: str) -> None:
    if inspect.isawaitable(result):
        try:
            await result
        except Exception as error:
            raise _failed(hook, kind, error) from error


async def _await(awaitable: Any) -> None:
    await awaitable


def _failed(hook: _Hook, kind: str, error: Exception) -> HookFailed:
    name = hook.name if hook.name.startswith(kind) else f"{kind} of {hook.name}"
    return HookFailed(f"the hook {name} failed: {type(error).__name__}: {error}")


def reseed() -> None:
    """Seed Python's, numpy's and torch's random generators anew from the system, those that this process has loaded.

    Executors without user state do it by themselves after each resume. In an actor, or after `ready_to_snapshot()`, the sequence is
    the user's: call this there to draw other numbers than before the snapshot. Generators that user code has made are left alone.
    """
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.seed()
