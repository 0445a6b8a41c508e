"""The plan of a fleet's size: never above its maximum, monotone in demand, and at rest once it is carried out."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from runner.core.scaling import PoolLoad, capacity_for, plan
from runner.core.values import CPU, GPU, MEMORY, UNIT, make_shape

_amounts = st.sampled_from([0, UNIT // 2, UNIT, 2 * UNIT, 4 * UNIT])
SHAPES = st.builds(
    lambda cpu, gpu, memory: make_shape({CPU: cpu, GPU: gpu, MEMORY: memory}),
    _amounts,
    st.sampled_from([0, 0, UNIT // 2, UNIT, 2 * UNIT]),
    st.sampled_from([0, 1 << 30, 4 << 30]),
)
DEMANDS = st.dictionaries(SHAPES, st.integers(1, 50), max_size=4)


@st.composite
def loads(draw: st.DrawFn) -> PoolLoad:
    least = draw(st.integers(0, 5))
    most = draw(st.integers(least, 20))
    ready = draw(st.integers(0, most))
    coming = draw(st.integers(0, most - ready))
    going = draw(st.integers(0, most - ready - coming))
    idle = draw(st.integers(0, ready))
    buffer = draw(st.integers(0, 3))
    return PoolLoad(draw(SHAPES), least, most, buffer, draw(st.booleans()), coming, ready, idle, going)


POOLS = st.lists(loads(), min_size=1, max_size=3)


@given(POOLS, DEMANDS)
def test_never_above_the_maximum_and_never_both_ways(pools, demand):
    for pool, wanted in zip(pools, plan(pools, demand), strict=True):
        assert pool.ready + pool.coming + pool.going + wanted.grow <= pool.max
        assert wanted.spare <= pool.idle
        assert wanted.grow >= 0
        assert pool.ready + pool.coming - wanted.spare >= min(pool.min, pool.ready + pool.coming)
        buffer = pool.buffer if wanted.grow and not pool.min else 0
        assert not (wanted.grow and wanted.spare > 0 and pool.idle - wanted.spare < buffer)


@given(POOLS, DEMANDS, SHAPES, st.integers(1, 20))
def test_more_demand_never_means_fewer_machines(pools, demand, shape, more):
    before = plan(pools, demand)
    after = plan(pools, {**demand, shape: demand.get(shape, 0) + more})
    for less, greater in zip(before, after, strict=True):
        assert greater.grow >= less.grow
        assert greater.spare <= less.spare


@given(POOLS, DEMANDS)
def test_once_carried_out_nothing_more_is_wanted(pools, demand):
    """What was asked for is coming: under the same demand the same plan asks for nothing, and gives nothing back."""
    wanted = plan(pools, demand)
    asked = [pool._replace(coming=pool.coming + each.grow) for pool, each in zip(pools, wanted, strict=True)]
    again = plan(asked, demand)
    assert [each.grow for each in again] == [0] * len(pools)
    # The plan never takes for spare what it has just asked for.
    shrunk = [
        pool._replace(ready=pool.ready - each.spare, idle=pool.idle - each.spare, going=pool.going + each.spare)
        for pool, each in zip(asked, again, strict=True)
    ]
    assert [each.grow for each in plan(shrunk, demand)] == [0] * len(pools)


@given(POOLS, DEMANDS)
def test_machines_that_have_arrived_are_not_given_back_while_their_work_waits(pools, demand):
    """The machines come, take their work, and neither more nor fewer are wanted."""
    wanted = plan(pools, demand)
    arrived = [
        pool._replace(ready=pool.ready + pool.coming + each.grow, coming=0, idle=0)
        for pool, each in zip(pools, wanted, strict=True)
    ]
    for pool, each in zip(arrived, plan(arrived, {}), strict=True):
        assert each.spare == 0, "busy machines are no spares"
        assert each.grow <= max(pool.buffer, pool.min - pool.ready, 0)


@given(loads(), SHAPES, st.integers(1, 50))
def test_growth_is_enough_for_one_shape_and_not_a_machine_too_many(pool, shape, count):
    fits = capacity_for(pool, shape)
    pool = pool._replace(min=0, buffer=0)
    [wanted] = plan([pool], {shape: count})
    room = pool.max - pool.ready - pool.coming - pool.going
    needed = -(-count // fits) - pool.coming if fits else 0
    assert wanted.grow == min(max(0, needed), room)


@given(POOLS)
def test_without_demand_it_only_keeps_its_minimum(pools):
    quiet = [pool._replace(idle=pool.ready) for pool in pools]
    for pool, wanted in zip(quiet, plan(quiet, {}), strict=True):
        staying = pool.ready + pool.coming
        assert wanted.grow == min(max(0, pool.min - staying), pool.max - staying - pool.going)
        assert wanted.spare == max(0, min(pool.idle, staying - pool.min))
