"""How actors are named, found, ended, and started again."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Gate, Signals, Tally
from tests.integration.helpers import is_alive, wait_gone, wait_until


class Mortal:
    def __init__(self, lives: Tally | None = None, value: int = 0) -> None:
        self.value = value
        self.life = lives.add() if lives is not None else 1

    def add(self) -> int:
        self.value += 1
        return self.value

    def get(self) -> int:
        return self.value

    def which_life(self) -> int:
        return self.life

    def pid(self) -> int:
        return os.getpid()

    def crash(self) -> None:
        os._exit(1)

    def crash_in_first_life(self, tries: Tally | None = None) -> int:
        if tries is not None:
            tries.add()
        if self.life == 1:
            os._exit(1)
        return self.life

    def wait(self, started: Gate, gate: Gate) -> str:
        started.open()
        gate.wait()
        return "waited"

    def leave(self) -> None:
        system.exit_actor()

    def was_reconstructed(self) -> bool:
        return bool(system.get_runtime_context().was_current_actor_reconstructed)


def mortal(*args: Any, **options: Any) -> Any:
    made = system.remote(Mortal)
    return (made.options(**options) if options else made).remote(*args)


# ---- names ----
def test_a_named_actor_can_be_found() -> None:
    actor = mortal(name="found")
    system.get(actor.add.remote())
    assert system.get(system.get_actor("found").add.remote()) == 2


def test_a_named_actor_can_be_found_in_a_task() -> None:
    actor = mortal(name="found-in-task")
    system.get(actor.get.remote())

    @system.remote
    def use() -> Any:
        return system.get(system.get_actor("found-in-task").add.remote())

    assert system.get(use.remote()) == 1


def test_a_name_that_nobody_has_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="nobody"):
        system.get_actor("nobody")


def test_a_name_is_taken_once() -> None:
    actor = mortal(name="taken")
    system.get(actor.get.remote())
    with pytest.raises(ValueError, match="taken"):
        mortal(name="taken")
    assert system.get(actor.get.remote()) == 0


def test_get_if_exists_gives_the_one_that_is_there() -> None:
    first = mortal(name="shared", get_if_exists=True)
    assert system.get(first.add.remote()) == 1
    second = mortal(name="shared", get_if_exists=True)
    assert system.get(second.add.remote()) == 2


def test_a_name_is_free_again_after_the_end() -> None:
    actor = mortal(name="again")
    assert system.get(actor.add.remote()) == 1
    system.kill(actor)

    made: list[Any] = []

    def make_again() -> bool:
        try:
            made.append(mortal(name="again"))
        except ValueError:
            return False
        return True

    wait_until(make_again, 20, "the name")
    assert system.get(made[0].add.remote()) == 1


def test_names_live_in_namespaces() -> None:
    actor = mortal(name="spaced", namespace="one")
    system.get(actor.get.remote())
    with pytest.raises(ValueError):
        system.get_actor("spaced")
    with pytest.raises(ValueError):
        system.get_actor("spaced", namespace="two")
    assert system.get(system.get_actor("spaced", namespace="one").add.remote()) == 1


@pytest.mark.parametrize("name", ["", 5])
def test_names_are_texts(name: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        mortal(name=name)


# ---- the end ----
def test_kill_ends_the_actor_and_its_calls(signals: Signals) -> None:
    started = signals.gate("started")
    actor = mortal()
    pid = system.get(actor.pid.remote())
    blocked = actor.wait.remote(started, signals.gate("never"))
    waiting = actor.get.remote()
    started.wait()
    system.kill(actor)
    for ref in (blocked, waiting):
        with pytest.raises(system.ActorDiedError):
            system.get(ref, timeout=20)
    wait_gone([pid], 20)


def ends_calls(actor: Any) -> bool:
    """Whether calls of it fail because it is dead; kill() does not wait for that."""
    try:
        system.get(actor.get.remote(), timeout=20)
    except system.ActorDiedError:
        return True
    except system.ActorUnavailableError:
        pass
    return False


def test_calls_after_kill_fail() -> None:
    actor = mortal()
    system.get(actor.get.remote())
    system.kill(actor)
    wait_until(lambda: ends_calls(actor), 20, "the end of the actor")
    assert ends_calls(actor)


def test_kill_twice_does_no_harm() -> None:
    actor = mortal()
    system.get(actor.get.remote())
    system.kill(actor)
    system.kill(actor)


def test_kill_takes_actors_only() -> None:
    with pytest.raises((TypeError, ValueError)):
        system.kill(system.put(1))


def test_killed_actors_are_not_restarted_unless_asked() -> None:
    actor = mortal(max_restarts=3)
    system.get(actor.get.remote())
    system.kill(actor)
    wait_until(lambda: ends_calls(actor), 20, "the end of the actor")
    assert ends_calls(actor)


def test_kill_can_leave_restarts(signals: Signals) -> None:
    actor = mortal(signals.tally("lives"), max_restarts=1, max_task_retries=-1)
    assert system.get(actor.which_life.remote()) == 1
    system.kill(actor, no_restart=False)
    wait_until(lambda: system.get(actor.which_life.remote(), timeout=20) == 2, 20, "the second life")


def test_an_actor_may_leave_by_itself() -> None:
    actor = mortal(max_restarts=5)
    pid = system.get(actor.pid.remote())
    with pytest.raises(system.ActorDiedError):
        system.get(actor.leave.remote(), timeout=20)
    with pytest.raises(system.ActorDiedError):
        system.get(actor.get.remote(), timeout=20)
    wait_gone([pid], 20)


def test_exit_actor_is_for_actors() -> None:
    with pytest.raises(Exception, match="actor"):
        system.exit_actor()


def test_terminate_lets_earlier_calls_finish() -> None:
    actor = mortal()
    pid = system.get(actor.pid.remote())
    counted = [actor.add.remote() for _ in range(5)]
    actor.__ray_terminate__.remote()
    assert system.get(counted, timeout=20) == [1, 2, 3, 4, 5]
    wait_gone([pid], 20)


def test_an_actor_that_nobody_can_call_ends() -> None:
    actor = mortal()
    pid = system.get(actor.pid.remote())
    assert is_alive(pid)
    del actor
    wait_gone([pid], 20)


def test_an_actor_lives_as_long_as_its_last_handle(signals: Signals) -> None:
    started, gate = signals.gate("started"), signals.gate("go")

    @system.remote
    def keep(handles: list[Any]) -> Any:
        started.open()
        gate.wait()
        return system.get(handles[0].add.remote())

    actor = mortal()
    system.get(actor.add.remote())
    ref = keep.remote([actor])
    started.wait()
    del actor
    gate.open()
    assert system.get(ref) == 2


def test_calls_that_were_made_are_answered_though_the_handle_is_gone() -> None:
    actor = mortal()
    refs = [actor.add.remote() for _ in range(10)]
    del actor
    assert system.get(refs) == list(range(1, 11))


def test_a_call_on_a_temporary_handle_is_answered() -> None:
    assert system.get(mortal().add.remote()) == 1


def test_actors_of_a_dead_actor_die_with_it() -> None:
    class Owner:
        def __init__(self) -> None:
            self.child = system.remote(Mortal).remote()

        def pids(self) -> tuple[int, int]:
            return os.getpid(), system.get(self.child.pid.remote())

    owner = system.remote(Owner).remote()
    pids = system.get(owner.pids.remote())
    system.kill(owner)
    wait_gone(pids, 20)


# ---- crashes ----
def test_a_crash_fails_the_call_and_those_that_wait(signals: Signals) -> None:
    started, gate = signals.gate("started"), signals.gate("go")
    actor = mortal()
    first = actor.wait.remote(started, gate)
    crashed, later = actor.crash.remote(), actor.get.remote()
    gate.open()
    assert system.get(first, timeout=20) == "waited"
    for ref in (crashed, later):
        with pytest.raises(system.ActorDiedError):
            system.get(ref, timeout=20)


def test_dependants_of_a_call_that_died_fail_alike() -> None:
    @system.remote
    def depends(value: Any) -> Any:
        return value

    actor = mortal()
    with pytest.raises(system.ActorError):
        system.get(depends.remote(actor.crash.remote()), timeout=20)


def test_a_crashed_actor_is_restarted_with_a_new_state(signals: Signals) -> None:
    actor = mortal(signals.tally("lives"), 10, max_restarts=1)
    assert system.get([actor.add.remote(), actor.which_life.remote()]) == [11, 1]
    with pytest.raises(system.ActorError):
        system.get(actor.crash.remote(), timeout=20)

    def second_life() -> bool:
        try:
            return bool(system.get(actor.which_life.remote(), timeout=20) == 2)
        except system.ActorUnavailableError:
            return False

    wait_until(second_life, 20, "the second life")
    assert system.get(actor.get.remote()) == 10
    assert system.get(actor.was_reconstructed.remote()) is True


def test_a_first_life_is_no_reconstruction() -> None:
    assert system.get(mortal().was_reconstructed.remote()) is False


def test_after_the_last_restart_the_actor_is_dead(signals: Signals) -> None:
    lives = signals.tally("lives")
    actor = mortal(lives, max_restarts=1, max_task_retries=0)
    for _ in range(2):
        life = lives.count()

        def crashed() -> bool:
            try:
                system.get(actor.crash.remote(), timeout=20)
            except system.ActorDiedError:
                return True
            except system.ActorUnavailableError:
                return lives.count() > life
            return False

        wait_until(crashed, 20, "the crash")
    with pytest.raises(system.ActorDiedError):
        system.get(actor.get.remote(), timeout=20)
    assert lives.count() == 2


def test_a_call_is_not_repeated_by_default(signals: Signals) -> None:
    tries = signals.tally("tries")
    actor = mortal(signals.tally("lives"), max_restarts=1)
    with pytest.raises(system.ActorError):
        system.get(actor.crash_in_first_life.remote(tries), timeout=20)
    assert tries.count() == 1


def test_calls_are_repeated_where_that_was_asked_for(signals: Signals) -> None:
    tries = signals.tally("tries")
    actor = mortal(signals.tally("lives"), max_restarts=1, max_task_retries=2)
    assert system.get(actor.crash_in_first_life.remote(tries), timeout=20) == 2
    assert tries.count() == 2


def test_repeated_calls_keep_their_order(signals: Signals) -> None:
    actor = mortal(signals.tally("lives"), max_restarts=1, max_task_retries=1)
    refs = [actor.crash_in_first_life.remote(), *(actor.add.remote() for _ in range(5))]
    assert system.get(refs, timeout=20) == [2, 1, 2, 3, 4, 5]


def test_restarts_without_limit(signals: Signals) -> None:
    lives = signals.tally("lives")
    actor = mortal(lives, max_restarts=-1, max_task_retries=-1)

    @system.remote
    def end(pid: int) -> None:
        os.kill(pid, 9)

    def next_life(after: int) -> None:
        wait_until(lambda: lives.count() > after, 20, "the next life")

    for life in (1, 2, 3):
        assert system.get(actor.which_life.remote(), timeout=20) == life
        system.get(end.remote(system.get(actor.pid.remote(), timeout=20)))
        next_life(life)


def test_errors_of_methods_are_retried_where_that_was_asked_for(signals: Signals) -> None:
    tries = signals.tally("tries")

    class Flaky:
        @system.method(max_task_retries=2, retry_exceptions=True)
        def work(self) -> int:
            count = tries.add()
            if count < 3:
                raise ValueError(f"try {count}")
            return count

    assert system.get(system.remote(Flaky).remote().work.remote(), timeout=20) == 3


def test_a_constructor_that_crashes_is_tried_again(signals: Signals) -> None:
    lives = signals.tally("lives")

    class CrashesAtFirst:
        def __init__(self) -> None:
            if lives.add() == 1:
                os._exit(1)

        def get(self) -> str:
            return "alive"

    actor = system.remote(CrashesAtFirst).options(max_restarts=1, max_task_retries=1).remote()
    assert system.get(actor.get.remote(), timeout=20) == "alive"
