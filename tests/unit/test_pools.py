"""What a pool may be."""

from __future__ import annotations

import pytest

from runner.errors import BadOptionsError
from runner.pools import Pool, check_pools, fixed_pool


def test_what_is_not_said_follows_from_what_is():
    assert [(p.first, p.most) for p in (Pool(), Pool(min=3), Pool(start=2, max=8), Pool(max=0))] == [
        (0, 1),
        (3, 3),
        (2, 8),
        (0, 0),
    ]
    assert Pool(memory="2GiB").memory_bytes == 2 << 30
    assert Pool().memory_bytes == 0


def test_what_a_provider_decides_fills_only_gaps():
    assert Pool(num_cpus=3).with_machine(num_cpus=1, num_gpus=2) == Pool(num_cpus=3, num_gpus=2)
    assert Pool().with_machine(num_cpus=1, num_gpus=0, memory=7).memory_bytes == 7
    assert Pool(memory="1GiB").with_machine(num_cpus=1, num_gpus=0, memory=7).memory_bytes == 1 << 30


def test_a_number_of_machines_is_a_pool_that_keeps_it():
    pool = fixed_pool(4, num_cpus=2.0)
    assert (pool.min, pool.first, pool.most, pool.num_cpus) == (4, 4, 4, 2.0)


def test_a_pool_survives_its_map():
    pool = Pool(name="gpu", min=1, max=9, buffer=2, num_gpus=1, resources={"disk": 0.5}, size="big", single_use=True)
    assert Pool.from_dict(pool.to_dict()) == pool
    pool = Pool(idle="suspend", max_suspended_s=3600)
    assert Pool.from_dict(pool.to_dict()) == pool


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min": -1}, "min is -1"),
        ({"min": 2.5}, "min is 2.5"),
        ({"max": True}, "max is True"),
        ({"min": 5, "max": 4}, "min=5, start=5, max=4"),
        ({"start": 9, "max": 4}, "min <= start <= max"),
        ({"idle_shutdown_s": -1}, "idle_shutdown_s is -1"),
        ({"idle_shutdown_s": float("nan")}, "idle_shutdown_s is nan"),
        ({"name": "two words"}, "named 'two words'"),
        ({"num_cpus": -1}, "num_cpus of pool default"),
        ({"memory": "much"}, "memory of pool default"),
        ({"resources": {"CPU": 1}}, "num_cpus"),
        ({"idle": "sleep"}, "idle is 'sleep'; expected one of shutdown, suspend"),
        ({"idle": "suspend", "single_use": True}, "contradict each other"),
        ({"max_suspended_s": 0}, "max_suspended_s is 0; expected seconds > 0"),
        ({"max_suspended_s": "1h"}, "max_suspended_s is '1h'"),
        ({"max_suspended_s": float("nan")}, "max_suspended_s is nan"),
        ({"nodes": 3}, "pool settings nodes are unknown"),
    ],
)
def test_what_cannot_work_says_which_and_why(settings, said):
    with pytest.raises(BadOptionsError, match=said):
        Pool.from_dict(settings)


def test_pools_of_a_cluster_have_names_of_their_own():
    with pytest.raises(BadOptionsError, match="no pool"):
        check_pools(())
    with pytest.raises(BadOptionsError, match="named a;"):
        check_pools((Pool(name="a"), Pool(name="b"), Pool(name="a")))
    for machines in (-1, 1.5, True, "3"):
        with pytest.raises(BadOptionsError, match="expected a whole number"):
            fixed_pool(machines)
