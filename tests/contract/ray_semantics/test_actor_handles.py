"""Errors of actors, and where their handles can go."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.contract.ray_semantics.actor_classes import Broken, Counter, counter
from tests.contract.ray_semantics.adapter import system


@system.remote
def call(handle: Any, *args: Any) -> Any:
    return system.get(handle.add.remote(*args))


# ---- errors ----
def test_an_error_of_a_method_leaves_the_actor_alive() -> None:
    actor = counter(1)
    with pytest.raises(ValueError, match="the words") as caught:
        system.get(actor.fail.remote())
    assert isinstance(caught.value, system.TaskError)
    assert system.get(actor.get.remote()) == 1


def test_a_constructor_that_raises_makes_a_dead_actor() -> None:
    actor = system.remote(Broken).remote("told why")
    for _ in range(2):
        with pytest.raises(system.ActorDiedError, match="told why"):
            system.get(actor.get.remote())


def test_an_actor_error_is_caught_by_its_base() -> None:
    with pytest.raises(system.ActorError):
        system.get(system.remote(Broken).remote().get.remote())


def test_a_failed_argument_fails_the_call_only() -> None:
    @system.remote
    def bad() -> int:
        raise KeyError("argument")

    actor = counter()
    with pytest.raises(KeyError):
        system.get(actor.add.remote(bad.remote()))
    assert system.get(actor.add.remote()) == 1


def test_a_failed_argument_of_the_constructor_makes_a_dead_actor() -> None:
    @system.remote
    def bad() -> int:
        raise KeyError("argument")

    with pytest.raises((system.ActorDiedError, KeyError)):
        system.get(counter(bad.remote()).get.remote())


def test_a_result_that_cannot_be_pickled_fails_the_call_only() -> None:
    class Locks:
        def lock(self) -> Any:
            return threading.Lock()

        def fine(self) -> int:
            return 1

    actor = system.remote(Locks).remote()
    with pytest.raises(TypeError):
        system.get(actor.lock.remote())
    assert system.get(actor.fine.remote()) == 1


# ---- handles ----
def test_handles_are_arguments_of_tasks() -> None:
    actor = counter()
    assert system.get(call.remote(actor, 3)) == 3
    assert system.get(actor.get.remote()) == 3


def test_handles_travel_in_containers_and_come_back() -> None:
    @system.remote
    def back(handles: list[Any]) -> Any:
        return {"handle": handles[0]}

    actor = counter(1)
    other = system.get(back.remote([actor]))["handle"]
    assert system.get(other.add.remote()) == 2
    assert system.get(actor.get.remote()) == 2


def test_handles_can_be_put() -> None:
    actor = counter(1)
    assert system.get(system.get(system.put(actor)).add.remote()) == 2


def test_handles_can_be_given_to_actors() -> None:
    class Caller:
        def __init__(self, other: Any) -> None:
            self.other = other

        def ask(self) -> Any:
            return system.get(self.other.add.remote())

    actor = counter()
    assert system.get(system.remote(Caller).remote(actor).ask.remote()) == 1


def test_handles_live_in_closures() -> None:
    actor = counter()

    @system.remote
    def use() -> Any:
        return system.get(actor.add.remote(4))

    assert system.get(use.remote()) == 4


def test_a_handle_made_in_a_task_outlives_it() -> None:
    @system.remote
    def make() -> Any:
        return system.remote(Counter).remote(8)

    assert system.get(system.get(make.remote()).get.remote()) == 8


def test_many_callers_are_all_served() -> None:
    actor = counter()
    assert sorted(system.get([call.remote(actor) for _ in range(8)])) == list(range(1, 9))
