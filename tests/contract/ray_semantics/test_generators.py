"""Streaming generator tasks: refs to items as they are made."""

from __future__ import annotations

import asyncio
import os
import pickle
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Gate, Signals, Tally
from tests.integration.helpers import let_stay, wait_until


@system.remote
def count_to(n: int) -> Any:
    for index in range(n):  # noqa: UP028  see test_yield_from_works
        yield index


@system.remote
def step(gates: list[Gate]) -> Any:
    """Item i once gate i is open."""
    for index, gate in enumerate(gates):
        gate.wait()
        yield index


@system.remote
def fail_after(n: int) -> Any:
    for index in range(n):  # noqa: UP028
        yield index
    raise ValueError("the generator failed")


@system.remote
def counting(made: Tally, n: int) -> Any:
    for index in range(n):
        made.add()
        yield index


@system.remote
def same(value: Any) -> Any:
    return value


def test_a_generator_function_streams_by_default() -> None:
    items = count_to.remote(3)
    assert system.is_generator(items)
    assert not isinstance(items, system.ObjectRef)


def test_streaming_may_be_asked_for_by_name() -> None:
    @system.remote(num_returns="streaming")
    def letters() -> Any:
        yield "a"
        yield "b"

    assert [system.get(ref) for ref in letters.remote()] == ["a", "b"]


def test_next_gives_refs_to_the_items_in_order() -> None:
    refs = list(count_to.remote(5))
    assert all(isinstance(ref, system.ObjectRef) for ref in refs)
    assert system.get(refs) == [0, 1, 2, 3, 4]


def test_the_end_is_stop_iteration_each_time() -> None:
    items = count_to.remote(1)
    next(items)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(items)


def test_an_empty_generator_ends_at_once() -> None:
    assert list(count_to.remote(0)) == []


def test_the_first_item_comes_before_the_second_is_made(signals: Signals) -> None:
    gates = [signals.gate("first"), signals.gate("second")]
    items = step.remote(gates)
    gates[0].open()
    assert system.get(next(items)) == 0
    gates[1].open()
    assert system.get(next(items)) == 1


def test_the_producer_runs_ahead_of_the_reader(signals: Signals) -> None:
    made = signals.tally("made")
    items = counting.remote(made, 20)
    wait_until(lambda: made.count() == 20, 20, "all items, though none was read")
    assert system.get(list(items)) == list(range(20))


def test_yield_from_works() -> None:
    @system.remote
    def letters() -> Any:
        yield from "ab"

    assert [system.get(ref) for ref in letters.remote()] == ["a", "b"]


def test_items_may_be_read_in_any_order() -> None:
    refs = list(count_to.remote(3))
    assert [system.get(ref) for ref in reversed(refs)] == [2, 1, 0]


def test_items_may_be_large() -> None:
    @system.remote
    def blobs() -> Any:
        for index in range(3):
            yield bytes([index]) * 300_000

    assert [system.get(ref)[0] for ref in blobs.remote()] == [0, 1, 2]


def test_items_are_arguments_like_other_refs() -> None:
    assert system.get([same.remote(ref) for ref in count_to.remote(3)]) == [0, 1, 2]


def test_items_outlive_the_generator() -> None:
    items = count_to.remote(3)
    first = next(items)
    del items
    assert system.get(first) == 0


def test_generators_take_refs_as_arguments() -> None:
    assert system.get(list(count_to.remote(system.put(2)))) == [0, 1]


def test_a_generator_may_yield_refs() -> None:
    @system.remote
    def refs() -> Any:
        yield system.put("inner")

    inner = system.get(next(refs.remote()))
    assert system.get(inner) == "inner"


def test_generators_can_be_read_in_a_task() -> None:
    @system.remote
    def read() -> Any:
        return [system.get(ref) for ref in count_to.remote(3)]

    assert system.get(read.remote()) == [0, 1, 2]


# ---- errors ----
def test_an_error_comes_after_the_items_and_then_the_end() -> None:
    items = fail_after.remote(2)
    assert system.get([next(items), next(items)]) == [0, 1]
    bad = next(items)
    with pytest.raises(ValueError, match="the generator failed"):
        system.get(bad)
    with pytest.raises(StopIteration):
        next(items)


def test_an_error_before_the_first_item_is_the_first_item() -> None:
    items = fail_after.remote(0)
    with pytest.raises(ValueError):
        system.get(next(items))
    with pytest.raises(StopIteration):
        next(items)


def test_a_failed_argument_is_the_error() -> None:
    @system.remote
    def bad() -> int:
        raise KeyError("argument")

    items = count_to.remote(bad.remote())
    with pytest.raises(KeyError):
        system.get(next(items))


def test_an_item_that_cannot_be_pickled_is_an_error() -> None:
    @system.remote
    def locks() -> Any:
        import threading

        yield 1
        yield threading.Lock()

    items = locks.remote()
    assert system.get(next(items)) == 1
    with pytest.raises(TypeError):
        system.get(next(items))


def test_a_function_that_is_no_generator_cannot_stream() -> None:
    with pytest.raises((TypeError, ValueError, system.TaskError)):
        system.get(next(same.options(num_returns="streaming").remote(5)))


def test_a_crash_shows_no_gap_and_no_repeat(signals: Signals) -> None:
    attempts = signals.tally("attempts")

    @system.remote
    def crashing() -> Any:
        attempt = attempts.add()
        for index in range(6):
            if index == 3 and attempt == 1:
                os._exit(1)
            yield index

    assert [system.get(ref) for ref in crashing.remote()] == [0, 1, 2, 3, 4, 5]
    assert attempts.count() == 2


def test_a_crash_without_retries_is_an_error_at_its_place(signals: Signals) -> None:
    gate = signals.gate("read")

    @system.remote(max_retries=0)
    def crashing() -> Any:
        yield 0
        gate.wait()
        os._exit(1)

    items = crashing.remote()
    assert system.get(next(items)) == 0
    gate.open()
    with pytest.raises(system.WorkerCrashedError):
        system.get(next(items))


def test_errors_can_be_retried(signals: Signals) -> None:
    attempts = signals.tally("attempts")

    @system.remote(retry_exceptions=True)
    def flaky() -> Any:
        yield "a"
        if attempts.add() == 1:
            raise ValueError("once")
        yield "b"

    assert [system.get(ref) for ref in flaky.remote()] == ["a", "b"]


# ---- wait and completion ----
def test_wait_on_a_generator_says_whether_an_item_is_there(signals: Signals) -> None:
    gate = signals.gate("first")
    items = step.remote([gate])
    assert system.wait([items], timeout=0.05) == ([], [items])
    gate.open()
    assert system.wait([items], timeout=20) == ([items], [])
    assert system.get(next(items)) == 0


def test_wait_takes_refs_and_generators_together(signals: Signals) -> None:
    items = step.remote([signals.gate("never")])
    ref = system.put(1)
    assert system.wait([items, ref], timeout=10) == ([ref], [items])


def test_wait_says_that_an_ended_generator_is_ready() -> None:
    items = count_to.remote(1)
    next(items)
    assert system.wait([items], timeout=20) == ([items], [])
    with pytest.raises(StopIteration):
        next(items)


def test_completed_is_ready_at_the_end(signals: Signals) -> None:
    gate = signals.gate("last")
    items = step.remote([gate])
    done = items.completed()
    assert system.wait([done], timeout=0.05) == ([], [done])
    gate.open()
    assert system.wait([done], timeout=20) == ([done], [])


def test_completed_is_ready_after_an_error_too() -> None:
    done = fail_after.remote(1).completed()
    assert system.wait([done], timeout=20) == ([done], [])


# ---- asyncio ----
async def test_async_for_reads_items() -> None:
    assert [await ref async for ref in count_to.remote(4)] == [0, 1, 2, 3]


async def test_anext_waits_without_blocking_the_loop(signals: Signals) -> None:
    gate = signals.gate("first")
    items = step.remote([gate])
    waiting = asyncio.ensure_future(items.__anext__())
    assert await same.remote(1) == 1
    assert not waiting.done()
    gate.open()
    assert await (await waiting) == 0
    with pytest.raises(StopAsyncIteration):
        await items.__anext__()


async def test_async_for_raises_errors_in_order() -> None:
    seen = []
    with pytest.raises(ValueError, match="the generator failed"):
        async for ref in fail_after.remote(2):
            seen.append(await ref)  # noqa: PERF401  what was seen before the error counts
    assert seen == [0, 1]


# ---- backpressure and the reader's end ----
def test_backpressure_bounds_what_is_unread(signals: Signals) -> None:
    made = signals.tally("made")
    items = counting.options(_generator_backpressure_num_objects=2).remote(made, 6)
    wait_until(lambda: made.count() >= 2, 20, "the first items")
    let_stay(lambda: made.count() <= 3, 0.3, "a producer that waits for its reader")
    assert [system.get(ref) for ref in items] == list(range(6))
    assert made.count() == 6


def test_backpressure_of_no_objects_is_refused() -> None:
    with pytest.raises(ValueError):
        counting.options(_generator_backpressure_num_objects=0)


def test_a_dropped_reader_stops_a_producer_that_waits(signals: Signals) -> None:
    made = signals.tally("made")
    items = counting.options(_generator_backpressure_num_objects=1, num_cpus=4).remote(made, 1000)
    system.get(next(items))
    del items
    assert system.get(same.options(num_cpus=4).remote("there is room")) == "there is room"
    assert made.count() < 10


def test_a_cancelled_generator_ends_with_an_error(signals: Signals) -> None:
    first, never = signals.gate("first"), signals.gate("never")
    items = step.remote([first, never])
    first.open()
    assert system.get(next(items)) == 0
    system.cancel(items)
    with pytest.raises((system.TaskCancelledError, system.TaskError)):
        system.get(next(items))


def test_a_generator_cannot_be_pickled() -> None:
    items = count_to.remote(1)
    with pytest.raises(Exception, match=r"(?i)pickle|serializ"):
        pickle.dumps(items)
    with pytest.raises(Exception, match=r"(?i)pickle|serializ"):
        same.remote([items])


def test_a_generator_that_is_not_read_costs_nothing_later() -> None:
    for _ in range(5):
        count_to.remote(10)
    assert system.get(same.remote("after")) == "after"
