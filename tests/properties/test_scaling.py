"""The plan of a fleet's size: never above its maximum, monotone in demand, and at rest once it is carried out."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from runner.core.scaling import Plan, PoolLoad, capacity_for, plan
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
    asleep = draw(st.integers(0, most - ready - coming - going))
    dozing = draw(st.integers(0, most - ready - coming - going - asleep))
    idle = draw(st.integers(0, ready))
    buffer = draw(st.integers(0, 3))
    load = PoolLoad(draw(SHAPES), least, most, buffer, draw(st.booleans()), coming, ready, idle, going)
    return load._replace(asleep=asleep, dozing=dozing, suspends=draw(st.booleans()))


def carried_out(pool: PoolLoad, wanted: Plan) -> PoolLoad:
    """What was asked for, and what was woken, is coming."""
    return pool._replace(coming=pool.coming + wanted.grow + wanted.wake, asleep=pool.asleep - wanted.wake)


def shrunk(pool: PoolLoad, wanted: Plan) -> PoolLoad:
    """The spares are on their way out, or asleep."""
    rest = pool._replace(ready=pool.ready - wanted.spare, idle=pool.idle - wanted.spare)
    return (
        rest._replace(dozing=rest.dozing + wanted.spare)
        if pool.suspends
        else rest._replace(going=rest.going + wanted.spare)
    )


POOLS = st.lists(loads(), min_size=1, max_size=3)


@given(POOLS, DEMANDS)
def test_never_above_the_maximum_and_never_both_ways(pools, demand):
    for pool, wanted in zip(pools, plan(pools, demand), strict=True):
        there = pool.ready + pool.coming + pool.asleep + pool.dozing
        assert there + pool.going + wanted.grow <= pool.max
        assert 0 <= wanted.wake <= pool.asleep
        assert wanted.spare <= pool.idle
        assert wanted.grow >= 0
        if not pool.suspends:
            assert there - wanted.spare >= min(pool.min, there)
        buffer = pool.buffer if (wanted.grow or wanted.wake) and not pool.min else 0
        assert not ((wanted.grow or wanted.wake) and wanted.spare > 0 and pool.idle - wanted.spare < buffer)


@given(POOLS, DEMANDS, SHAPES, st.integers(1, 20))
def test_more_demand_never_means_fewer_machines(pools, demand, shape, more):
    before = plan(pools, demand)
    after = plan(pools, {**demand, shape: demand.get(shape, 0) + more})
    for less, greater in zip(before, after, strict=True):
        assert greater.grow >= less.grow
        assert greater.wake >= less.wake
        assert greater.spare <= less.spare


@given(POOLS, DEMANDS)
def test_once_carried_out_nothing_more_is_wanted(pools, demand):
    """What was asked for is coming: under the same demand the same plan asks for nothing, and gives nothing back."""
    wanted = plan(pools, demand)
    asked = [carried_out(pool, each) for pool, each in zip(pools, wanted, strict=True)]
    again = plan(asked, demand)
    assert [each.grow + each.wake for each in again] == [0] * len(pools)
    # The plan never takes for spare what it has just asked for.
    fewer = [shrunk(pool, each) for pool, each in zip(asked, again, strict=True)]
    assert [each.grow + each.wake for each in plan(fewer, demand)] == [0] * len(pools)


@given(POOLS, DEMANDS)
def test_machines_that_have_arrived_are_not_given_back_while_their_work_waits(pools, demand):
    """The machines come, take their work, and neither more nor fewer are wanted."""
    wanted = plan(pools, demand)
    arrived = [
        pool._replace(
            ready=pool.ready + carried_out(pool, each).coming, coming=0, idle=0, asleep=pool.asleep - each.wake
        )
        for pool, each in zip(pools, wanted, strict=True)
    ]
    for pool, each in zip(arrived, plan(arrived, {}), strict=True):
        assert each.spare == 0, "busy machines are no spares"
        assert each.grow + each.wake <= max(pool.buffer, pool.min - pool.ready, 0)


@given(loads(), SHAPES, st.integers(1, 50))
def test_growth_is_enough_for_one_shape_and_not_a_machine_too_many(pool, shape, count):
    fits = capacity_for(pool, shape)
    pool = pool._replace(min=0, buffer=0)
    [wanted] = plan([pool], {shape: count})
    room = pool.max - pool.ready - pool.coming - pool.dozing - pool.going
    needed = -(-count // fits) - pool.coming if fits else 0
    assert wanted.grow + wanted.wake == min(max(0, needed), room)
    assert not wanted.grow or wanted.wake == pool.asleep, "sleepers come first"


@given(POOLS)
def test_without_demand_it_only_keeps_its_minimum(pools):
    quiet = [pool._replace(idle=pool.ready) for pool in pools]
    for pool, wanted in zip(quiet, plan(quiet, {}), strict=True):
        there = pool.ready + pool.coming + pool.asleep + pool.dozing
        assert wanted.grow == min(max(0, pool.min - there), pool.max - there - pool.going)
        assert wanted.wake == 0
        assert wanted.spare == (pool.idle if pool.suspends else max(0, min(pool.idle, there - pool.min)))
