"""What programs written for Ray find under `ray.actor`."""

from __future__ import annotations

from runner.client.actors.classes import ActorClass
from runner.client.actors.handle import ActorHandle, ActorMethod
from runner.client.actors.hooks import exit_actor

__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "exit_actor"]
