"""Refs as values: equal, hashable, awaitable, in containers, in futures, in pickles."""

from __future__ import annotations

import asyncio
import copy
import pickle
from concurrent.futures import Future
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Signals


@system.remote
def same(value: Any) -> Any:
    return value


def test_refs_are_equal_when_they_name_the_same_object() -> None:
    first, second = system.put(1), system.put(1)
    assert first == first  # noqa: PLR0124
    assert first != second
    (back,) = system.get(system.put([first]))
    assert back == first


def test_refs_are_no_values() -> None:
    assert system.put(1) != 1


def test_refs_are_keys_of_dicts_and_members_of_sets() -> None:
    first, second = system.put(1), system.put(2)
    (back,) = system.get(system.put([first]))
    assert {first: "a", second: "b"}[back] == "a"
    assert len({first, second, back}) == 2


def test_refs_can_be_copied() -> None:
    ref = system.put(1)
    assert copy.copy(ref) == ref


def test_a_ref_can_be_pickled_by_hand() -> None:
    ref = system.put(1)
    assert pickle.loads(pickle.dumps(ref)) == ref
    assert system.get(pickle.loads(pickle.dumps(ref))) == 1


def test_a_ref_pickled_by_hand_can_be_read_in_a_task() -> None:
    data = pickle.dumps(system.put("in a pickle"))

    @system.remote
    def read() -> Any:
        return system.get(pickle.loads(data))

    assert system.get(read.remote()) == "in a pickle"


def test_refs_travel_in_deep_containers() -> None:
    class Box:
        def __init__(self, content: Any) -> None:
            self.content = content

    @system.remote
    def unpack(box: Any) -> Any:
        return system.get(box.content["refs"][0])

    assert system.get(unpack.remote(Box({"refs": (system.put(7),)}))) == 7


def test_a_ref_in_the_closure_of_a_function_can_be_read_there() -> None:
    ref = system.put(9)

    @system.remote
    def read() -> Any:
        return system.get(ref)

    assert system.get(read.remote()) == 9


def test_a_ref_inside_a_result_outlives_the_outer_ref() -> None:
    outer = same.remote([system.put("inner")])
    (inner,) = system.get(outer)
    del outer
    assert system.get(same.remote(inner)) == "inner"


def test_a_ref_handed_to_a_task_outlives_the_callers(signals: Signals) -> None:
    gate = signals.gate("go")

    @system.remote
    def late(refs: list[Any]) -> Any:
        gate.wait()
        return system.get(refs[0])

    inner = system.put("kept alive")
    task = late.remote([inner])
    del inner
    gate.open()
    assert system.get(task) == "kept alive"


def test_a_result_may_be_forgotten() -> None:
    for index in range(20):
        same.remote(index)
    assert system.get(same.remote("after")) == "after"


# ---- asyncio and futures ----
async def test_await_gives_the_value() -> None:
    assert await same.remote(5) == 5
    assert await system.put(6) == 6


async def test_await_leaves_the_loop_free(signals: Signals) -> None:
    gate = signals.gate("go")

    @system.remote
    def slow() -> str:
        gate.wait()
        return "slow"

    waiting = asyncio.ensure_future(asyncio.wait_for(slow.remote(), 20))
    assert await same.remote(1) == 1
    assert not waiting.done()
    gate.open()
    assert await waiting == "slow"


async def test_asyncio_wait_for_times_out(signals: Signals) -> None:
    gate = signals.gate("go")

    @system.remote
    def slow() -> str:
        gate.wait()
        return "slow"

    ref = slow.remote()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(ref, 0.1)
    gate.open()
    assert await ref == "slow"


async def test_a_ref_can_be_awaited_twice_and_by_two() -> None:
    ref = same.remote(5)
    assert await asyncio.gather(ref, ref) == [5, 5]
    assert await ref == 5


async def test_asyncio_wait_takes_tasks_of_refs() -> None:
    async def value(ref: Any) -> Any:
        return await ref

    done, pending = await asyncio.wait(
        [asyncio.ensure_future(value(same.remote(index))) for index in range(3)], timeout=20
    )
    assert sorted(task.result() for task in done) == [0, 1, 2]
    assert not pending


def test_future_is_one_of_concurrent_futures() -> None:
    future = same.remote(5).future()
    assert isinstance(future, Future)
    assert future.result(timeout=20) == 5


def test_future_calls_back() -> None:
    results: list[Any] = []
    future = same.remote(5).future()
    future.add_done_callback(lambda done: results.append(done.result()))
    assert future.result(timeout=20) == 5
    system.get(same.remote(1))
    assert results == [5]


def test_future_of_a_value_that_is_there_is_soon_done() -> None:
    assert system.put("there").future().result(timeout=20) == "there"
