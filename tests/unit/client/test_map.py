from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import runner
from runner.client.session import Session
from runner.errors import BadOptionsError
from runner.objects import arguments
from tests.unit.client.memory import MemoryTransport


class Cluster:
    """Runs submitted calls when told to, by calling the function here."""

    def __init__(self, transport: MemoryTransport, function: Any) -> None:
        self._transport = transport
        self._function = function
        self._done = 0

    def run(self, count: int = 1_000_000, *, backwards: bool = False) -> None:
        specs = self._transport.submits()[self._done : self._done + count]
        self._done += len(specs)
        for spec in reversed(specs) if backwards else specs:
            args, _ = arguments.unpack(spec.args, [])
            try:
                self._transport.succeed(f"{spec.task_id}.0", self._function(*args))
            except Exception as error:
                self._transport.fail(f"{spec.task_id}.0", error)


def counted(limit: int, taken: list[int]) -> Iterator[int]:
    for index in range(limit):
        taken.append(index)
        yield index


def test_it_is_lazy_ordered_and_named(transport: MemoryTransport) -> None:
    def square(x: int) -> int:
        return x * x

    taken: list[int] = []
    cluster = Cluster(transport, square)
    results = runner.map(square, counted(10, taken), max_outstanding=3)
    assert taken == [0, 1, 2]
    cluster.run(backwards=True)
    assert next(results) == 0
    assert len(taken) <= 4
    assert [next(results), next(results)] == [1, 4]
    assert [spec.name for spec in transport.submits()[:3]] == ["square[0]", "square[1]", "square[2]"]
    assert not any(spec.is_run for spec in transport.submits())  # a million inputs are not a million records


def test_unordered_results_come_as_they_are_ready(transport: MemoryTransport) -> None:
    remote = runner.remote(name="n")(lambda x, y: x + y)
    results = runner.map(remote, [1, 2, 3], [10, 20, 30, 40], ordered=False)
    first, second, third = transport.submits()
    transport.succeed(f"{third.task_id}.0", 33)
    assert next(results) == 33
    transport.succeed(f"{first.task_id}.0", 11)
    transport.succeed(f"{second.task_id}.0", 22)
    assert sorted(results) == [11, 22]
    assert first.name == "n[0]"
    assert first.is_run


def test_errors_are_raised_at_their_place_and_the_rest_is_cancelled(transport: MemoryTransport) -> None:
    def inverse(x: float) -> float:
        return 1 / x

    cluster = Cluster(transport, inverse)
    results = runner.map(inverse, [1.0, 0.0, 2.0])
    cluster.run()
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert transport.kinds().count("cancel") == 1


def test_errors_can_be_results(transport: MemoryTransport) -> None:
    def inverse(x: float) -> float:
        return 1 / x

    cluster = Cluster(transport, inverse)
    results: Iterator[Any] = runner.map(inverse, [1.0, 0.0, 2.0], return_exceptions=True)
    cluster.run()
    found = list(results)
    assert [found[0], found[2]] == [1, 0.5]
    assert isinstance(found[1], ZeroDivisionError)


def test_leaving_early_cancels(transport: MemoryTransport) -> None:
    cluster = Cluster(transport, lambda x: x)
    results: Any = runner.map(lambda x: x, range(5))
    cluster.run(1)
    assert next(results) == 0
    results.close()
    assert transport.kinds().count("cancel") == 4


def test_bad_calls(session: Session) -> None:
    with pytest.raises(BadOptionsError, match="at least one iterable"):
        runner.map(lambda: 1)
    with pytest.raises(BadOptionsError, match="max_outstanding=0"):
        runner.map(lambda x: x, [1], max_outstanding=0)
    with pytest.raises(BadOptionsError, match="num_returns=1"):
        runner.map(runner.remote(num_returns=2)(lambda x: x), [1])
