"""Random bundles and machines: what is placed fits and follows the strategy, and strict ones are placed whenever they can be."""

from __future__ import annotations

from itertools import product

import hypothesis.strategies as st
from hypothesis import given

from runner.core.gangs import STRATEGIES, Room, plan
from runner.core.resources import Resources
from runner.core.values import CPU, GPU, UNIT, Shape, make_shape

SHAPES = [
    make_shape({CPU: UNIT}),
    make_shape({CPU: 2 * UNIT}),
    make_shape({CPU: UNIT, GPU: UNIT}),
    make_shape({GPU: UNIT // 2}),
    make_shape({CPU: UNIT, GPU: 2 * UNIT}),
]
MACHINES = [make_shape({CPU: n * UNIT, GPU: gpus * UNIT}) for n in (1, 2, 4) for gpus in (0, 1, 2)]
bundles = st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4)
machines = st.lists(st.sampled_from(MACHINES), max_size=4)


def rooms_of(shapes: list[Shape]) -> list[Room[int]]:
    return [Room(index, index, Resources(shape)) for index, shape in enumerate(shapes)]


def fits(wanted: list[Shape], shapes: list[Shape], places: tuple[int, ...]) -> bool:
    """Whether the bundles fit there, one after the other, the large ones first."""
    free = [Resources(shape) for shape in shapes]
    for shape, place in sorted(zip(wanted, places, strict=True), key=lambda each: each[0], reverse=True):
        if not free[place].fits(shape):
            return False
        free[place].take(shape, free[place].pick_gpus(dict(shape).get(GPU, 0)))
    return True


@given(wanted=bundles, shapes=machines, strategy=st.sampled_from(STRATEGIES))
def test_what_is_placed_fits_and_follows_the_strategy(wanted: list[Shape], shapes: list[Shape], strategy: str) -> None:
    found = plan(strategy, list(enumerate(wanted)), rooms_of(shapes))
    assert bool(found.places) != bool(found.lacking), "all or nothing"
    if not found.places:
        return
    assert sorted(index for index, _, _ in found.places) == list(range(len(wanted)))
    free = [Resources(shape) for shape in shapes]
    for index, place, gpu_ids in found.places:
        free[place].take(wanted[index], gpu_ids)
    for each in free:
        assert min([0, *each.free.values(), *each.gpu_free]) == 0, "overcommitted"
    used = [place for _, place, _ in found.places]
    if strategy == "STRICT_SPREAD":
        assert len(set(used)) == len(used)
    elif strategy == "STRICT_PACK":
        assert len(set(used)) == 1
    elif strategy == "SPREAD" and fits_apart(wanted, shapes):
        assert len(set(used)) > 1 or len(wanted) == 1 or len(shapes) == 1


def fits_apart(wanted: list[Shape], shapes: list[Shape]) -> bool:
    every = product(range(len(shapes)), repeat=len(wanted))
    return any(len(set(places)) == len(places) and fits(wanted, shapes, places) for places in every)


@given(wanted=bundles, shapes=machines)
def test_each_on_its_own_machine_whenever_that_can_be(wanted: list[Shape], shapes: list[Shape]) -> None:
    found = plan("STRICT_SPREAD", list(enumerate(wanted)), rooms_of(shapes))
    assert bool(found.places) == fits_apart(wanted, shapes)


@given(wanted=bundles, shapes=machines, strategy=st.sampled_from(["PACK", "STRICT_PACK"]))
def test_all_on_one_machine_whenever_that_can_be(wanted: list[Shape], shapes: list[Shape], strategy: str) -> None:
    found = plan(strategy, list(enumerate(wanted)), rooms_of(shapes))
    if any(fits(wanted, shapes, (place,) * len(wanted)) for place in range(len(shapes))):
        assert len({place for _, place, _ in found.places}) == 1
    elif strategy == "STRICT_PACK":
        assert not found.places
