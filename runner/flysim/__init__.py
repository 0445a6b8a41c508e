"""A Fly Machines API on this computer, whose machines are real agents: for tests, and for trying the `fly` provider without an account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner.flysim.fixture import FlySim
    from runner.flysim.settings import SimSettings

__all__ = ["FlySim", "SimSettings"]


def __getattr__(name: str) -> Any:
    if name == "FlySim":
        from runner.flysim.fixture import FlySim

        return FlySim
    if name == "SimSettings":
        from runner.flysim.settings import SimSettings

        return SimSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
