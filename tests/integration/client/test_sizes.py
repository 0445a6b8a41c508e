"""A message holds 4 MiB. Whatever users make, in either direction, no stream ends because of it."""

from __future__ import annotations

from typing import Any

import pytest

import runner
from runner.client import context
from runner.errors import BadOptionsError, TaskError
from runner.ids import ObjectId
from runner.objects.refs import ObjectRef

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("cluster")]


def assert_no_machine_was_lost() -> None:
    """A lost machine comes back with a higher generation, or another one takes its place."""
    assert all(node.machine_id in ("m-1", "m-2") and node.generation <= 1 for node in runner.nodes())


def test_a_long_message_is_cut_and_costs_no_machine() -> None:
    def fail() -> None:
        raise RuntimeError("head" + "x" * 5_000_000 + "tail")

    with pytest.raises(TaskError) as caught:
        runner.get(runner.remote(fail).remote(), timeout=60)
    told = str(caught.value)
    assert "head" in told and "tail" in told and "bytes left out" in told
    assert len(told) < 200_000
    assert_no_machine_was_lost()


def test_a_large_exception_is_told_as_text() -> None:
    class Bulky(Exception):
        pass

    def fail() -> None:
        error = Bulky("short")
        error.data = b"x" * 5_000_000  # type: ignore[attr-defined]
        raise error

    with pytest.raises(TaskError, match="keep large values out of exceptions") as caught:
        runner.get(runner.remote(fail).remote(), timeout=60)
    assert caught.value.cause is None


def test_many_failures_at_once_do_not_make_one_large_message() -> None:
    def fail(number: int) -> None:
        raise ValueError(str(number) + "y" * 14_000)

    refs = [runner.remote(fail).remote(number) for number in range(600)]
    runner.wait(refs, num_returns=len(refs), timeout=90)
    for number in (0, 599):
        with pytest.raises(ValueError, match=f"{number}yyy"):
            runner.get(refs[number], timeout=5)
    last: Any = runner.remote(lambda: 7)
    assert runner.get(last.remote(), timeout=10) == 7


def test_many_return_values_that_are_small_one_by_one() -> None:
    @runner.remote(num_returns=60)
    def many() -> list[bytes]:
        return [bytes([index]) * 90_000 for index in range(60)]

    assert runner.get(many.remote(), timeout=60) == [bytes([index]) * 90_000 for index in range(60)]
    assert_no_machine_was_lost()


def test_returns_that_cannot_be_told_fail_their_task_only() -> None:
    @runner.remote(num_returns=20)
    def many() -> list[Any]:
        refs = [runner.put(index) for index in range(10_000)]
        return [list(refs) for _ in range(20)]

    refs: Any = many.remote()
    with pytest.raises(TaskError, match="return values take"):
        runner.get(refs[0], timeout=60)
    assert_no_machine_was_lost()


@pytest.mark.long
def test_a_hundred_thousand_refs_in_one_list() -> None:
    refs = [runner.put(index) for index in range(100_000)]
    count = runner.remote(lambda given: (len(given), runner.get(given[-1])))
    assert runner.get(count.remote(refs), timeout=100) == (100_000, 99_999)
    assert runner.get(refs[::1000], timeout=30) == list(range(0, 100_000, 1000))
    with pytest.raises(BadOptionsError, match="fewer refs"):
        runner.remote(lambda *given: len(given)).remote(*refs)
    del refs
    assert runner.get(count.remote([runner.put(1)]), timeout=60) == (1, 1)


def test_a_stream_of_more_tasks_than_a_message_can_name() -> None:
    session = context.current_session()
    refs: list[Any] = [ObjectRef(ObjectId(f"t-{number:030}.0"), session) for number in range(120_000)]
    with pytest.raises(BadOptionsError, match="stream"):
        runner.stream(refs)


@pytest.mark.long
def test_lines_without_text_and_lines_of_anything() -> None:
    def flood() -> str:
        import os
        import sys

        sys.stdout.write("\n" * 3_000_000)
        sys.stdout.flush()
        for _ in range(100):
            os.write(1, b"\xff" * 60_000 + b"\n")
        return "done"

    assert runner.get(runner.remote(flood).options(name="flood").remote(), timeout=100) == "done"
    assert_no_machine_was_lost()
