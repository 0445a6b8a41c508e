"""What programs written for Ray find under `ray.actor`."""

from __future__ import annotations

from runner.client.actor_class import ActorClass
from runner.client.actor_handle import ActorHandle, ActorMethod
from runner.client.actor_hooks import exit_actor

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor"]
