"""Where tasks and actors go, as `scheduling_strategy=` says it: Ray's names and meanings.

Beside these, "DEFAULT" (where there is most room, near large inputs) and "SPREAD" (where fewest tasks are).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from runner.errors import BadOptionsError, BadTypeError

if TYPE_CHECKING:
    from runner.rpc.gen import types_pb2


class Group(Protocol):
    """A placement group, as far as a strategy looks at it."""

    @property
    def id(self) -> str: ...
    @property
    def bundle_specs(self) -> Sequence[Mapping[str, float]]: ...


@dataclass(frozen=True)
class PlacementGroupSchedulingStrategy:
    """In a placement group: in its bundle of that index, or (-1) in any of them that has room.

    With `placement_group_capture_child_tasks`, what the task or actor submits goes to the group too.
    """

    placement_group: Group
    placement_group_bundle_index: int = -1
    placement_group_capture_child_tasks: bool | None = None

    def __post_init__(self) -> None:
        index: Any = self.placement_group_bundle_index
        group = self.placement_group
        count = len(group.bundle_specs)
        if not isinstance(index, int) or not -1 <= index < count:
            raise BadOptionsError(
                f"placement_group_bundle_index={index!r} cannot work: group {group.id} has the bundles 0 to {count - 1};"
                f" -1 is any of them."
            )

    def fill(self, spec: types_pb2.TaskSpec) -> None:
        """Write it into a task."""
        spec.group_id = self.placement_group.id
        spec.bundle = self.placement_group_bundle_index
        spec.group_for_children = bool(self.placement_group_capture_child_tasks)


@dataclass(frozen=True)
class NodeAffinitySchedulingStrategy:
    """On that machine (its id, as `runner.nodes()` has it). `soft`: on another one when it is gone or full."""

    node_id: str
    soft: bool

    def __post_init__(self) -> None:
        node_id: Any = self.node_id
        if not isinstance(node_id, str) or not self.node_id:
            raise BadTypeError(f"node_id={self.node_id!r} cannot work: expected a machine's id, as in runner.nodes().")

    def fill(self, spec: types_pb2.TaskSpec) -> None:
        """Write it into a task."""
        spec.machine.machine_id = self.node_id
        spec.machine.soft = bool(self.soft)


class In:
    """The label has one of these values."""

    def __init__(self, *values: str) -> None:
        self.rule = f"in({','.join(values)})"


class NotIn:
    """The label has none of these values, or is not there."""

    def __init__(self, *values: str) -> None:
        self.rule = f"!in({','.join(values)})"


@dataclass(frozen=True)
class NodeLabelSchedulingStrategy:
    """On a machine whose labels follow these rules: {"disk": In("fast", "local")}, or a rule as `label_selector` takes it."""

    hard: Mapping[str, In | NotIn | str]

    def fill(self, spec: types_pb2.TaskSpec) -> None:
        """Write it into a task."""
        from runner.placing import parse_selector

        rules = {key: rule.rule if isinstance(rule, In | NotIn) else rule for key, rule in self.hard.items()}
        spec.label_selector.update(parse_selector("hard", rules))


STRATEGIES = (PlacementGroupSchedulingStrategy, NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy)
