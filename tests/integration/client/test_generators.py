"""Remote generators through everything."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runner
from runner import ObjectRefGenerator
from runner.errors import NotSerializableError, TaskCancelledError
from tests.integration.helpers import let_stay, wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(60)]


@runner.remote
def count(number: int, pause_s: float = 0.0) -> Iterator[int]:
    for index in range(number):
        yield index
        time.sleep(pause_s)


@runner.remote
def endless(path: str) -> Iterator[int]:
    """Says in a file that it has ended."""
    number = 0
    try:
        while True:
            yield number
            number += 1
            time.sleep(0.01)
    finally:
        Path(path).write_text("ended")


def values(items: Any) -> list[Any]:
    return [runner.get(ref, timeout=30) for ref in items]


def test_the_first_item_is_there_before_the_second_is_made(tmp_path: Path) -> None:
    go = tmp_path / "go"

    @runner.remote
    def two() -> Iterator[str]:
        yield "first"
        while not go.exists():
            time.sleep(0.01)
        yield "second"

    items: Any = two.remote()
    assert isinstance(items, ObjectRefGenerator)
    assert runner.get(next(items), timeout=30) == "first"
    assert not items.next_ready()
    go.touch()
    assert runner.get(next(items), timeout=30) == "second"
    assert next(items, None) is None
    assert items.is_finished()
    assert runner.get(items.completed(), timeout=30) is None


def test_many_items_come_once_and_in_order() -> None:
    items: Any = count.remote(3000)
    assert runner.get(list(items), timeout=30) == list(range(3000))


def test_what_it_raises_comes_after_what_it_has_yielded() -> None:
    @runner.remote
    def failing() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("no three")

    items: Any = failing.remote()
    assert values([next(items), next(items)]) == [1, 2]
    last = next(items)
    with pytest.raises(ValueError, match="no three"):
        runner.get(last, timeout=30)
    assert next(items, None) is None
    with pytest.raises(ValueError, match="no three"):
        runner.get(items.completed(), timeout=30)


@pytest.mark.parametrize("how", ["close", "collect", "cancel"])
def test_nobody_reads_so_the_generator_ends_within_a_second(how: str, tmp_path: Path) -> None:
    path = tmp_path / how
    items: Any = endless.remote(str(path))
    kept = next(items)
    completed = items.completed() if how != "collect" else None
    if how == "close":
        items.close()
        assert next(items, None) is None
    elif how == "cancel":
        runner.cancel(items)
    else:
        del items
        gc.collect()
    took_s = wait_until(path.exists, 10, "the end of the generator")
    assert took_s < 1.0 or os.getloadavg()[0] > 4
    assert runner.get(kept, timeout=30) == 0
    if completed is not None:
        with pytest.raises(TaskCancelledError):
            runner.get(completed, timeout=30)


def test_a_ref_to_its_end_keeps_a_collected_generator_going() -> None:
    items: Any = count.remote(50, 0.005)
    completed = items.completed()
    del items
    assert runner.get(completed, timeout=30) is None


def test_it_is_never_further_ahead_than_backpressure_allows(tmp_path: Path) -> None:
    path = tmp_path / "made"

    @runner.remote(_generator_backpressure_num_objects=2)
    def writing() -> Iterator[int]:
        for index in range(5):
            path.write_text(str(index))
            yield index

    def made() -> int:
        return int(path.read_text()) if path.exists() else -1

    items: Any = writing.remote()
    wait_until(lambda: made() == 1, 30, "two items")
    let_stay(lambda: made() == 1, 0.2, "no third item")
    assert values([next(items)]) == [0]
    wait_until(lambda: made() == 2, 30, "a third item")
    assert values(items) == [1, 2, 3, 4]


def test_async_generators_and_async_readers() -> None:
    @runner.remote(generator_backpressure_num_objects=3)
    async def ticks(number: int) -> AsyncIterator[int]:
        for index in range(number):
            await asyncio.sleep(0)
            yield index

    async def read() -> list[int]:
        items: Any = ticks.remote(20)
        return [await ref async for ref in items]

    assert asyncio.run(asyncio.wait_for(read(), 30)) == list(range(20))


def test_a_killed_generator_is_run_again_and_its_reader_sees_no_seam(tmp_path: Path) -> None:
    killed = tmp_path / "killed"

    @runner.remote
    def dying() -> Iterator[tuple[int, int]]:
        attempt = runner.get_runtime_context().attempt
        for index in range(40):
            yield index, attempt
            if index == 20 and not killed.exists():
                time.sleep(0.1)  # until the reader has some of it
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    seen = values(dying.remote())
    assert [index for index, _ in seen] == list(range(40))
    assert len({attempt for _, attempt in seen}) == 2


def test_wait_takes_generators_and_refs_together() -> None:
    slow: Any = count.remote(1, 5.0)
    ref = runner.put(1)
    first = next(slow)
    assert runner.wait([slow, ref, first], num_returns=3, timeout=0.1) == ([ref, first], [slow])
    fast: Any = count.remote(1)
    assert runner.wait([fast], timeout=30) == ([fast], [])
    next(fast)
    assert runner.wait([fast], timeout=30)[0] == [fast], "its end is ready, too"
    assert next(fast, None) is None
    slow.close()


def test_large_items_are_mapped() -> None:
    @runner.remote
    def arrays() -> Iterator[Any]:
        for index in range(3):
            yield np.full(100_000, index)

    found = values(arrays.remote())
    assert [int(each.sum()) for each in found] == [0, 100_000, 200_000]
    assert not any(each.flags.owndata or each.flags.writeable for each in found)


def test_refs_in_items_live_with_them() -> None:
    @runner.remote
    def puts() -> Iterator[list[Any]]:
        for index in range(3):
            yield [runner.put(index)]

    items: Any = puts.remote()
    held = list(items)  # each with what it contains
    assert [runner.get(runner.get(ref, timeout=30)[0], timeout=30) for ref in held] == [0, 1, 2]


def test_a_task_that_reads_a_generator_lends_it_its_cpus() -> None:
    @runner.remote(num_cpus=2)
    def numbers() -> Iterator[int]:
        for index in range(3):
            time.sleep(0.05)
            yield index

    @runner.remote(num_cpus=2)
    def total() -> int:
        return sum(values(numbers.remote()))

    assert runner.get([total.remote() for _ in range(2)], timeout=30) == [3, 3]


def test_a_reader_stays_in_its_process() -> None:
    items: Any = count.remote(1)
    with pytest.raises(NotSerializableError, match="one reader"):
        pickle.dumps(items)
    with pytest.raises(TypeError, match="one reader"):
        count.remote(items)
    assert values(items) == [0]


def test_other_numbers_of_returns() -> None:
    pair: Any = count.options(num_returns=2).remote(2)
    one, two = pair
    assert values([one, two]) == [0, 1]
    with pytest.raises(TypeError, match="generator"):
        runner.get(count.options(num_returns=1).remote(2), timeout=30)
    plain: Any = runner.remote(num_returns="streaming")(lambda: [1, 2]).remote()
    with pytest.raises(ValueError, match="must return a generator"):
        values(plain)
    listed: Any = runner.remote(num_returns="streaming")(lambda: iter([1, 2])).remote()
    assert values(listed) == [1, 2]
