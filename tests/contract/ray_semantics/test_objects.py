"""put, get and wait."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Signals


@system.remote
def same(value: Any) -> Any:
    return value


def held(signals: Signals, name: str) -> tuple[Any, Any]:
    """A ref that is not ready, and the gate that makes it so."""
    gate = signals.gate(name)

    @system.remote(num_cpus=0)
    def hold() -> str:
        gate.wait()
        return name

    return hold.remote(), gate


# ---- put and get ----
@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        True,
        1.5,
        "text",
        b"bytes",
        [1, [2]],
        (1, 2),
        {"a": {1, 2}},
        2**80,
        1j,
        frozenset("ab"),
        range(3),
        Ellipsis,
    ],
    ids=repr,
)
def test_values_come_back_equal_and_of_the_same_type(value: Any) -> None:
    back = system.get(system.put(value))
    assert back == value
    assert type(back) is type(value)


def test_functions_and_classes_can_be_put() -> None:
    class Local:
        number = 5

    assert system.get(system.put(lambda x: x + 1))(1) == 2
    assert system.get(system.put(Local)).number == 5


def test_get_of_a_list_keeps_its_order(signals: Signals) -> None:
    slow, gate = held(signals, "slow")
    refs = [slow, same.remote(1), system.put(2)]
    gate.open()
    assert system.get(refs) == ["slow", 1, 2]


def test_get_of_a_list_may_have_a_ref_twice() -> None:
    ref = system.put("x")
    assert system.get([ref, ref]) == ["x", "x"]


def test_get_of_an_empty_list_is_empty() -> None:
    assert system.get([]) == []


def test_get_times_out_and_the_task_goes_on(signals: Signals) -> None:
    ref, gate = held(signals, "slow")
    with pytest.raises(system.GetTimeoutError):
        system.get(ref, timeout=0.05)
    gate.open()
    assert system.get(ref) == "slow"


def test_a_timeout_is_a_timeout_error(signals: Signals) -> None:
    ref, _ = held(signals, "slow")
    with pytest.raises(TimeoutError):
        system.get(ref, timeout=0.05)


def test_timeout_zero_asks_without_waiting(signals: Signals) -> None:
    ref, _ = held(signals, "slow")
    with pytest.raises(system.GetTimeoutError):
        system.get(ref, timeout=0)
    assert system.get(system.put(1), timeout=0) == 1


def test_get_of_a_list_times_out_when_one_is_missing(signals: Signals) -> None:
    ref, _ = held(signals, "slow")
    with pytest.raises(system.GetTimeoutError):
        system.get([system.put(1), ref], timeout=0.05)


@pytest.mark.parametrize("value", [5, "text", [5], {}], ids=repr)
def test_get_takes_refs_only(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        system.get(value)


def test_put_of_a_ref_is_refused() -> None:
    with pytest.raises((TypeError, ValueError)):
        system.put(system.put(1))


def test_a_ref_inside_a_list_can_be_put() -> None:
    inner = system.put(1)
    (back,) = system.get(system.put([inner]))
    assert back == inner
    assert system.get(back) == 1


def test_values_are_copies() -> None:
    ref = system.put([1])
    system.get(ref).append(2)
    assert system.get(ref) == [1]


def test_put_takes_the_value_as_it_is_then() -> None:
    value = [1]
    ref = system.put(value)
    value.append(2)
    assert system.get(ref) == [1]


def test_a_task_can_put_for_others() -> None:
    @system.remote
    def make() -> Any:
        return [system.put("from the task")]

    (ref,) = system.get(make.remote())
    assert system.get(same.remote(ref)) == "from the task"


def test_a_put_value_outlives_the_worker_that_returned_it() -> None:
    @system.remote(max_calls=1)
    def make() -> Any:
        return [system.put(np.ones(200_000))]

    (ref,) = system.get(make.remote())
    del make
    assert system.get(ref).sum() == 200_000


# ---- arrays ----
def test_arrays_come_back_read_only() -> None:
    array = system.get(system.put(np.arange(300_000)))
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_arrays_do_not_own_their_memory() -> None:
    assert not system.get(system.put(np.arange(300_000))).flags.owndata


def test_an_array_stays_valid_after_its_ref_is_gone() -> None:
    ref = system.put(np.arange(300_000))
    array = system.get(ref)
    del ref
    others = [system.put(np.full(300_000, index)) for index in range(5)]
    assert array.sum() == sum(range(300_000))
    del others


def test_arrays_that_tasks_return_are_read_only_too() -> None:
    array = system.get(same.remote(np.zeros((500, 500))))
    assert array.shape == (500, 500)
    assert not array.flags.writeable


def test_arrays_are_read_only_in_tasks() -> None:
    @system.remote
    def writeable(array: Any) -> bool:
        return bool(array.flags.writeable)

    assert system.get(writeable.remote(system.put(np.zeros(300_000)))) is False


def test_arrays_inside_containers_keep_their_values() -> None:
    value: dict[str, Any] = {"a": np.arange(100_000), "b": [np.ones(3), "text"]}
    back = system.get(system.put(value))
    assert np.array_equal(back["a"], value["a"])
    assert np.array_equal(back["b"][0], value["b"][0])


def test_odd_arrays_come_back_equal() -> None:
    for array in (
        np.array(5),
        np.zeros((0, 3)),
        np.arange(20).reshape(4, 5).T,
        np.array(["a", "bc"]),
        np.array([None, 1]),
    ):
        assert np.array_equal(system.get(system.put(array)), array)


# ---- wait ----
def test_wait_tells_the_ready_from_the_others(signals: Signals) -> None:
    slow, _ = held(signals, "slow")
    quick = system.put(1)
    assert system.wait([slow, quick], timeout=10) == ([quick], [slow])


def test_wait_returns_no_more_than_asked_for() -> None:
    refs = [system.put(index) for index in range(4)]
    ready, rest = system.wait(refs, num_returns=2)
    assert len(ready) == len(rest) == 2
    # Which of those that are ready is not said; the order is.
    assert [ref for ref in refs if ref in ready] == ready
    assert [ref for ref in refs if ref not in ready] == rest


def test_both_lists_of_wait_keep_the_order_of_the_call(signals: Signals) -> None:
    slow, _ = held(signals, "slow")
    also_slow, _ = held(signals, "also")
    first, second = system.put(1), system.put(2)
    refs = [slow, second, also_slow, first]
    assert system.wait(refs, num_returns=2, timeout=10) == ([second, first], [slow, also_slow])


def test_wait_gives_what_it_has_at_the_timeout(signals: Signals) -> None:
    slow, _ = held(signals, "slow")
    quick = system.put(1)
    assert system.wait([quick, slow], num_returns=2, timeout=0.1) == ([quick], [slow])


def test_wait_with_timeout_zero_looks_once(signals: Signals) -> None:
    slow, gate = held(signals, "slow")
    assert system.wait([slow], timeout=0) == ([], [slow])
    gate.open()
    assert system.wait([slow], timeout=20) == ([slow], [])
    assert system.wait([slow], timeout=0) == ([slow], [])


def test_wait_without_a_timeout_waits(signals: Signals) -> None:
    slow, gate = held(signals, "slow")
    opener = same.remote(1)
    assert system.wait([opener]) == ([opener], [])
    gate.open()
    assert system.wait([slow]) == ([slow], [])


def test_wait_for_nothing_returns_nothing() -> None:
    assert system.wait([]) == ([], [])


@pytest.mark.parametrize(
    "arguments", [{"num_returns": 0}, {"num_returns": 3}, {"num_returns": -1}, {"timeout": -1}], ids=str
)
def test_wait_refuses_numbers_that_cannot_work(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        system.wait([system.put(1), system.put(2)], **arguments)


def test_wait_refuses_a_ref_twice() -> None:
    ref = system.put(1)
    with pytest.raises(ValueError):
        system.wait([ref, ref])


def test_wait_takes_a_list_of_refs() -> None:
    ref = system.put(1)
    with pytest.raises((TypeError, ValueError)):
        system.wait(ref)
    with pytest.raises((TypeError, ValueError)):
        system.wait([5])


def test_wait_does_not_take_the_value(signals: Signals) -> None:
    refs = [same.remote(index) for index in range(3)]
    ready, _ = system.wait(refs, num_returns=3)
    assert system.get(ready) == [0, 1, 2]


def test_a_task_can_wait_with_a_timeout(signals: Signals) -> None:
    slow, _ = held(signals, "slow")

    @system.remote
    def look(refs: list[Any]) -> int:
        return len(system.wait(refs, num_returns=2, timeout=0.1)[0])

    assert system.get(look.remote([slow, system.put(1)])) == 1


def test_a_large_value_is_the_same_for_many_tasks() -> None:
    blob = system.put(os.urandom(2_000_000))

    @system.remote
    def size(data: bytes) -> int:
        return len(data)

    assert system.get([size.remote(blob) for _ in range(6)]) == [2_000_000] * 6
