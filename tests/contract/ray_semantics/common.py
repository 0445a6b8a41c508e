"""What the adapters of both systems share."""

from __future__ import annotations

from typing import Any

# Errors by their meaning, and what Ray calls them in its module `exceptions`.
ERRORS = {
    "SystemError": "RayError",
    "TaskError": "RayTaskError",
    "TaskSetupError": "RuntimeEnvSetupError",
    "ActorError": "RayActorError",
    "UnschedulableError": "TaskUnschedulableError",
}


class Adapter:
    """Travels to workers as "the system of that process"."""

    library: Any

    def __getattr__(self, name: str) -> Any:
        if hasattr(self.library, name):
            return getattr(self.library, name)
        return getattr(self.library.exceptions, ERRORS.get(name, name))

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return current, ()


def current() -> Any:
    """The adapter of this process."""
    from tests.contract.ray_semantics.adapter import system

    return system
