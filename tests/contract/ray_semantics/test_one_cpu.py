"""A task that waits for others gives its CPU back: nothing deadlocks, even with one CPU."""

from __future__ import annotations

from typing import Any

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Signals
from tests.integration.helpers import wait_until

CLUSTER = {"num_cpus": 1}


@system.remote
def one() -> int:
    return 1


def test_a_task_can_get_what_another_makes() -> None:
    @system.remote
    def outer() -> int:
        return system.get(one.remote()) + 1

    assert system.get(outer.remote()) == 2


def test_a_task_can_wait_for_others() -> None:
    @system.remote
    def outer() -> int:
        ready, rest = system.wait([one.remote() for _ in range(3)], num_returns=3)
        return len(ready) - len(rest)

    assert system.get(outer.remote()) == 3


def test_tasks_can_nest_deeply() -> None:
    @system.remote
    def depth(n: int) -> int:
        return 0 if n == 0 else 1 + system.get(depth.remote(n - 1))

    assert system.get(depth.remote(4)) == 4


def test_many_tasks_can_each_wait_for_one() -> None:
    @system.remote
    def outer() -> int:
        return system.get(one.remote())

    assert system.get([outer.remote() for _ in range(3)]) == [1] * 3


def test_a_task_whose_argument_is_not_ready_holds_no_cpu(signals: Signals) -> None:
    gate = signals.gate("slow")

    @system.remote(num_cpus=0)
    def slow() -> int:
        gate.wait()
        return 5

    @system.remote
    def depends(value: int) -> int:
        return value

    waiting = depends.remote(slow.remote())
    assert system.get(one.remote()) == 1
    gate.open()
    assert system.get(waiting) == 5


def test_only_one_task_runs_at_a_time(signals: Signals) -> None:
    gate, running = signals.gate("go"), signals.tally("running")

    @system.remote
    def hold() -> int:
        count = running.add()
        gate.wait()
        return count

    refs = [hold.remote() for _ in range(2)]
    wait_until(running.count, 20, "the first task")
    assert system.wait(refs, timeout=0.3)[0] == []
    assert running.count() == 1
    gate.open()
    assert sorted(system.get(refs)) == [1, 2]


def test_tasks_without_cpus_need_none(signals: Signals) -> None:
    gate = signals.gate("go")

    @system.remote
    def hold() -> None:
        gate.wait()

    holder = hold.remote()
    assert system.get([one.options(num_cpus=0).remote() for _ in range(3)]) == [1] * 3
    gate.open()
    system.get(holder)


def test_a_blocked_task_shows_its_cpu_as_free(signals: Signals) -> None:
    gate, waits = signals.gate("go"), signals.gate("waits")

    @system.remote(num_cpus=0)
    def slow() -> int:
        gate.wait()
        return 1

    @system.remote
    def outer(refs: list[Any]) -> int:
        waits.open()
        return system.get(refs[0])

    ref = outer.remote([slow.remote()])
    waits.wait()
    wait_until(lambda: system.available_resources().get("CPU") == 1, 20, "the CPU of the blocked task")
    gate.open()
    assert system.get(ref) == 1
