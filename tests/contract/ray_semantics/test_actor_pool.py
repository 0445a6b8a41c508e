"""ActorPool: work spread over a few actors."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Gate, Signals


class Worker:
    def double(self, value: int) -> int:
        return 2 * value

    def after(self, gates: list[Gate], value: int) -> int:
        for gate in gates:
            gate.wait()
        return value


def pool(size: int = 2) -> Any:
    return system.ActorPool([system.remote(Worker).remote() for _ in range(size)])


def test_map_keeps_the_order() -> None:
    assert list(pool().map(lambda actor, value: actor.double.remote(value), range(6))) == [0, 2, 4, 6, 8, 10]


def test_map_unordered_gives_what_is_ready(signals: Signals) -> None:
    gate = signals.gate("slow")

    def submit(actor: Any, value: int) -> Any:
        return actor.after.remote([gate] if value == 0 else [], value)

    results = pool().map_unordered(submit, [0, 1])
    assert next(results) == 1
    gate.open()
    assert next(results) == 0


def test_submit_and_get_next() -> None:
    workers = pool()
    for value in range(4):
        workers.submit(lambda actor, value: actor.double.remote(value), value)
    assert workers.has_next()
    assert [workers.get_next() for _ in range(4)] == [0, 2, 4, 6]
    assert not workers.has_next()
    with pytest.raises(StopIteration):
        workers.get_next()


def test_has_free_tells_of_idle_actors(signals: Signals) -> None:
    gate = signals.gate("go")
    workers = pool(1)
    assert workers.has_free()
    workers.submit(lambda actor, value: actor.after.remote([gate], value), 1)
    assert not workers.has_free()
    gate.open()
    assert workers.get_next_unordered() == 1
    assert workers.has_free()


def test_actors_can_be_taken_out_and_put_in() -> None:
    workers = pool(1)
    actor = workers.pop_idle()
    assert workers.pop_idle() is None
    workers.push(actor)
    assert workers.has_free()


def test_an_error_is_raised_at_its_place() -> None:
    results = pool().map(lambda actor, value: actor.double.remote(value), [1, None, 3])
    assert next(results) == 2
    with pytest.raises(TypeError):
        next(results)


def test_get_next_times_out(signals: Signals) -> None:
    gate = signals.gate("go")
    workers = pool(1)
    workers.submit(lambda actor, value: actor.after.remote([gate], value), 1)
    with pytest.raises(TimeoutError):
        workers.get_next(timeout=0.05)
    gate.open()
    assert workers.get_next(timeout=20) == 1
