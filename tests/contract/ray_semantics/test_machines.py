"""Several machines: labels, named machines, spreading, placement groups."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Gate, Signals, Tally
from tests.integration.helpers import wait_until

CLUSTER = {"num_cpus": 2, "machines": 2, "labels": ({"zone": "a"}, {"zone": "b"})}
NO_MACHINE = "a1" * 28


@system.remote
def where() -> str:
    return str(system.get_runtime_context().get_node_id())


@system.remote
def hold(running: Tally, gate: Gate) -> str:
    running.add()
    gate.wait()
    return str(system.get_runtime_context().get_node_id())


class Placed:
    def where(self) -> str:
        return str(system.get_runtime_context().get_node_id())

    def pid(self) -> int:
        return os.getpid()


def places(group: Any, bundles: int) -> list[str]:
    """The machine of each bundle, as tasks in them see it."""
    return [
        str(system.get(where.options(**system.in_group(group, index)).remote(), timeout=20)) for index in range(bundles)
    ]


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Any:
    """Makes placement groups that are ready, and removes them in the end."""
    made: list[Any] = []

    def make(bundles: list[dict[str, float]], strategy: str = "PACK", **options: Any) -> Any:
        # Groups of tests before this one may still be on their way out.
        made.append(system.placement_group(bundles, strategy=strategy, **options))
        assert made[-1].wait(20), f"{strategy} {bundles} was not ready within 20 s"
        return made[-1]

    yield make
    for each in made:
        system.remove_placement_group(each)


# ---- machines ----
def test_there_are_two_machines() -> None:
    assert len(set(system.machine_ids())) == 2
    assert system.cluster_resources()["CPU"] == 4


def test_tasks_use_all_machines(signals: Signals) -> None:
    running, gate = signals.tally("running"), signals.gate("go")
    refs = [hold.remote(running, gate) for _ in range(4)]
    wait_until(lambda: running.count() == 4, 20, "four running tasks")
    gate.open()
    assert set(system.get(refs)) == set(system.machine_ids())


def test_a_task_can_name_its_machine() -> None:
    for machine_id in system.machine_ids():
        refs = [where.options(**system.on_machine(machine_id)).remote() for _ in range(3)]
        assert set(system.get(refs)) == {machine_id}


def test_an_actor_can_name_its_machine() -> None:
    for machine_id in system.machine_ids():
        actor = system.remote(Placed).options(**system.on_machine(machine_id)).remote()
        assert system.get(actor.where.remote()) == machine_id


def test_a_machine_that_is_gone_fails_those_that_must_be_there() -> None:
    with pytest.raises(system.UnschedulableError):
        system.get(where.options(**system.on_machine(NO_MACHINE)).remote(), timeout=20)


def test_a_machine_that_is_gone_is_replaced_for_those_that_only_should_be_there() -> None:
    ref = where.options(**system.on_machine(NO_MACHINE, soft=True)).remote()
    assert system.get(ref, timeout=20) in system.machine_ids()


def test_tasks_can_be_spread(signals: Signals) -> None:
    wait_until(lambda: system.available_resources().get("CPU", 0) == 4, 20, "an idle cluster")
    running, gate = signals.tally("running"), signals.gate("go")
    refs = [hold.options(scheduling_strategy="SPREAD").remote(running, gate) for _ in range(2)]
    wait_until(lambda: running.count() == 2, 20, "two running tasks")
    gate.open()
    assert len(set(system.get(refs))) == 2


def test_values_go_from_machine_to_machine() -> None:
    first, second = system.machine_ids()

    @system.remote
    def make() -> bytes:
        return bytes(2_000_000)

    @system.remote
    def size(data: bytes) -> int:
        return len(data)

    made = make.options(**system.on_machine(first)).remote()
    assert system.get(size.options(**system.on_machine(second)).remote(made)) == 2_000_000
    assert len(system.get(made)) == 2_000_000


def test_actors_can_be_called_from_another_machine() -> None:
    first, second = system.machine_ids()
    actor = system.remote(Placed).options(**system.on_machine(first)).remote()

    @system.remote
    def ask(handle: Any) -> Any:
        return system.get(handle.where.remote())

    assert system.get(ask.options(**system.on_machine(second)).remote(actor)) == first


# ---- labels ----
def label_places(selector: dict[str, str]) -> set[str]:
    return set(system.get([where.options(label_selector=selector).remote() for _ in range(4)], timeout=20))


def test_labels_choose_machines() -> None:
    in_a, in_b = label_places({"zone": "a"}), label_places({"zone": "b"})
    assert len(in_a) == len(in_b) == 1
    assert in_a | in_b == set(system.machine_ids())


def test_labels_can_be_excluded_and_listed() -> None:
    assert label_places({"zone": "!a"}) == label_places({"zone": "b"})
    assert label_places({"zone": "in(b,c)"}) == label_places({"zone": "b"})
    assert label_places({"zone": "!in(b,c)"}) == label_places({"zone": "a"})


def test_labels_choose_machines_for_actors() -> None:
    actor = system.remote(Placed).options(label_selector={"zone": "b"}).remote()
    assert {system.get(actor.where.remote())} == label_places({"zone": "b"})


# ---- placement groups ----
def test_strict_spread_uses_different_machines(group: Any) -> None:
    assert set(places(group([{"CPU": 1}, {"CPU": 1}], "STRICT_SPREAD"), 2)) == set(system.machine_ids())


def test_spread_uses_different_machines_where_it_can(group: Any) -> None:
    assert len(set(places(group([{"CPU": 1}, {"CPU": 1}], "SPREAD"), 2))) == 2


def test_strict_pack_uses_one_machine(group: Any) -> None:
    assert len(set(places(group([{"CPU": 1}, {"CPU": 1}], "STRICT_PACK"), 2))) == 1


def test_pack_uses_one_machine_where_it_can(group: Any) -> None:
    assert len(set(places(group([{"CPU": 1}, {"CPU": 1}], "PACK"), 2))) == 1


def test_pack_uses_more_machines_where_it_must(group: Any) -> None:
    assert len(set(places(group([{"CPU": 2}, {"CPU": 2}], "PACK"), 2))) == 2


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match="SCATTER"):
        system.placement_group([{"CPU": 1}], strategy="SCATTER")


@pytest.mark.parametrize("bundles", [[], [{}], [{"CPU": 0}]], ids=str)
def test_bundles_that_hold_nothing_are_refused(bundles: Any) -> None:
    with pytest.raises(ValueError):
        system.placement_group(bundles)


def test_a_group_holds_its_resources_until_it_is_removed(group: Any) -> None:
    wait_until(lambda: system.available_resources().get("CPU", 0) == 4, 20, "an idle cluster")
    made = group([{"CPU": 1}, {"CPU": 2}])
    wait_until(lambda: system.available_resources().get("CPU", 0) == 1, 20, "what the group holds")
    system.remove_placement_group(made)
    wait_until(lambda: system.available_resources().get("CPU", 0) == 4, 20, "all CPUs again")


def test_a_group_is_made_whole_or_not_at_all(group: Any) -> None:
    first = group([{"CPU": 2}, {"CPU": 1}])
    second = system.placement_group([{"CPU": 1}, {"CPU": 1}])
    assert not second.wait(0.3)
    # What the second one waits for is free for others.
    assert system.get(where.remote(), timeout=20) in system.machine_ids()
    system.remove_placement_group(first)
    assert second.wait(20)
    system.remove_placement_group(second)


def test_ready_is_a_ref(group: Any) -> None:
    made = group([{"CPU": 1}])
    system.get(made.ready(), timeout=20)


def test_tasks_outside_the_group_cannot_use_it(group: Any) -> None:
    made = group([{"CPU": 2}, {"CPU": 2}])
    outside = where.remote()
    assert system.wait([outside], timeout=0.3)[0] == []
    assert places(made, 2)
    system.remove_placement_group(made)
    assert system.get(outside, timeout=20) in system.machine_ids()


def test_a_bundle_bounds_its_tasks(group: Any, signals: Signals) -> None:
    made = group([{"CPU": 1}, {"CPU": 1}], "STRICT_SPREAD")
    gate = signals.gate("go")
    running = signals.tally("running")
    first = hold.options(**system.in_group(made, 0)).remote(running, gate)
    wait_until(lambda: running.count() == 1, 20, "the first task")
    second = where.options(**system.in_group(made, 0)).remote()
    assert system.wait([second], timeout=0.3)[0] == []
    gate.open()
    assert system.get(first) == system.get(second)


def test_a_task_that_names_no_bundle_takes_any(group: Any, signals: Signals) -> None:
    made = group([{"CPU": 1}, {"CPU": 1}], "STRICT_SPREAD")
    gate = signals.gate("go")
    running = signals.tally("running")
    refs = [hold.options(**system.in_group(made)).remote(running, gate) for _ in range(2)]
    wait_until(lambda: running.count() == 2, 20, "both tasks")
    gate.open()
    assert len(set(system.get(refs))) == 2


def test_a_bundle_that_does_not_exist_is_refused(group: Any) -> None:
    made = group([{"CPU": 1}])
    with pytest.raises(ValueError):
        system.get(where.options(**system.in_group(made, 5)).remote(), timeout=20)


def test_actors_live_in_bundles_and_end_with_them(group: Any) -> None:
    made = group([{"CPU": 1}])
    actor = system.remote(Placed).options(num_cpus=1, **system.in_group(made, 0)).remote()
    assert system.get(actor.where.remote(), timeout=20) in system.machine_ids()
    system.remove_placement_group(made)
    with pytest.raises(system.ActorError):
        for _ in range(1000):
            system.get(actor.pid.remote(), timeout=20)


def test_waiting_tasks_of_a_removed_group_fail(group: Any, signals: Signals) -> None:
    made = group([{"CPU": 1}])
    gate = signals.gate("never")
    held = signals.tally("running")
    running = hold.options(max_retries=0, **system.in_group(made, 0)).remote(held, gate)
    wait_until(lambda: held.count() == 1, 20, "the task that holds the bundle")
    waiting = where.options(**system.in_group(made, 0)).remote()
    assert system.wait([waiting], timeout=0.3)[0] == []
    system.remove_placement_group(made)
    with pytest.raises(system.SystemError):
        system.get(waiting, timeout=20)
    with pytest.raises(system.SystemError):
        system.get(running, timeout=20)


def test_removing_twice_does_no_harm(group: Any) -> None:
    made = group([{"CPU": 1}])
    system.remove_placement_group(made)
    system.remove_placement_group(made)


def test_groups_travel_to_tasks(group: Any) -> None:
    made = group([{"CPU": 1}], "STRICT_PACK")

    @system.remote(num_cpus=0)
    def use(handed: Any) -> Any:
        return system.get(where.options(**system.in_group(handed, 0)).remote())

    assert system.get(use.remote(made), timeout=20) in system.machine_ids()


def test_a_group_knows_its_bundles(group: Any) -> None:
    made = group([{"CPU": 1}, {"CPU": 2}])
    assert made.bundle_count == 2
    assert [dict(each) for each in made.bundle_specs] == [{"CPU": 1}, {"CPU": 2}]
