"""Actors: state, order, methods, options."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.contract.ray_semantics.actor_classes import Child, Counter, counter
from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Signals


# ---- state and order ----
def test_state_stays_between_calls() -> None:
    actor = counter(10)
    assert system.get([actor.add.remote(), actor.add.remote(5), actor.get.remote()]) == [11, 16, 16]


def test_constructors_take_keywords_and_refs() -> None:
    assert system.get(counter(system.put(3)).get.remote()) == 3
    assert system.get(system.remote(Counter).remote(start=4).get.remote()) == 4


def test_calls_of_one_caller_run_in_order() -> None:
    actor = counter()
    assert system.get([actor.add.remote() for _ in range(100)]) == list(range(1, 101))


def test_calls_run_in_order_whatever_their_arguments_wait_for(signals: Signals) -> None:
    gate = signals.gate("slow")

    @system.remote
    def slow() -> int:
        gate.wait()
        return 10

    actor = counter()
    first = actor.add.remote(slow.remote())
    second = actor.add.remote(1)
    assert system.wait([second], timeout=0.1)[0] == []
    gate.open()
    assert system.get([first, second]) == [10, 11]


def test_one_call_at_a_time(signals: Signals) -> None:
    gate = signals.gate("go")
    actor = counter()
    blocked = actor.wait.remote(gate, "first")
    later = actor.get.remote()
    assert system.wait([later], timeout=0.1)[0] == []
    gate.open()
    assert system.get([blocked, later]) == ["first", 0]


def test_two_actors_do_not_share_state() -> None:
    first, second = counter(), counter()
    system.get(first.add.remote())
    assert system.get([first.get.remote(), second.get.remote()]) == [1, 0]
    assert system.get(first.pid.remote()) != system.get(second.pid.remote())


def test_an_actor_keeps_its_process() -> None:
    actor = counter()
    assert len(set(system.get([actor.pid.remote() for _ in range(3)]))) == 1


# ---- methods ----
def test_methods_may_call_one_another() -> None:
    assert system.get(counter().add_twice.remote()) == 2


def test_static_and_class_methods_work() -> None:
    actor = counter()
    assert system.get(actor.static.remote(1)) == 2
    assert system.get(actor.of_class.remote()) == "Counter"


def test_classes_inherit() -> None:
    actor = system.remote(Child).remote(1)
    assert system.get(actor.add.remote()) == 2
    assert system.get(actor.get.remote()) == 1002


def test_methods_take_refs_as_arguments() -> None:
    actor = counter()
    assert system.get(actor.add.remote(system.put(5))) == 5
    assert system.get(actor.add.remote(by=actor.get.remote())) == 10


def test_results_are_arguments_of_tasks_and_of_other_actors() -> None:
    @system.remote
    def double(value: int) -> int:
        return 2 * value

    first, second = counter(3), counter()
    assert system.get(second.add.remote(double.remote(first.get.remote()))) == 6


def test_large_results_and_arguments_come_whole() -> None:
    class Keeper:
        def keep(self, array: Any) -> Any:
            self.array = array
            return array * 2

        def total(self) -> float:
            return float(self.array.sum())

    actor = system.remote(Keeper).remote()
    doubled = system.get(actor.keep.remote(np.ones(400_000)))
    assert doubled.sum() == 800_000
    assert not doubled.flags.writeable
    assert system.get(actor.total.remote()) == 400_000


def test_methods_may_have_several_returns() -> None:
    class Pair:
        @system.method(num_returns=2)
        def both(self) -> tuple[str, str]:
            return "a", "b"

        def one(self) -> tuple[int, int, int]:
            return 1, 2, 3

    actor = system.remote(Pair).remote()
    first, second = actor.both.remote()
    assert system.get([first, second]) == ["a", "b"]
    assert system.get(actor.one.options(num_returns=3).remote()) == [1, 2, 3]
    assert system.get(actor.one.remote()) == (1, 2, 3)


def test_a_method_cannot_be_called_directly() -> None:
    with pytest.raises(TypeError, match=r"\.remote"):
        counter().add()


def test_a_class_cannot_be_instantiated_directly() -> None:
    with pytest.raises(TypeError, match=r"\.remote"):
        system.remote(Counter)()


def test_a_method_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        counter().no_such_method.remote()


def test_a_call_that_does_not_fit_the_signature_fails_at_the_call() -> None:
    with pytest.raises(TypeError):
        counter().add.remote(1, 2, 3)


def test_a_constructor_call_that_does_not_fit_the_signature_fails_at_the_call() -> None:
    with pytest.raises(TypeError):
        system.remote(Counter).remote(1, 2, 3)


def test_methods_can_wait_for_tasks_and_put() -> None:
    @system.remote
    def one() -> int:
        return 1

    class Nesting:
        def work(self) -> Any:
            return [system.put(system.get(one.remote()) + 1)]

    (ref,) = system.get(system.remote(Nesting).remote().work.remote())
    assert system.get(ref) == 2


def test_actors_may_make_actors() -> None:
    class Parent:
        def __init__(self) -> None:
            self.child = system.remote(Counter).remote(5)

        def ask(self) -> Any:
            return system.get(self.child.add.remote())

        def handle(self) -> Any:
            return self.child

    parent = system.remote(Parent).remote()
    assert system.get(parent.ask.remote()) == 6
    child = system.get(parent.handle.remote())
    assert system.get(child.add.remote()) == 7


def test_ready_says_that_the_constructor_is_done(signals: Signals) -> None:
    gate = signals.gate("constructed")

    class Slow:
        def __init__(self) -> None:
            gate.wait()

    actor = system.remote(Slow).remote()
    ready = actor.__ray_ready__.remote()
    assert system.wait([ready], timeout=0.1)[0] == []
    gate.open()
    system.get(ready)


def test_options_of_tasks_are_refused_for_actors() -> None:
    with pytest.raises(ValueError, match="max_calls"):
        system.remote(max_calls=1)(Counter)


def test_an_unknown_option_of_an_actor_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no_such_option"):
        system.remote(Counter).options(no_such_option=1)


@pytest.mark.parametrize(
    "options",
    [
        {"max_restarts": -2},
        {"max_task_retries": -2},
        {"max_concurrency": -1},
        {"lifetime": "for ever"},
        {"get_if_exists": True},
    ],
    ids=str,
)
def test_options_of_actors_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        system.remote(Counter).options(**options).remote()


def test_options_do_not_change_the_class() -> None:
    made = system.remote(Counter)
    made.options(num_cpus=0, max_restarts=2)
    assert system.get(made.remote(2).get.remote()) == 2


async def test_results_can_be_awaited() -> None:
    actor = counter()
    assert await actor.add.remote() == 1
    with pytest.raises(ValueError):
        await actor.fail.remote()


def test_wait_works_for_calls(signals: Signals) -> None:
    gate = signals.gate("go")
    slow, quick = counter(), counter()
    blocked, done = slow.wait.remote(gate), quick.add.remote()
    assert system.wait([blocked, done], timeout=20) == ([done], [blocked])
    gate.open()
    assert system.wait([blocked], timeout=20) == ([blocked], [])


def test_get_of_a_call_times_out(signals: Signals) -> None:
    gate = signals.gate("go")
    ref = counter().wait.remote(gate, "late")
    with pytest.raises(system.GetTimeoutError):
        system.get(ref, timeout=0.05)
    gate.open()
    assert system.get(ref) == "late"
