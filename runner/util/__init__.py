"""What programs written for Ray find under `ray.util`: a pool of actors, a queue, scheduling strategies."""

from runner.util.actor_pool import ActorPool
from runner.util.queue import Empty, Full, Queue

__all__ = ["ActorPool", "Empty", "Full", "Queue"]
