"""Options of actors: Ray's names and meanings, checked where they are written. Those of tasks that make sense are options too."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from runner.errors import BadOptionsError, BadTypeError
from runner.options import NAMES as _TASK_NAMES
from runner.options import OptionsDict, TaskOptions, parse_options

# What means something else for actors, or nothing.
_NOT_OF_ACTORS = frozenset(
    {
        "name",
        "max_retries",
        "retry_exceptions",
        "num_returns",
        "generator_backpressure_num_objects",
        "max_calls",
        "timeout_s",
    }
)
_SHARED = tuple(name for name in _TASK_NAMES if name not in _NOT_OF_ACTORS)
# As in Ray an actor holds no CPU while it lives, unless it says so.
_TASK_DEFAULT = TaskOptions(num_cpus=0)


@dataclass(frozen=True, slots=True)
class ActorOptions:
    """How the actors of one class live. Every value has been checked."""

    task: TaskOptions = _TASK_DEFAULT  # resources, environment and lifetime, as tasks have them
    name: str | None = None  # by which runner.get_actor() finds it
    namespace: str | None = None
    get_if_exists: bool = False  # a handle of the actor with this name, if there is one
    max_restarts: int = 0  # -1: no limit
    max_task_retries: int = 0  # of calls that were under way when it was restarted; -1: no limit
    max_pending_calls: int = -1  # unanswered calls of one process; -1: no limit
    max_concurrency: int | None = None  # calls that run at a time: 1, or 1000 for async actors
    concurrency_groups: Mapping[str, int] = field(default_factory=dict)  # calls at a time of each
    allow_out_of_order_execution: bool | None = None  # Ray's; calls of one caller begin in order
    grace_s: float | None = None  # for its exit hooks


class RemoteOptionsDict(OptionsDict, total=False):
    """Options of tasks and of actors as keywords, for type checkers."""

    namespace: str | None
    get_if_exists: bool
    max_restarts: int | None
    max_task_retries: int | None
    max_pending_calls: int | None
    max_concurrency: int | None
    concurrency_groups: Mapping[str, int] | Sequence[Mapping[str, Any]] | None
    allow_out_of_order_execution: bool | None
    grace_s: float | None


_OWN = tuple(option.name for option in fields(ActorOptions) if option.name != "task")
NAMES = (*_SHARED, *_OWN)
_DEFAULTS: dict[str, Any] = {name: getattr(ActorOptions(), name) for name in _OWN}


def parse_actor_options(given: Mapping[str, Any], base: ActorOptions | None = None) -> ActorOptions:
    """Check `given` and lay it over `base`.

    Raises:
        BadOptionsError: an unknown name (the valid ones are listed), or values that cannot work, alone or together.
        BadTypeError: a value of the wrong type.
    """
    for name in given:
        if name not in NAMES:
            close = difflib.get_close_matches(name, NAMES, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise BadOptionsError(f"Unknown option {name!r} of an actor.{hint} Valid options are: {', '.join(NAMES)}.")
    base = base or ActorOptions()
    # None always means the default, as if the option had not been given.
    own = {
        name: _DEFAULTS[name] if value is None else _CHECKS[name](name, value)
        for name, value in given.items()
        if name in _OWN
    }
    shared = {name: value for name, value in given.items() if name in _SHARED}
    if shared.get("num_cpus", 0) is None:
        shared["num_cpus"] = _TASK_DEFAULT.num_cpus
    options = replace(base, task=parse_options(shared, base.task), **own)
    if options.get_if_exists and options.name is None:
        raise BadOptionsError("get_if_exists=True cannot work without a name: give the actor a name=.")
    if options.namespace is not None and options.name is None:
        raise BadOptionsError(f"namespace={options.namespace!r} is of no use without a name: give the actor a name=.")
    return options


def check_method_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check what `@runner.method(...)` or `handle.method.options(...)` was given.

    Raises:
        BadOptionsError: an unknown name, or a value that cannot work.
        BadTypeError: a value of the wrong type.
    """
    checked: dict[str, Any] = {}
    for given_name, value in given.items():
        name = _METHOD_ALIASES.get(given_name, given_name)
        if name not in METHOD_NAMES:
            raise BadOptionsError(f"Unknown option {name!r} of a method. Valid options are: {', '.join(METHOD_NAMES)}.")
        if value is None:
            continue
        if name in _TASK_NAMES and name != "name":
            checked[name] = getattr(parse_options({name: value}), name)
        else:
            checked[name] = _CHECKS[name](name, value)
    return checked


_METHOD_ALIASES = {"_generator_backpressure_num_objects": "generator_backpressure_num_objects"}  # Ray's name
METHOD_NAMES = (
    "num_returns",
    "concurrency_group",
    "max_task_retries",
    "retry_exceptions",
    "generator_backpressure_num_objects",
    "name",
    "enable_task_events",
)


def _text(name: str, value: Any) -> str:
    expected = "a text of 1 to 256 characters on one line"
    if not isinstance(value, str):
        raise BadTypeError(f"{name}={value!r} cannot work: expected {expected}.")
    if not value or len(value) > 256 or not value.isprintable():
        raise BadOptionsError(f"{name}={value!r} cannot work: expected {expected}.")
    return value


def _group(name: str, value: Any) -> str:
    group = _text(name, value)
    if "@" in group:
        raise BadOptionsError(f"{name}={value!r} cannot work: a group's name holds no @.")
    return group


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadTypeError(f"{name}={value!r} cannot work: expected True or False.")
    return value


def _count(name: str, value: Any) -> int:
    expected = "a whole number >= 0, or -1 for no limit"
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadTypeError(f"{name}={value!r} cannot work: expected {expected}.")
    if not -1 <= value < 2**31:
        raise BadOptionsError(f"{name}={value!r} cannot work: expected {expected}.")
    return value


def _pending(name: str, value: Any) -> int:
    if _count(name, value) == 0:
        raise BadOptionsError(
            f"{name}=0 cannot work: no call could be made. Expected a number > 0, or -1 for no limit."
        )
    return int(value)


def _concurrency(name: str, value: Any) -> int:
    expected = "a whole number > 0"
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadTypeError(f"{name}={value!r} cannot work: expected {expected}.")
    if not 0 < value < 2**31:
        raise BadOptionsError(f"{name}={value!r} cannot work: expected {expected}.")
    return value


def _groups(name: str, value: Any) -> dict[str, int]:
    if isinstance(value, list):  # Ray's other form: [{"name": ..., "max_concurrency": ...}]
        value = {each.get("name"): each.get("max_concurrency") for each in value if isinstance(each, Mapping)}
    if not isinstance(value, Mapping):
        raise BadTypeError(f'{name}={value!r} cannot work: expected a dict such as {{"io": 2}}.')
    return {_group(f"{name}'s key", key): _concurrency(f"{name}[{key!r}]", limit) for key, limit in value.items()}


def _seconds(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise BadTypeError(f"{name}={value!r} cannot work: expected seconds > 0.")
    if not 0 < value < 86_400:
        raise BadOptionsError(f"{name}={value!r} cannot work: expected seconds > 0, one day at most.")
    return float(value)


_CHECKS: dict[str, Any] = {
    "name": _text,
    "namespace": _text,
    "get_if_exists": _flag,
    "max_restarts": _count,
    "max_task_retries": _count,
    "max_pending_calls": _pending,
    "max_concurrency": _concurrency,
    "concurrency_groups": _groups,
    "concurrency_group": _group,
    "allow_out_of_order_execution": _flag,
    "grace_s": _seconds,
}
