"""Options that say where a task or actor goes: checked where they are written, light to import."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from runner.errors import BadOptionsError, BadTypeError

if TYPE_CHECKING:
    from runner.rpc.gen import types_pb2

_LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,250}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_RULE = re.compile(r"!?(?:in\((?P<values>[^()]*)\)|(?P<value>[^()!]*))")


def parse_labels(name: str, value: Any) -> dict[str, str]:
    """Labels of machines: {"disk": "fast"}."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadTypeError(f'{name}={value!r} cannot work: expected a dict such as {{"disk": "fast"}}.')
    for key, text in value.items():
        _check_key(name, key)
        if not isinstance(text, str) or not _LABEL_VALUE.fullmatch(text):
            raise BadOptionsError(
                f"{name}[{key!r}]={text!r} cannot work: expected up to 63 letters, digits and . _ - between them."
            )
    return dict(value)


def parse_selector(name: str, value: Any) -> dict[str, str]:
    """Rules for labels: {"disk": "fast"}, "!slow", "in(a, b)" or "!in(a, b)"."""
    if not isinstance(value, Mapping):
        raise BadTypeError(f'{name}={value!r} cannot work: expected a dict such as {{"disk": "fast"}}.')
    for key, rule in value.items():
        _check_key(name, key)
        match = _RULE.fullmatch(rule) if isinstance(rule, str) else None
        values = [] if match is None else (match["values"] if match["value"] is None else match["value"]).split(",")
        if not values or not all(_LABEL_VALUE.fullmatch(each.strip()) for each in values):
            raise BadOptionsError(
                f'{name}[{key!r}]={rule!r} cannot work: expected "value", "!value", "in(a, b)" or "!in(a, b)".'
            )
    return dict(value)


def _check_key(name: str, key: Any) -> None:
    if not isinstance(key, str) or not _LABEL_KEY.fullmatch(key):
        raise BadOptionsError(f"{name} has the key {key!r}: expected letters, digits and . _ - / between them.")


def parse_strategy(name: str, value: Any) -> Any:
    """ "DEFAULT", "SPREAD", or one of runner.util.scheduling_strategies."""
    from runner.util.scheduling_strategies import STRATEGIES

    if isinstance(value, STRATEGIES) or (isinstance(value, str) and value in {"DEFAULT", "SPREAD"}):
        return value
    known = ", ".join(kind.__name__ for kind in STRATEGIES)
    raise BadOptionsError(f'{name}={value!r} cannot work: expected "DEFAULT", "SPREAD", or a {known}.')


def parse_priority(name: str, value: Any) -> int:
    """Any whole number of 32 bits; higher is first."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadTypeError(f"{name}={value!r} cannot work: expected a whole number.")
    if not -(2**31) <= value < 2**31:
        raise BadOptionsError(f"{name}={value!r} cannot work: expected a whole number of 32 bits.")
    return value


def parse_key(name: str, value: Any) -> str:
    """The name of something that is slow to warm up."""
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise BadOptionsError(f"{name}={value!r} cannot work: expected a text of 1 to 256 characters.")
    return value


def parse_on_oom(name: str, value: Any) -> str:
    """What a retry after too much memory does."""
    if value not in {"retry", "grow"}:
        raise BadOptionsError(f'{name}={value!r} cannot work: expected "retry" or "grow".')
    return str(value)


def fill_wishes(spec: types_pb2.TaskSpec, options: Any) -> None:
    """Write what `options` (a TaskOptions or an actor's) says about the place into `spec`.

    Raises:
        BadOptionsError: two of the options contradict each other.
    """
    spec.priority = options.priority
    spec.affinity_key = options.key or ""
    spec.grow_on_oom = options.on_oom == "grow"
    spec.label_selector.update(options.label_selector or {})
    spec.bundle = -1
    strategy = options.scheduling_strategy
    if strategy == "SPREAD":
        spec.spread = True
    elif strategy is not None and strategy != "DEFAULT":
        strategy.fill(spec)
    if spec.group_id and spec.label_selector:
        raise BadOptionsError("label_selector cannot work with a placement group: its bundles have their machines.")
