"""Which size of machine holds what is asked for.

Memory comes in steps of 256 MB, between a least and a most for each CPU of its kind (docs: machine-sizing): shared CPUs take
256 to 2048 MB each, performance CPUs 2048 to 8192 MB. The smallest preset that has the CPUs and can be given the memory is
taken; its memory is then the least of its kind or what was asked for, whichever is more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from runner.core.values import CPU, MEMORY, UNIT, Shape

MEMORY_STEP_MB = 256
SUSPEND_MEMORY_MB_MAX = 2048
_MIB = 1 << 20
_PRESETS = {"shared": (1, 2, 4, 6, 8), "performance": (1, 2, 4, 6, 8, 10, 12, 14, 16)}
_NAMES = {"shared": "shared-cpu-{}x", "performance": "performance-{}x"}
_MEMORY_MB = {"shared": (256, 2048), "performance": (2048, 8192)}  # least and most of each CPU
CPU_KINDS = tuple(_PRESETS)
# Named by the presets that Fly once had; on 2026-08-01 they ended.
GPU_PRESETS = frozenset({"a10", "l40s", "a100-40gb", "a100-80gb", "a100-pcie-40gb", "a100-sxm4-80gb"})


@dataclass(frozen=True, slots=True)
class Guest:
    """One size of machine."""

    size: str  # the preset's name
    cpu_kind: str
    cpus: int
    memory_mb: int

    def to_json(self) -> dict[str, object]:
        """As the API takes it."""
        return {"cpu_kind": self.cpu_kind, "cpus": self.cpus, "memory_mb": self.memory_mb}


SIZES: dict[str, tuple[str, int]] = {
    _NAMES[kind].format(cpus): (kind, cpus) for kind, counts in _PRESETS.items() for cpus in counts
}


def fit(size: str, shape: Shape) -> Guest | None:
    """The preset `size` with enough memory for `shape`; None when it cannot hold it. `size` is one of SIZES."""
    amounts = dict(shape)
    kind, cpus = SIZES[size]
    least_mb, most_mb = (each * cpus for each in _MEMORY_MB[kind])
    wanted_mb = math.ceil(amounts.get(MEMORY, 0) / _MIB / MEMORY_STEP_MB) * MEMORY_STEP_MB
    if amounts.get(CPU, 0) > cpus * UNIT or wanted_mb > most_mb:
        return None
    return Guest(size, kind, cpus, max(least_mb, wanted_mb))


def choose(shape: Shape, sizes: Sequence[str], cpu_kind: str) -> list[Guest]:
    """What to try, in this order: those of `sizes` that hold `shape`; with no `sizes` the smallest of `cpu_kind` that does."""
    guests = (fit(size, shape) for size in sizes or [size for size, (kind, _) in SIZES.items() if kind == cpu_kind])
    fitting = [guest for guest in guests if guest is not None]
    return fitting if sizes else fitting[:1]


def suspend_obstacle(memory_mb: int, *, swap_mb: int = 0, has_schedule: bool = False, gpus: int = 0) -> str:
    """Why a machine cannot be suspended; empty when it can (docs: suspend-resume)."""
    if memory_mb > SUSPEND_MEMORY_MB_MAX:
        return f"it has {memory_mb} MB of memory and Fly suspends machines of at most {SUSPEND_MEMORY_MB_MAX} MB"
    if swap_mb:
        return "it has swap, and Fly suspends only machines without"
    if has_schedule:
        return "it has a schedule, and Fly suspends only machines without"
    return "it has a GPU, and Fly suspends only machines without" if gpus else ""
