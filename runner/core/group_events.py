"""What happens to placement groups."""

from __future__ import annotations

from dataclasses import dataclass

from runner.core.values import GroupRecord


@dataclass(frozen=True, slots=True)
class GroupRequested:
    """Somebody wants these resources, all together; the record says who."""

    group: GroupRecord


@dataclass(frozen=True, slots=True)
class GroupRemovalRequested:
    """It goes, and all that runs in it."""

    group_id: str
