"""What the adapters of both systems share."""

from __future__ import annotations

import importlib
from typing import Any

# Errors by their meaning, and what Ray calls them in its module `exceptions`.
ERRORS = {
    "SystemError": "RayError",
    "TaskError": "RayTaskError",
    "TaskSetupError": "RuntimeEnvSetupError",
    "ActorError": "RayActorError",
    "UnschedulableError": "TaskUnschedulableError",
}


# What both have in modules that have to be imported by name.
PLACES = {
    "ActorPool": "util",
    "exit_actor": "actor",
    "placement_group": "util",
    "remove_placement_group": "util",
    "NodeAffinitySchedulingStrategy": "util.scheduling_strategies",
    "PlacementGroupSchedulingStrategy": "util.scheduling_strategies",
}


class Adapter:
    """Travels to workers as "the system of that process"."""

    library: Any

    def __getattr__(self, name: str) -> Any:
        if name in PLACES:
            return getattr(importlib.import_module(f"{self.library.__name__}.{PLACES[name]}"), name)
        if hasattr(self.library, name):
            return getattr(self.library, name)
        return getattr(self.library.exceptions, ERRORS.get(name, name))

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return current, ()

    def in_group(self, group: Any, bundle: int = -1) -> dict[str, Any]:
        """Options of a task or actor that takes its resources from a placement group."""
        strategy = self.PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
        return {"scheduling_strategy": strategy}

    def on_machine(self, machine_id: str, *, soft: bool = False) -> dict[str, Any]:
        """Options of a task or actor that runs on this machine."""
        return {"scheduling_strategy": self.NodeAffinitySchedulingStrategy(machine_id, soft=soft)}

    def is_generator(self, value: Any) -> bool:
        """Whether it is what a streaming call returns."""
        return isinstance(value, self.library.ObjectRefGenerator)


def current() -> Any:
    """The adapter of this process."""
    from tests.contract.ray_semantics.adapter import system

    return system
