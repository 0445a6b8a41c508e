"""The options of `runner up` that say which machines there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import click

from runner.errors import BadOptionsError
from runner.pools import DEFAULT_POOL, IDLE, Pool, check_pools, fixed_pool

_F = TypeVar("_F", bound=Callable[..., Any])

# Options of the one pool that needs no name, and what a Pool calls them.
_OF_ONE_POOL = {
    "min_machines": "min",
    "max_machines": "max",
    "buffer": "buffer",
    "idle_shutdown_s": "idle_shutdown_s",
    "single_use": "single_use",
    "idle": "idle",
    "max_suspended_s": "max_suspended_s",
    "cpus": "num_cpus",
    "gpus": "num_gpus",
    "memory": "memory",
    "size": "size",
}
POOL_OPTIONS = ("machines", *_OF_ONE_POOL, "pool")
_SHORT = {"cpus": "num_cpus", "gpus": "num_gpus"}
_TEXTS = frozenset({"name", "size", "memory", "accelerator_type", "idle"})
_YES_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def fleet_options(command: _F) -> _F:
    """All of them, in the order in which --help shows them."""
    options = [
        click.option(
            "--machines", type=click.IntRange(min=0), default=1, show_default=True, help="How many to boot at first."
        ),
        click.option(
            "--min",
            "min_machines",
            type=click.IntRange(min=0),
            help="Never fewer.  [default: --machines; 0 with --max]",
        ),
        click.option("--max", "max_machines", type=click.IntRange(min=1), help="Never more.  [default: --machines]"),
        click.option("--buffer", type=click.IntRange(min=0), help="Idle ones kept while there is work."),
        click.option(
            "--idle-shutdown-s", type=click.FloatRange(min=0), help="A machine without work goes after so long."
        ),
        click.option("--single-use", is_flag=True, help="A machine serves one task and goes."),
        click.option(
            "--idle", type=click.Choice(IDLE), help="What becomes of a machine without work.  [default: shutdown]"
        ),
        click.option(
            "--max-suspended-s",
            type=click.FloatRange(min=0, min_open=True),
            help="A machine that has slept for so long is destroyed.  [default: no limit]",
        ),
        click.option(
            "--cpus",
            type=click.FloatRange(min=0, min_open=True),
            help="CPUs of each.  [default: on this host all of it, shared among --max; elsewhere 1]",
        ),
        click.option("--gpus", type=click.IntRange(min=0), default=0, show_default=True, help="GPUs of each."),
        click.option(
            "--memory",
            help='Memory of each, as "8GiB".  [default: local: a share of 70 % of what there is; else not counted]',
        ),
        click.option("--size", help='The provider\'s name for such a machine, as "performance-4x".'),
        click.option(
            "--pool",
            multiple=True,
            metavar="NAME=VALUE,...",
            help='Instead of the options above, once for each kind: "name=gpu,min=0,max=8,gpus=1,memory=16GiB".',
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def provider_flags(command: _F) -> _F:
    """--provider-option, --image, --region."""
    options = [
        click.option("--image", help="What machines boot from, where the provider takes one."),
        click.option("--region", multiple=True, help="Where they boot; again for the next best."),
        click.option(
            "--provider-option",
            "provider_option",
            multiple=True,
            metavar="KEY=VALUE",
            help="An option of the provider's own; VALUE is JSON or else text.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def chosen_pools(options: Mapping[str, Any], said: Iterable[str], kept: list[dict[str, Any]]) -> list[Pool]:
    """The pools that the options mean; `said` are the options that were given, `kept` the pools of an earlier start.

    Raises:
        BadOptionsError: they contradict each other, or a value cannot work.
    """
    flat = [name for name in POOL_OPTIONS if name in said and name != "pool"]
    if options["pool"]:
        if flat:
            raise BadOptionsError(f"--pool says all of a pool; say {', '.join(map(_flag, flat))} in it instead")
        return list(check_pools(tuple(parse_pool(text) for text in options["pool"])))
    if kept and not flat:
        return [Pool.from_dict(each) for each in kept]
    if len(kept) > 1:
        names = ", ".join(each["name"] for each in kept)
        raise BadOptionsError(
            f"this cluster has the pools {names}: {', '.join(map(_flag, flat))} could mean each of them; use --pool"
        )
    return [_one_pool(options, flat, kept[0] if kept else None)]


def _one_pool(options: Mapping[str, Any], flat: list[str], kept: dict[str, Any] | None) -> Pool:
    values: dict[str, Any] = dict(kept or {})
    if kept is None or "machines" in flat:
        fixed = fixed_pool(options["machines"])
        values |= {"min": fixed.min, "max": fixed.max, "start": fixed.start}
    if "min_machines" in flat or "max_machines" in flat:
        values |= _bounds(options, values, is_start_said="machines" in flat)
    for name, theirs in _OF_ONE_POOL.items():
        if theirs not in {"min", "max"} and (name in flat or (kept is None and options[name] is not None)):
            values[theirs] = options[name]
    return Pool.from_dict(values)


def _bounds(options: Mapping[str, Any], values: Mapping[str, Any], *, is_start_said: bool) -> dict[str, Any]:
    """`--min` and `--max` around what is booted at first; a number that nobody said gives way."""
    least, most = options["min_machines"], options["max_machines"]
    if is_start_said:
        start = options["machines"]
        return {"start": start, "min": start if least is None else least, "max": start or 1 if most is None else most}
    least = 0 if least is None else least
    return {"start": None, "min": least, "max": max(least, values.get("max") or 1) if most is None else most}


def parse_pool(text: str) -> Pool:
    """A pool from `name=gpu,min=0,max=8,gpus=1`.

    Raises:
        BadOptionsError: it cannot be read; says which part.
    """
    known = {each.name for each in fields(Pool)} - {"resources", "labels"}
    values: dict[str, Any] = {}
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        name = _SHORT.get(name, name).replace("-", "_")
        if not equals or not value:
            raise BadOptionsError(f"--pool {text!r}: {part!r} is not NAME=VALUE")
        if name.startswith("resources."):
            resources[name.removeprefix("resources.")] = _number(text, part, value)
        elif name.startswith("labels."):
            labels[name.removeprefix("labels.")] = value
        elif name not in known:
            raise BadOptionsError(
                f"--pool {text!r}: {name!r} is unknown; known are {', '.join(sorted(known))}, resources.NAME and labels.NAME"
            )
        else:
            values[name] = _value(text, part, name, value)
    return Pool.from_dict({"name": DEFAULT_POOL, **values, "resources": resources, "labels": labels})


def _value(text: str, part: str, name: str, value: str) -> Any:
    if name in _TEXTS:
        return value
    if name == "single_use":
        if value.lower() not in _YES_NO:
            raise BadOptionsError(f"--pool {text!r}: {part!r} is neither true nor false")
        return _YES_NO[value.lower()]
    number = _number(text, part, value)
    return (
        number if name in {"idle_shutdown_s", "max_suspended_s", "num_cpus"} or number != int(number) else int(number)
    )


def _number(text: str, part: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise BadOptionsError(f"--pool {text!r}: {part!r} is no number") from None


def parse_provider_options(texts: Iterable[str]) -> dict[str, Any]:
    """A map from KEY=VALUE texts; a value that reads as JSON is what it says, anything else is text.

    Raises:
        BadOptionsError: no `=`, or a key twice.
    """
    options: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise BadOptionsError("a --provider-option is not KEY=VALUE")  # what it is may be a secret
        if name in options:
            raise BadOptionsError(f"--provider-option {name} is there twice")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def _flag(name: str) -> str:
    return "--" + name.removesuffix("_machines").replace("_", "-")
