"""What tasks and actors take of a machine, and give back."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Gate, Signals, Tally
from tests.integration.helpers import let_stay, wait_until

CLUSTER = {"num_cpus": 4, "resources": {"special": 2}}


@system.remote
def hold(running: Tally, gate: Gate) -> int:
    count = running.add()
    gate.wait()
    return count


@system.remote
def assigned() -> dict[str, float]:
    return dict(system.get_runtime_context().get_assigned_resources())


class Holder:
    def ready(self) -> bool:
        return True

    def assigned(self) -> dict[str, float]:
        return dict(system.get_runtime_context().get_assigned_resources())

    def visible_gpus(self) -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")


def free(name: str) -> float:
    return float(system.available_resources().get(name, 0.0))


def at_most(signals: Signals, limit: int, calls: int, **options: Any) -> None:
    """Assert that of so many calls with these options `limit` run at once."""
    running, gate = signals.tally("running"), signals.gate("go")
    refs = [hold.options(**options).remote(running, gate) for _ in range(calls)]
    wait_until(lambda: running.count() == limit, 20, f"{limit} running")
    let_stay(lambda: running.count() == limit, 0.2, f"no more than {limit}")
    gate.open()
    assert sorted(system.get(refs)) == list(range(1, calls + 1))


def test_cpus_bound_what_runs_at_once(signals: Signals) -> None:
    at_most(signals, 2, 4, num_cpus=2)


def test_fractions_of_cpus_add_up(signals: Signals) -> None:
    at_most(signals, 8, 9, num_cpus=0.5)


def test_custom_resources_bound_what_runs_at_once(signals: Signals) -> None:
    at_most(signals, 2, 3, num_cpus=0, resources={"special": 1})


def test_fractions_of_custom_resources_add_up(signals: Signals) -> None:
    at_most(signals, 4, 5, num_cpus=0, resources={"special": 0.5})


def test_cluster_resources_say_what_there_is() -> None:
    total = system.cluster_resources()
    assert total["CPU"] == 4
    assert total["special"] == 2


def test_available_resources_are_what_is_not_held(signals: Signals) -> None:
    running, gate = signals.tally("running"), signals.gate("go")
    wait_until(lambda: free("CPU") == 4 and free("special") == 2, 20, "an idle cluster")
    ref = hold.options(num_cpus=1.5, resources={"special": 1}).remote(running, gate)
    wait_until(lambda: free("CPU") == 2.5 and free("special") == 1, 20, "what is held")
    gate.open()
    system.get(ref)
    wait_until(lambda: free("CPU") == 4 and free("special") == 2, 20, "all of it again")


def test_a_crashed_task_gives_back_what_it_held() -> None:
    @system.remote(num_cpus=4, max_retries=0)
    def crash() -> None:
        os._exit(1)

    with pytest.raises(system.WorkerCrashedError):
        system.get(crash.remote())
    wait_until(lambda: free("CPU") == 4, 20, "all CPUs")


def test_tasks_know_what_they_were_given() -> None:
    given = system.get(assigned.options(num_cpus=2, resources={"special": 1}).remote())
    assert (given["CPU"], given["special"]) == (2, 1)


def test_a_task_takes_one_cpu_by_default() -> None:
    assert system.get(assigned.remote())["CPU"] == 1


def test_amounts_finer_than_a_ten_thousandth_are_refused() -> None:
    with pytest.raises(ValueError):
        system.get(assigned.options(num_cpus=0, resources={"special": 0.00001}).remote())


def test_memory_is_a_resource() -> None:
    given = system.get(assigned.options(memory=10_000_000).remote())
    assert given["memory"] == 10_000_000


def test_a_task_that_waits_for_another_gives_back_its_cpus(signals: Signals) -> None:
    gate, started = signals.gate("go"), signals.gate("started")

    @system.remote(num_cpus=0)
    def slow() -> int:
        gate.wait()
        return 1

    @system.remote(num_cpus=4)
    def outer(refs: list[Any]) -> int:
        started.open()
        return int(system.get(refs[0]))

    ref = outer.remote([slow.remote()])
    started.wait()
    assert system.get(assigned.options(num_cpus=4).remote(), timeout=20)["CPU"] == 4
    gate.open()
    assert system.get(ref, timeout=20) == 1


# ---- actors ----
def test_actors_take_no_cpu_by_default() -> None:
    actors = [system.remote(Holder).remote() for _ in range(6)]
    assert system.get([actor.ready.remote() for actor in actors], timeout=30) == [True] * 6


def test_actors_hold_what_they_ask_for_until_they_end() -> None:
    wait_until(lambda: free("CPU") == 4 and free("special") == 2, 20, "an idle cluster")
    actor = system.remote(num_cpus=2, resources={"special": 2})(Holder).remote()
    system.get(actor.ready.remote())
    wait_until(lambda: free("CPU") == 2 and free("special") == 0, 20, "what the actor holds")
    system.kill(actor)
    wait_until(lambda: free("CPU") == 4 and free("special") == 2, 20, "all of it again")


def test_an_actor_waits_for_room() -> None:
    first = system.remote(num_cpus=0, resources={"special": 2})(Holder).remote()
    system.get(first.ready.remote())
    second = system.remote(num_cpus=0, resources={"special": 1})(Holder).remote()
    ready = second.ready.remote()
    assert system.wait([ready], timeout=0.2)[0] == []
    system.kill(first)
    assert system.get(ready, timeout=20) is True


def test_options_of_an_actor_lie_over_those_of_its_class() -> None:
    actor = system.remote(num_cpus=1)(Holder).options(num_cpus=3).remote()
    assert system.get(actor.assigned.remote())["CPU"] == 3


# ---- GPUs, where there are none ----
def test_a_task_without_gpus_sees_none() -> None:
    @system.remote(num_gpus=0)
    def look() -> tuple[str | None, Any]:
        context = system.get_runtime_context()
        return os.environ.get("CUDA_VISIBLE_DEVICES"), context.get_accelerator_ids()["GPU"]

    visible, ids = system.get(look.remote())
    assert not visible
    assert ids == []


def test_fractions_of_gpus_above_one_are_refused() -> None:
    with pytest.raises(ValueError):
        system.get(assigned.options(num_gpus=1.5).remote(), timeout=20)


# ---- what can never run ----
def test_a_task_that_fits_nowhere_fails_at_once() -> None:
    with pytest.raises(system.UnschedulableError):
        system.get(assigned.options(num_cpus=1000).remote(), timeout=10)


def test_a_resource_that_nobody_has_fails_at_once() -> None:
    with pytest.raises(system.UnschedulableError, match="unheard_of"):
        system.get(assigned.options(resources={"unheard_of": 1}).remote(), timeout=10)


def test_an_actor_that_fits_nowhere_fails_at_once() -> None:
    actor = system.remote(num_cpus=1000)(Holder).remote()
    with pytest.raises((system.UnschedulableError, system.ActorError)):
        system.get(actor.ready.remote(), timeout=10)
