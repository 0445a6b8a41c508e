"""Options of remote functions: Ray's names and meanings, checked where they are written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, TypedDict

from runner.errors import BadOptionsError, BadTypeError
from runner.placing import parse_key, parse_on_oom, parse_priority, parse_selector, parse_strategy
from runner.runtime_env import NONE, RuntimeEnv, is_text, parse_runtime_env

_ACCELERATOR_AMOUNT = 0.001  # of the resource that says a GPU's kind, as in Ray: enough for all who share it
UNITS_PER_ONE = 10_000  # resource amounts are fixed point on the wire
STREAMING: Final = "streaming"
_RESERVED = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How one remote function is run. Every value has been checked."""

    num_cpus: float = 1
    num_gpus: float = 0
    memory: int | None = None  # bytes; None: not counted
    resources: Mapping[str, float] = field(default_factory=dict)  # custom ones
    name: str | None = None  # makes the task a run: its metrics, logs and checkpoints are kept
    max_retries: int = 3  # after crashes and lost machines; -1: no limit
    retry_exceptions: bool | tuple[type[BaseException], ...] = False  # also retry when user code raises (these)
    num_returns: int | Literal["streaming"] | None = None  # None: 1, or "streaming" for generators
    generator_backpressure_num_objects: int = -1  # items that may be unread before a generator waits; -1: no limit
    max_calls: int | None = None  # a worker process ends after so many; None: 0 for CPU tasks, 1 for GPU tasks
    timeout_s: float | None = None
    runtime_env: RuntimeEnv = NONE
    lifetime: str | None = None  # "detached": goes on when the client is gone
    startup_timeout_s: float | None = None  # until the function runs: worker process, environment, arguments
    accelerator_type: str | None = None  # the kind of GPU, as the machine's resource "accelerator_type:..." says it
    label_selector: Mapping[str, str] | None = None  # rules for the machine's labels
    scheduling_strategy: Any = None  # "DEFAULT", "SPREAD", or one of runner.util.scheduling_strategies
    priority: int = 0  # higher is first
    key: str | None = None  # rather a machine where a task with the same key ran
    on_oom: str = "retry"  # "grow": the retry asks for more memory
    template: tuple[Any, ...] = ()  # of @runner.template, whose values it uses; (): those that its code names
    enable_task_events: bool = True  # Ray's; the events of a task cost too little to be left out

    def amounts(self) -> dict[str, int]:
        """Resources in wire units; nothing that is zero."""
        wanted = {
            "CPU": to_units(self.num_cpus),
            "GPU": to_units(self.num_gpus),
            "memory": self.memory or 0,
            **{name: to_units(amount) for name, amount in self.resources.items()},
        }
        if self.accelerator_type is not None:
            wanted[f"accelerator_type:{self.accelerator_type}"] = to_units(_ACCELERATOR_AMOUNT)
        return {name: amount for name, amount in wanted.items() if amount}


class OptionsDict(TypedDict, total=False):
    """The options as keywords, for type checkers."""

    num_cpus: float | None
    num_gpus: float | None
    memory: int | str | None
    resources: Mapping[str, float] | None
    name: str | None
    max_retries: int | None
    retry_exceptions: bool | Sequence[type[BaseException]] | None
    num_returns: int | Literal["streaming"] | None
    generator_backpressure_num_objects: int | None
    _generator_backpressure_num_objects: int | None
    max_calls: int | None
    timeout_s: float | None
    runtime_env: Mapping[str, Any] | None
    lifetime: Literal["detached"] | None
    startup_timeout_s: float | None
    accelerator_type: str | None
    label_selector: Mapping[str, str] | None
    scheduling_strategy: Any
    priority: int | None
    key: str | None
    on_oom: Literal["retry", "grow"] | None
    template: Callable[[], Any] | Sequence[Callable[[], Any]] | None
    enable_task_events: bool


NAMES = tuple(option.name for option in fields(TaskOptions))
_ALIASES = {"_generator_backpressure_num_objects": "generator_backpressure_num_objects"}  # Ray's name
ALL_NAMES = (*NAMES, *_ALIASES)
_DEFAULTS: dict[str, Any] = {name: getattr(TaskOptions(), name) for name in NAMES}


def parse_options(given: Mapping[str, Any], base: TaskOptions | None = None) -> TaskOptions:
    """Check `given` and lay it over `base`, the options of the function that `.options()` was called on.

    Raises:
        BadOptionsError: an unknown name (the valid ones are listed) or a value that cannot work.
        BadTypeError: a value of the wrong type.
    """
    given = {_ALIASES.get(name, name): value for name, value in given.items()}
    for name in given:
        if name not in NAMES:
            raise _unknown(name)
    if base is not None and "max_calls" in given:
        raise BadOptionsError("max_calls cannot be changed by .options(): give it to @runner.remote(max_calls=...).")
    # None always means the default, as if the option had not been given.
    checked = {name: _DEFAULTS[name] if value is None else _CHECKS[name](name, value) for name, value in given.items()}
    options = replace(base or TaskOptions(), **checked)
    if options.num_gpus and options.num_gpus > 1 and options.num_gpus != int(options.num_gpus):
        raise BadOptionsError(f"num_gpus={options.num_gpus} is a fraction above 1: use a whole number or less than 1.")
    return options


def parse_memory(name: str, value: Any) -> int | None:
    """Bytes from a number or a text such as "2GiB" or "500MB"; None stays None."""
    if value is None:
        return None
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            raise _bad(name, value, 'bytes as a number, or a text such as "2GiB" or "500MB"')
        base = 1024 if match[3] else 1000
        return int(float(match[1]) * base ** _POWERS[match[2].lower()])
    if not _is_number(value):
        raise _bad_type(name, value, 'bytes as a number, or a text such as "2GiB"')
    if not math.isfinite(value) or value < 0 or value != int(value):
        raise _bad(name, value, 'whole bytes >= 0, or a text such as "2GiB"')
    return int(value)


def parse_amount(name: str, value: Any) -> float:
    """A resource amount: 0 or at least 0.0001."""
    if not _is_number(value):
        raise _bad_type(name, value, "a number: 0, or at least 0.0001")
    if not math.isfinite(value) or value < 0 or 0 < value < 1 / UNITS_PER_ONE:
        raise _bad(name, value, "a number: 0, or at least 0.0001")
    return float(value)


def parse_resources(name: str, value: Any) -> dict[str, float]:
    """Custom resources; CPU, GPU and memory have their own options."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
        raise _bad_type(name, value, 'a dict such as {"fast_disk": 1}')
    for key in value:
        if key in _RESERVED:
            raise BadOptionsError(f"{name}[{key!r}] is not a custom resource: use {_RESERVED[key]}= instead.")
    return {key: parse_amount(f"{name}[{key!r}]", amount) for key, amount in value.items()}


def to_units(amount: float) -> int:
    """Fixed-point units of an amount; never rounds a need down to nothing."""
    return round(amount * UNITS_PER_ONE)


def from_units(amounts: Mapping[str, int]) -> dict[str, float]:
    """Amounts for people from wire units."""
    return {name: float(value) if name == "memory" else value / UNITS_PER_ONE for name, value in amounts.items()}


def _unknown(name: str) -> BadOptionsError:
    import difflib

    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return BadOptionsError(f"Unknown option {name!r}.{hint} Valid options are: {', '.join(NAMES)}.")


def _bad(name: str, value: Any, expected: str) -> BadOptionsError:
    return BadOptionsError(f"{name}={value!r} cannot work: expected {expected}.")


def _bad_type(name: str, value: Any, expected: str) -> BadTypeError:
    return BadTypeError(f"{name}={value!r} cannot work: expected {expected}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(name: str, value: Any, least: int, most: int, expected: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _bad_type(name, value, expected)
    if not least <= value <= most:
        raise _bad(name, value, expected)
    return value


def _check_name(name: str, value: Any) -> str:
    expected = "a text of 1 to 256 characters on one line"
    if not isinstance(value, str):
        raise _bad_type(name, value, expected)
    if not is_text(value) or not value or len(value) > 256 or "\n" in value:
        raise _bad(name, value, expected)
    return value


def _check_retries(name: str, value: Any) -> int:
    return _whole(name, value, -1, 2**31 - 1, "a whole number >= 0, or -1 for no limit")


def _check_retry_exceptions(name: str, value: Any) -> bool | tuple[type[BaseException], ...]:
    if isinstance(value, bool):
        return value
    expected = "True, False or a list of exception types"
    if not isinstance(value, list | tuple):
        raise _bad_type(name, value, expected)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in value):
        raise _bad(name, value, expected)
    return tuple(value) or False


def _check_returns(name: str, value: Any) -> int | str:
    if value == STREAMING:
        return STREAMING
    if value == "dynamic":
        raise BadOptionsError(f'{name}="dynamic" is not supported, as it is deprecated in Ray: use "streaming".')
    expected = 'a whole number from 0 to 10000, or "streaming"'
    if isinstance(value, str):
        raise _bad(name, value, expected)
    return _whole(name, value, 0, 10_000, expected)


def _check_backpressure(name: str, value: Any) -> int:
    expected = "a whole number > 0, or -1 for no limit"
    if value == 0:
        raise _bad(name, value, expected)
    return _whole(name, value, -1, 2**31 - 1, expected)


def _check_calls(name: str, value: Any) -> int:
    return _whole(name, value, 0, 2**31 - 1, "a whole number >= 0 (0: no limit), or None")


def parse_timeout(name: str, value: Any) -> float:
    """Seconds, more than none."""
    if not _is_number(value):
        raise _bad_type(name, value, "seconds > 0, or None")
    if not value > 0 or not math.isfinite(value):
        raise _bad(name, value, "seconds > 0, or None")
    return float(value)


def _check_kind(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _bad_type(name, value, 'the name of a kind of GPU, such as "A100"')
    if not is_text(value) or not value:
        raise _bad(name, value, 'the name of a kind of GPU, such as "A100"')
    return value


def _check_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _bad_type(name, value, "True or False")
    return value


def _check_templates(name: str, value: Any) -> tuple[Any, ...]:
    templates = tuple(value) if isinstance(value, list | tuple) else (value,)
    # By a mark: the class is the client's, which this module is not to know.
    if not all(getattr(each, "__runner_template__", False) is True for each in templates):
        raise _bad_type(name, value, "a function with @runner.template, or a list of them")
    return templates


def _check_lifetime(name: str, value: Any) -> str:
    if value != "detached":
        raise _bad(name, value, 'None or "detached"')
    return "detached"


_CHECKS: dict[str, Any] = {
    "num_cpus": parse_amount,
    "num_gpus": parse_amount,
    "memory": parse_memory,
    "resources": parse_resources,
    "name": _check_name,
    "max_retries": _check_retries,
    "retry_exceptions": _check_retry_exceptions,
    "num_returns": _check_returns,
    "generator_backpressure_num_objects": _check_backpressure,
    "max_calls": _check_calls,
    "timeout_s": parse_timeout,
    "runtime_env": parse_runtime_env,
    "lifetime": _check_lifetime,
    "startup_timeout_s": parse_timeout,
    "accelerator_type": _check_kind,
    "label_selector": parse_selector,
    "scheduling_strategy": parse_strategy,
    "priority": parse_priority,
    "key": parse_key,
    "on_oom": parse_on_oom,
    "template": _check_templates,
    "enable_task_events": _check_flag,
}
