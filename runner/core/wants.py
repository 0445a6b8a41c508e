"""What a queue is of: the needs of its tasks, by which machines are told apart.

Nearly all tasks need resources and nothing else: their key is the shape alone, and costs nothing more.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from runner.core.values import Labels, Shape, WishRecord


class Want(NamedTuple):
    """Needs beyond resources. All of them are conditions; what is only preferred is in no key."""

    shape: Shape
    labels: Labels = ()  # a selector: key and rule
    machine_id: str = ""  # this machine and no other
    spread: bool = False  # by the number of tasks, not by load
    group_id: str = ""  # in a placement group's bundles, and nowhere else
    bundle: int = -1  # -1: any of them
    is_alone: bool = False  # of a bundle that must not share its machine with its group's others


Key = Shape | Want


def key_of(shape: Shape, wishes: WishRecord | None) -> Key:
    """The queue of a task."""
    if wishes is None:
        return shape
    if wishes.group_id:
        return Want(shape, group_id=wishes.group_id, bundle=wishes.bundle)
    machine_id = "" if wishes.is_machine_soft else wishes.machine_id
    if wishes.labels or machine_id or wishes.spread:
        return Want(shape, wishes.labels, machine_id, wishes.spread)
    return shape


def shape_of(key: Key) -> Shape:
    """The resources that tasks of this queue take."""
    return key.shape if isinstance(key, Want) else key


@lru_cache(maxsize=4096)
def matches(labels: Labels, selector: Labels, unknown: tuple[str, ...] = ()) -> bool:
    """Whether a machine with these labels will do. `unknown`: keys whose values are seen only once it is there."""
    has = dict(labels)
    for key, rule in selector:
        is_negated, values = read_rule(rule)
        if key not in unknown and (has.get(key) in values) == is_negated:
            return False
    return True


def read_rule(rule: str) -> tuple[bool, frozenset[str]]:
    """`value`, `!value`, `in(a, b)` or `!in(a, b)`: whether it is negated, and the values."""
    is_negated = rule.startswith("!")
    rest = rule[is_negated:].strip()
    if rest.startswith("in(") and rest.endswith(")"):
        return is_negated, frozenset(value.strip() for value in rest[3:-1].split(","))
    return is_negated, frozenset({rest})


def describe_labels(selector: Labels) -> str:
    """For people."""
    return ", ".join(f"{key}={rule}" for key, rule in selector)
