"""Which size holds a shape (docs: machine-sizing)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.values import CPU, MEMORY, UNIT, Shape, make_shape
from runner.providers.fly.guest import SIZES, Guest, choose, fit, suspend_obstacle

MIB, GIB = 1 << 20, 1 << 30


def shape(cpus: float = 1, memory: int = 0) -> Shape:
    return make_shape({CPU: round(cpus * UNIT), MEMORY: memory})


@pytest.mark.parametrize(
    ("cpus", "memory", "kind", "expected"),
    [
        (1, 0, "performance", ("performance-1x", 1, 2048)),
        (0.5, 0, "performance", ("performance-1x", 1, 2048)),
        (3, 0, "performance", ("performance-4x", 4, 8192)),
        (1, 3 * GIB, "performance", ("performance-1x", 1, 3072)),
        (1, 3 * GIB + 1, "performance", ("performance-1x", 1, 3328)),  # steps of 256 MB
        (1, 9 * GIB, "performance", ("performance-2x", 2, 9216)),  # 8 GB for each CPU at most
        (1, 0, "shared", ("shared-cpu-1x", 1, 256)),
        (1, 3 * GIB, "shared", ("shared-cpu-2x", 2, 3072)),
    ],
)
def test_the_smallest_that_holds_it(cpus: float, memory: int, kind: str, expected: tuple[str, int, int]) -> None:
    (guest,) = choose(shape(cpus, memory), (), kind)
    assert (guest.size, guest.cpus, guest.memory_mb) == expected
    assert guest.cpu_kind == kind


def test_named_sizes_in_their_order_those_that_hold_it() -> None:
    sizes = ["shared-cpu-1x", "performance-8x", "performance-2x"]
    assert [guest.size for guest in choose(shape(2), sizes, "shared")] == ["performance-8x", "performance-2x"]
    assert choose(shape(17), (), "performance") == []
    assert choose(shape(1, 129 * GIB), (), "performance") == []


@given(st.sampled_from(sorted(SIZES)), st.floats(0, 20), st.integers(0, 200 * GIB))
def test_a_guest_holds_its_shape_and_keeps_to_the_rules_of_memory(size: str, cpus: float, memory: int) -> None:
    guest = fit(size, shape(cpus, memory))
    if guest is None:
        return
    least, most = {"shared": (256, 2048), "performance": (2048, 8192)}[guest.cpu_kind]
    assert guest.memory_mb % 256 == 0
    assert least * guest.cpus <= guest.memory_mb <= most * guest.cpus
    assert guest.memory_mb * MIB >= memory
    assert guest.cpus * UNIT >= round(cpus * UNIT)


def test_what_the_api_takes() -> None:
    assert Guest("performance-1x", "performance", 1, 2048).to_json() == {
        "cpu_kind": "performance",
        "cpus": 1,
        "memory_mb": 2048,
    }


def test_who_cannot_be_suspended() -> None:
    """REFERENCE 1.7, first row."""
    assert suspend_obstacle(2048) == ""
    assert "2048 MB" in suspend_obstacle(2304)
    assert "swap" in suspend_obstacle(256, swap_mb=512)
    assert "schedule" in suspend_obstacle(256, has_schedule=True)
    assert "GPU" in suspend_obstacle(256, gpus=1)
