"""What programs written for Ray find under `ray.util`: a pool of actors, a queue, placement groups, scheduling strategies."""

from runner.util.actor_pool import ActorPool
from runner.util.placement_group import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from runner.util.queue import Empty, Full, Queue

__all__ = [
    "ActorPool",
    "Empty",
    "Full",
    "Queue",
    "get_current_placement_group",
    "get_placement_group",
    "placement_group",
    "placement_group_table",
    "remove_placement_group",
]
