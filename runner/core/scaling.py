"""How many machines a fleet should have: one pure function of what there is and what waits.

It never asks for more than a pool's `max`, asks for no fewer when more waits, and asks for nothing that it would give
back under the same demand (tests/properties/test_scaling.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from runner.core.resources import missing
from runner.core.values import GPU, UNIT, Labels, Shape
from runner.core.wants import Key, Want, matches, shape_of

# Tasks that need nothing countable: any number of them fits on one machine.
_UNBOUNDED = 1_000_000


class PoolLoad(NamedTuple):
    """One pool as it is now."""

    shape: Shape  # of one machine
    min: int
    max: int  # machines that may exist, as far as is known now
    buffer: int
    is_single_use: bool
    coming: int  # asked for, not ready yet
    ready: int
    idle: int  # of the ready ones
    going: int  # on their way out; they still exist
    labels: Labels = ()
    unknown_labels: tuple[str, ...] = ()
    asleep: int = 0  # suspended: they exist, count for `min`, and are back sooner than new ones
    dozing: int = 0  # on their way to sleep: they count for `min` too, but may take long, and cannot be woken yet
    suspends: bool = False  # idle ones are suspended, also below `min`


class Plan(NamedTuple):
    """For one pool: how many machines to ask for and to wake, and how many idle ones have no reason to stay."""

    grow: int
    spare: int
    wake: int = 0


def plan(pools: Sequence[PoolLoad], demand: Mapping[Key, int]) -> list[Plan]:
    """`demand`: tasks by what they need that wait for room; what is ready now has none for them.

    Each task counts as the part of a machine that it fills, so needs are a lower bound where shapes do not pack; the rest
    shows as demand once those machines are full.
    """
    used = _spread(pools, demand)
    return [_plan_one(pool, ceil(need)) for pool, need in zip(pools, used, strict=True)]


def _plan_one(pool: PoolLoad, need: int) -> Plan:
    busy = pool.ready - pool.idle
    buffer = pool.buffer if busy or need else 0
    missing_spares = max(0, buffer - pool.idle)
    there = pool.ready + pool.coming + pool.asleep + pool.dozing
    wanted = max(need + missing_spares - pool.coming, 0)
    wake = min(wanted, pool.asleep)
    room = max(0, pool.max - there - pool.going)
    grow = min(max(wanted - wake, pool.min - there), room)
    spare = pool.idle - buffer
    if not pool.suspends:
        spare = min(spare, there - pool.min)
    return Plan(max(0, grow), max(0, spare), wake)


def _spread(pools: Sequence[PoolLoad], demand: Mapping[Key, int]) -> list[Fraction]:
    """How many machines of each pool, beyond those that are ready, the waiting tasks would fill."""
    used = [Fraction(0)] * len(pools)
    rooms = [Fraction(max(0, pool.max - pool.ready - pool.dozing - pool.going)) for pool in pools]
    # The order must not depend on the numbers: else more of one shape could mean fewer machines.
    for key in sorted(demand, key=repr):
        if used == rooms:
            break  # nothing more can be had, whatever else waits
        left = Fraction(demand[key])
        for index in _preference(pools, key):
            per_machine = capacity_for(pools[index], key)
            taken = min(left / per_machine, rooms[index] - used[index])
            used[index] += taken
            left -= taken * per_machine
            if not left:
                break
    return used


def _preference(pools: Sequence[PoolLoad], key: Key) -> list[int]:
    """The pools that can hold it: those without GPUs and other scarce things first, then in the order given."""
    able = [index for index, pool in enumerate(pools) if capacity_for(pool, key)]
    asked = {name for name, _ in shape_of(key)}
    return sorted(able, key=lambda index: (_scarce(pools[index].shape, asked), index))


def _scarce(total: Shape, asked: set[str]) -> int:
    return sum(2 if name == GPU else 1 for name, _ in total if name not in asked and name not in {"CPU", "memory"})


def capacity_for(pool: PoolLoad, key: Key) -> int:
    """How many such tasks one machine of the pool holds at once; 0: it never can."""
    total, shape = dict(pool.shape), shape_of(key)
    if missing(shape, total):
        return 0
    if isinstance(key, Want):
        if not matches(pool.labels, key.labels, pool.unknown_labels):
            return 0
        if key.is_alone:
            return 1
    if pool.is_single_use:
        return 1
    fits = _UNBOUNDED
    for name, amount in shape:
        if name == GPU and amount < UNIT:
            fits = min(fits, (total[name] // UNIT) * (UNIT // amount))
        else:
            fits = min(fits, total[name] // amount)
    return fits
