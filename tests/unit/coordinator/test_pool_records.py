"""What the core is told of a pool, and policies that are refused before anything is booted."""

from __future__ import annotations

import pytest

from runner.coordinator.pool_records import pool_record
from runner.core.values import CPU, UNIT, PoolRecord, make_shape
from runner.errors import ProviderError
from runner.pools import Pool
from runner.providers.base import Capabilities, Wanted
from runner.providers.fake import FakeProvider
from runner.testing import FakeClock
from tests.unit.coordinator.sleeping import running


def test_a_pool_as_the_core_knows_it():
    record = pool_record(Pool(name="gpu", min=1, max=4, buffer=1, idle_shutdown_s=9, num_cpus=2, memory="1GiB"))
    labels, unknown = (("runner.io/pool", "gpu"),), ("runner.io/region",)
    shape = make_shape({CPU: 2 * UNIT, "memory": 1 << 30})
    assert record == PoolRecord("gpu", shape, 1, 4, 1, 9, False, labels, unknown)
    asleep = pool_record(Pool(idle="suspend", max_suspended_s=3600))
    assert (asleep.suspends_idle, asleep.max_suspended_s) == (True, 3600)


async def test_a_policy_that_can_never_work_is_refused_before_anything_is_booted():
    clock = FakeClock()
    provider = FakeProvider(clock, obstacle="it has a GPU, whose memory is in no snapshot")
    async with running(provider, clock) as (fleet, _, _):
        await fleet.prepare([Pool("a"), Pool("b")])
        with pytest.raises(ProviderError) as caught:
            await fleet.prepare([Pool("a"), Pool("b", idle="suspend")])
    assert caught.value.is_permanent
    assert str(caught.value) == (
        "pool b cannot have idle='suspend' with provider fake: it has a GPU, whose memory is in no snapshot; "
        "leave it out, and machines without work are shut down"
    )


async def test_people_are_told_once_where_a_suspend_frees_no_memory():
    clock = FakeClock()

    class Freezing(FakeProvider):
        def capabilities(self) -> Capabilities:
            return Capabilities(suspend_kind="freeze", suspend_reason="criu is not here")

        def suspend_obstacle(self, wanted: Wanted) -> str:
            return ""

    async with running(Freezing(clock), clock) as (fleet, _, _):
        warnings = []
        for pools in ([Pool("a")], [Pool("a", idle="suspend"), Pool("b", idle="suspend"), Pool("c")]):
            await fleet.prepare(pools)
            warnings.append(fleet.warnings)
    assert warnings == [
        (),
        (
            "idle machines of pool a, b are frozen, not saved: their CPUs are free, their memory stays in use (criu is not here)",
        ),
    ]
