"""Calls of remote functions: arguments, returns, options."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Signals


@system.remote
def add(x: Any, y: Any = 0) -> Any:
    return x + y


@system.remote
def kinds(*args: Any, **kwargs: Any) -> Any:
    """The names of the arguments' types, inside lists and dicts too."""

    def kind(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [kind(each) for each in value]
        if isinstance(value, dict):
            return {key: kind(each) for key, each in value.items()}
        return type(value).__name__

    return kind(args), kind(kwargs)


def test_a_call_returns_a_ref_at_once_and_get_its_value() -> None:
    ref = add.remote(1, 2)
    assert isinstance(ref, system.ObjectRef)
    assert system.get(ref) == 3


def test_defaults_and_keywords_work_as_in_python() -> None:
    assert system.get([add.remote(1), add.remote(1, y=2), add.remote(x=1, y=3)]) == [1, 3, 4]


def test_a_call_that_does_not_fit_the_signature_fails() -> None:
    with pytest.raises(TypeError):
        system.get(add.remote(1, 2, 3))


def test_refs_as_positional_arguments_are_their_values() -> None:
    assert system.get(add.remote(system.put(1), add.remote(2, 3))) == 6


def test_refs_as_keyword_arguments_are_their_values() -> None:
    assert system.get(add.remote(x=system.put(1), y=add.remote(2, 3))) == 6


def test_refs_inside_containers_stay_refs() -> None:
    ref = system.put(1)
    args, kwargs = system.get(kinds.remote(ref, [ref, 2], {"a": ref}, named=[ref]))
    assert args == ["int", ["ObjectRef", "int"], {"a": "ObjectRef"}]
    assert kwargs == {"named": ["ObjectRef"]}


def test_a_ref_inside_an_argument_can_be_read_in_the_task() -> None:
    @system.remote
    def total(refs: list[Any]) -> int:
        return sum(system.get(refs))

    assert system.get(total.remote([system.put(1), add.remote(2, 3)])) == 6


def test_a_task_waits_for_its_arguments_only(signals: Signals) -> None:
    gate = signals.gate("slow")

    @system.remote
    def slow() -> int:
        gate.wait()
        return 5

    first = slow.remote()
    second = add.remote(first, 1)
    assert system.get(add.remote(1, 1)) == 2
    assert system.wait([second], timeout=0) == ([], [second])
    gate.open()
    assert system.get(second) == 6


def test_an_argument_is_taken_as_it_is_at_the_call(signals: Signals) -> None:
    gate = signals.gate("go")

    @system.remote
    def length(items: list[int]) -> int:
        gate.wait()
        return len(items)

    items = [1, 2]
    ref = length.remote(items)
    items.append(3)
    gate.open()
    assert system.get(ref) == 2


def test_a_task_that_changes_its_argument_changes_no_other_copy() -> None:
    @system.remote
    def grow(items: list[int]) -> list[int]:
        items.append(3)
        return items

    ref = system.put([1, 2])
    assert system.get([grow.remote(ref), grow.remote(ref)]) == [[1, 2, 3]] * 2
    assert system.get(ref) == [1, 2]


def test_large_arguments_and_results_come_whole() -> None:
    blob = os.urandom(3_000_000)
    assert system.get(add.remote(blob, b"!")) == blob + b"!"


def test_functions_take_what_they_close_over_with_them() -> None:
    offset = 40

    def plus(value: int) -> int:
        return value + offset

    @system.remote
    def use(value: int) -> int:
        return plus(value)

    assert system.get(use.remote(2)) == 42


def test_a_closure_is_taken_at_the_first_call() -> None:
    state = {"value": 1}

    @system.remote
    def read() -> int:
        return state["value"]

    assert system.get(read.remote()) == 1
    state["value"] = 2
    assert system.get(read.remote()) == 1


def test_lambdas_can_be_remote() -> None:
    assert system.get(system.remote(lambda x: 2 * x).remote(21)) == 42


def test_a_remote_function_can_be_passed_to_a_task_and_called_there() -> None:
    @system.remote
    def call(function: Any, value: int) -> Any:
        return system.get(function.remote(value, 1))

    assert system.get(call.remote(add, 1)) == 2


def test_remote_functions_can_call_themselves() -> None:
    @system.remote
    def factorial(n: int) -> int:
        return 1 if n == 0 else n * system.get(factorial.remote(n - 1))

    assert system.get(factorial.remote(4)) == 24


def test_a_task_can_return_a_ref_which_get_does_not_follow() -> None:
    @system.remote
    def outer() -> Any:
        return add.remote(1, 2)

    inner = system.get(outer.remote())
    assert isinstance(inner, system.ObjectRef)
    assert system.get(inner) == 3


def test_a_function_that_returns_nothing_gives_none() -> None:
    assert system.get(system.remote(lambda: None).remote()) is None


# ---- num_returns ----
@pytest.mark.parametrize("kind", [list, tuple])
def test_several_returns_are_a_list_of_refs(kind: type) -> None:
    @system.remote(num_returns=3)
    def three() -> Any:
        return kind(["a", "b", "c"])

    refs = three.remote()
    assert isinstance(refs, list)
    assert [system.get(ref) for ref in refs] == ["a", "b", "c"]


def test_num_returns_one_leaves_a_tuple_whole() -> None:
    assert system.get(system.remote(lambda: (1, 2)).remote()) == (1, 2)


def test_num_returns_zero_gives_none_and_still_runs(signals: Signals) -> None:
    ran = signals.gate("ran")

    @system.remote(num_returns=0)
    def nothing() -> None:
        ran.open()

    assert nothing.remote() is None
    ran.wait()


@pytest.mark.parametrize("values", [["only"], ["a", "b", "c"]])
def test_another_number_of_returns_fails_every_ref(values: list[str]) -> None:
    @system.remote(num_returns=2)
    def wrong() -> list[str]:
        return values

    for ref in wrong.remote():
        with pytest.raises(ValueError, match="2"):
            system.get(ref)


def test_several_returns_of_something_that_is_no_sequence_fail() -> None:
    @system.remote(num_returns=2)
    def wrong() -> int:
        return 5

    first, second = wrong.remote()
    for ref in (first, second):
        with pytest.raises(system.TaskError):
            system.get(ref)


def test_several_returns_may_come_from_a_generator() -> None:
    @system.remote(num_returns=3)
    def three() -> Any:
        yield from "abc"

    assert system.get(three.remote()) == ["a", "b", "c"]


def test_a_failed_task_fails_all_its_returns() -> None:
    @system.remote(num_returns=2)
    def bad() -> None:
        raise KeyError("lost")

    for ref in bad.remote():
        with pytest.raises(KeyError):
            system.get(ref)


def test_a_generator_object_as_a_plain_value_cannot_be_returned() -> None:
    @system.remote
    def gives_generator() -> Any:
        return (each for each in range(3))

    with pytest.raises(TypeError, match="pickle"):
        system.get(gives_generator.remote())


# ---- options ----
def test_options_change_one_call_and_not_the_function() -> None:
    @system.remote
    def pair() -> tuple[int, int]:
        return 1, 2

    assert system.get(pair.options(num_returns=2).remote()) == [1, 2]
    assert system.get(pair.remote()) == (1, 2)


def test_options_lie_over_those_of_the_decorator() -> None:
    @system.remote(num_returns=3)
    def values() -> tuple[int, int]:
        return 1, 2

    assert len(values.options(num_returns=2).remote()) == 2
    assert system.get(values.options(num_returns=1).remote()) == (1, 2)


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="num_cpu"):
        system.remote(num_cpu=1)(lambda: None)
    with pytest.raises(ValueError, match="no_such_option"):
        add.options(no_such_option=1)


@pytest.mark.parametrize(
    "options",
    [
        {"num_returns": -1},
        {"max_retries": -2},
        {"num_cpus": -1},
        {"resources": {"CPU": 1}},
        {"resources": {"GPU": 1}},
        {"max_calls": -1},
    ],
    ids=str,
)
def test_values_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        system.remote(**options)(lambda: None)


def test_max_calls_belongs_to_the_decorator() -> None:
    with pytest.raises(ValueError, match="max_calls"):
        add.options(max_calls=1)


def test_options_of_actors_are_refused_for_functions() -> None:
    with pytest.raises(ValueError, match="max_restarts"):
        system.remote(max_restarts=1)(lambda: None)


def test_remote_takes_functions_and_classes_only() -> None:
    with pytest.raises((TypeError, ValueError, AssertionError)):
        system.remote(5)


def test_a_remote_function_cannot_be_called_directly() -> None:
    with pytest.raises(TypeError, match=r"\.remote"):
        add(1, 2)


def test_an_argument_that_cannot_be_pickled_is_refused_at_the_call() -> None:
    import threading

    with pytest.raises(TypeError):
        add.remote(threading.Lock(), 1)


def test_tasks_know_their_name() -> None:
    @system.remote
    def my_name() -> str:
        return system.get_runtime_context().get_task_name()

    assert system.get(my_name.options(name="chosen").remote()) == "chosen"
    assert "my_name" in system.get(my_name.remote())


# ---- processes ----
def test_workers_are_used_again_for_tasks_without_max_calls() -> None:
    pid = system.remote(lambda: os.getpid())
    assert len({system.get(pid.remote()) for _ in range(6)}) < 6


def test_max_calls_gives_each_call_a_new_process() -> None:
    @system.remote(max_calls=1)
    def pid() -> int:
        return os.getpid()

    assert len({system.get(pid.remote()) for _ in range(4)}) == 4


def test_two_tasks_run_at_the_same_time(signals: Signals) -> None:
    gates = [signals.gate("a"), signals.gate("b")]

    @system.remote
    def meet(mine: Any, other: Any) -> bool:
        mine.open()
        other.wait()
        return True

    assert system.get([meet.remote(*gates), meet.remote(*reversed(gates))]) == [True, True]


async def test_many_calls_can_be_awaited_together() -> None:
    assert await asyncio.gather(*[add.remote(index) for index in range(10)]) == list(range(10))
