"""Placement groups, labels and strategies on a cluster of small machines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import runner
from runner.errors import BadOptionsError, OutOfMemoryError, PlacementGroupRemovedError, UnschedulableError
from runner.util import (
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from runner.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy
from tests.integration.helpers import wait_until

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    pools = [
        runner.Pool("plain", min=2, num_cpus=2, num_gpus=0, memory="2GiB"),
        runner.Pool("fast", min=1, num_cpus=1, num_gpus=0, labels={"disk": "fast"}, resources={"slot": 1}),
    ]
    with runner.init(machines=pools, log_to_driver=False):
        wait_until(lambda: runner.cluster_resources().get("CPU") == 5, 30, "all machines are there")
        yield


def where() -> str:
    return runner.get_runtime_context().machine_id


def pool_of(machine_id: str) -> str:
    return next(node.pool for node in runner.nodes() if node.machine_id == machine_id)


def on(group: Any, index: int = -1, **more: Any) -> PlacementGroupSchedulingStrategy:
    return PlacementGroupSchedulingStrategy(group, index, **more)


def test_a_group_stands_and_its_tasks_run_in_it() -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 1}], strategy="STRICT_SPREAD", name="pair")
    assert runner.get(group.ready(), timeout=20) == group
    assert group.wait(10)
    row = placement_group_table(group)
    assert (row["state"], row["strategy"], row["attempt"], row["name"]) == ("CREATED", "STRICT_SPREAD", 1, "pair")
    assert get_placement_group("pair").bundle_specs == group.bundle_specs == [{"CPU": 1}, {"CPU": 1}]
    f = runner.remote(where)
    went = [runner.get(f.options(scheduling_strategy=on(group, index)).remote(), timeout=20) for index in (0, 1)]
    assert went == [row["bundles_to_node_id"][index] for index in (0, 1)]
    remove_placement_group(group)
    wait_until(lambda: placement_group_table(group)["state"] == "REMOVED", 10, "the group is removed")
    with pytest.raises(PlacementGroupRemovedError, match="was removed"):
        runner.get(f.options(scheduling_strategy=on(group)).remote(), timeout=20)


def test_children_go_to_the_group_when_it_captures_them() -> None:
    group = placement_group([{"CPU": 1}])

    @runner.remote(num_cpus=0)
    def child() -> str | None:
        mine = get_current_placement_group()
        return None if mine is None else str(mine.id)

    @runner.remote(num_cpus=1)
    def parent() -> list[str | None]:
        return [str(get_current_placement_group().id), runner.get(child.remote())]

    captured = parent.options(scheduling_strategy=on(group, placement_group_capture_child_tasks=True)).remote()
    plain = parent.options(scheduling_strategy=on(group)).remote()
    assert runner.get(captured, timeout=30) == [str(group.id)] * 2
    assert runner.get(plain, timeout=30) == [str(group.id), None]
    assert get_current_placement_group() is None
    remove_placement_group(group)


def test_removal_kills_what_runs_in_the_group() -> None:
    group = placement_group([{"CPU": 1}])

    @runner.remote
    def forever() -> None:
        time.sleep(600)

    class Counter:
        def value(self) -> int:
            return 7

    ref = forever.options(scheduling_strategy=on(group)).remote()
    wait_until(lambda: runner.available_resources()["CPU"] <= 4, 10, "the bundle stands")
    remove_placement_group(group)
    with pytest.raises(PlacementGroupRemovedError):
        runner.get(ref, timeout=20)
    second = placement_group([{"CPU": 1}])
    actor = runner.remote(num_cpus=1)(Counter).options(scheduling_strategy=on(second)).remote()
    assert runner.get(actor.value.remote(), timeout=20) == 7
    remove_placement_group(second)

    def is_dead() -> bool:
        try:
            runner.get(actor.value.remote(), timeout=20)
        except runner.exceptions.RayActorError as error:
            return "placement group" in str(error)
        return False

    wait_until(is_dead, 20, "the actor ends with its group")
    wait_until(lambda: runner.available_resources()["CPU"] == 5, 10, "all is given back")


def test_what_can_never_be_says_so_within_a_second() -> None:
    f = runner.remote(where)
    begun = time.monotonic()
    for ref in (
        placement_group([{"CPU": 2}] * 3, strategy="STRICT_SPREAD").ready(),
        placement_group([{"CPU": 2}, {"CPU": 1}], strategy="STRICT_PACK").ready(),
        f.options(label_selector={"disk": "slow"}).remote(),
        f.options(num_cpus=64).remote(),
        f.options(memory=1 << 50).remote(),
        f.options(scheduling_strategy=NodeAffinitySchedulingStrategy("m-99", soft=False)).remote(),
    ):
        with pytest.raises(UnschedulableError, match="can ever hold|can never hold|not there"):
            runner.get(ref, timeout=20)
    assert time.monotonic() - begun < 6.0


def test_labels_strategies_and_named_machines() -> None:
    f = runner.remote(where)
    fast = runner.get(f.options(label_selector={"disk": "in(fast,local)"}).remote(), timeout=20)
    assert pool_of(fast) == "fast"
    other = runner.get(f.options(label_selector={"runner.io/pool": "!fast"}).remote(), timeout=20)
    assert pool_of(other) == "plain"
    named = f.options(scheduling_strategy=NodeAffinitySchedulingStrategy(fast, soft=False)).remote()
    assert runner.get(named, timeout=20) == fast
    assert runner.get(f.options(resources={"slot": 1}).remote(), timeout=20) == fast
    node = next(node for node in runner.nodes() if node.machine_id == fast)
    assert node.labels == {"disk": "fast", "runner.io/pool": "fast"}
    spread = [f.options(scheduling_strategy="SPREAD", num_cpus=0).remote() for _ in range(3)]
    assert len(runner.get(spread, timeout=20)) == 3


@pytest.mark.parametrize(
    ("bundles", "more"),
    [
        ([], {}),
        ([{}], {}),
        ([{"CPU": 0}], {}),
        ([{"CPU": -1}], {}),
        ([{"GPU": 1.5}], {}),
        ("CPU", {}),
        ([{"CPU": 1}], {"strategy": "LOOSE"}),
        ([{"CPU": 1}], {"lifetime": "detached"}),
        ([{"CPU": 1}], {"lifetime": "long"}),
        ([{"CPU": 1}], {"deadline_s": 0}),
    ],
)
def test_groups_that_cannot_be(bundles: Any, more: dict[str, Any]) -> None:
    with pytest.raises(BadOptionsError):
        placement_group(bundles, **more)


def test_too_much_memory_ends_the_task_and_names_who_had_it() -> None:
    @runner.remote(memory=120 << 20, max_retries=0)
    def hog() -> int:
        held = bytearray(400 << 20)
        time.sleep(60)
        return len(held)

    with pytest.raises(
        OutOfMemoryError,
        match=r"hog.*more than its memory=.*top memory users: pid \d+ task t-.*hog.* attempt 1 \d+ MiB",
    ):
        runner.get(hog.remote(), timeout=30)


def test_memory_grows_until_it_is_enough() -> None:
    @runner.remote(memory=150 << 20, on_oom="grow", max_retries=2)
    def grows() -> int:
        held = bytearray(400 << 20)
        time.sleep(0.6)  # the agent looks a few times a second
        return len(held)

    assert runner.get(grows.remote(), timeout=40) == 400 << 20
