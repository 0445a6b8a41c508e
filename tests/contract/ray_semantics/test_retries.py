"""Crashes are retried, errors only where that was asked for."""

from __future__ import annotations

import os
import signal

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Signals, Tally


@system.remote
def crash_until(tally: Tally, good: int) -> int:
    """Ends its process in every attempt before the `good`th."""
    attempt = tally.add()
    if attempt < good:
        os._exit(1)
    return attempt


@system.remote
def raise_until(tally: Tally, good: int, error: type[Exception] = ValueError) -> int:
    attempt = tally.add()
    if attempt < good:
        raise error(f"attempt {attempt}")
    return attempt


def test_crashes_are_retried_by_default(signals: Signals) -> None:
    assert system.get(crash_until.remote(signals.tally("ok"), 3)) == 3


def test_a_task_may_crash_three_times_and_still_succeed(signals: Signals) -> None:
    assert system.get(crash_until.remote(signals.tally("ok"), 4)) == 4


def test_after_the_last_retry_the_crash_is_the_error(signals: Signals) -> None:
    tally = signals.tally("bad")
    with pytest.raises(system.WorkerCrashedError):
        system.get(crash_until.options(max_retries=2).remote(tally, 9))
    assert tally.count() == 3


def test_max_retries_zero_means_one_attempt(signals: Signals) -> None:
    tally = signals.tally("once")
    with pytest.raises(system.WorkerCrashedError):
        system.get(crash_until.options(max_retries=0).remote(tally, 9))
    assert tally.count() == 1


def test_max_retries_minus_one_means_no_limit(signals: Signals) -> None:
    assert system.get(crash_until.options(max_retries=-1).remote(signals.tally("many"), 7)) == 7


def test_a_killed_worker_counts_as_a_crash(signals: Signals) -> None:
    tally = signals.tally("killed")

    @system.remote
    def kill_self_once() -> int:
        attempt = tally.add()
        if attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return attempt

    assert system.get(kill_self_once.remote()) == 2


def test_a_crash_is_no_error_of_the_user(signals: Signals) -> None:
    with pytest.raises(system.WorkerCrashedError) as caught:
        system.get(crash_until.options(max_retries=0).remote(signals.tally("once"), 9))
    assert not isinstance(caught.value, system.TaskError)
    assert isinstance(caught.value, system.SystemError)


def test_dependants_of_a_crashed_task_fail_with_the_crash(signals: Signals) -> None:
    @system.remote
    def depends(value: int) -> int:
        return value

    with pytest.raises(system.WorkerCrashedError):
        system.get(depends.remote(crash_until.options(max_retries=0).remote(signals.tally("once"), 9)))


def test_all_returns_of_a_crashed_task_fail(signals: Signals) -> None:
    for ref in crash_until.options(max_retries=0, num_returns=2).remote(signals.tally("once"), 9):
        with pytest.raises(system.WorkerCrashedError):
            system.get(ref)


def test_errors_are_not_retried_by_default(signals: Signals) -> None:
    tally = signals.tally("plain")
    with pytest.raises(ValueError, match="attempt 1"):
        system.get(raise_until.remote(tally, 2))
    assert tally.count() == 1


def test_retry_exceptions_retries_any_error(signals: Signals) -> None:
    assert system.get(raise_until.options(retry_exceptions=True).remote(signals.tally("any"), 3)) == 3


def test_retry_exceptions_counts_against_max_retries(signals: Signals) -> None:
    tally = signals.tally("limited")
    with pytest.raises(ValueError, match="attempt 2"):
        system.get(raise_until.options(retry_exceptions=True, max_retries=1).remote(tally, 9))
    assert tally.count() == 2


def test_retry_exceptions_with_no_retries_does_nothing(signals: Signals) -> None:
    tally = signals.tally("none")
    with pytest.raises(ValueError, match="attempt 1"):
        system.get(raise_until.options(retry_exceptions=True, max_retries=0).remote(tally, 9))
    assert tally.count() == 1


@pytest.mark.parametrize("listed", [ValueError, Exception])
def test_listed_errors_and_their_subclasses_are_retried(signals: Signals, listed: type[Exception]) -> None:
    ref = raise_until.options(retry_exceptions=[KeyError, listed]).remote(signals.tally("listed"), 2, UnicodeError)
    assert system.get(ref) == 2


def test_errors_that_are_not_listed_are_not_retried(signals: Signals) -> None:
    tally = signals.tally("other")
    with pytest.raises(ValueError, match="attempt 1"):
        system.get(raise_until.options(retry_exceptions=[KeyError]).remote(tally, 2))
    assert tally.count() == 1


def test_crashes_are_retried_whatever_is_listed(signals: Signals) -> None:
    assert system.get(crash_until.options(retry_exceptions=[KeyError]).remote(signals.tally("crash"), 2)) == 2


def test_what_is_no_exception_cannot_be_listed() -> None:
    with pytest.raises((TypeError, ValueError)):
        system.remote(retry_exceptions=["ValueError"])(lambda: None)


def test_a_retried_task_keeps_its_id_and_its_ref(signals: Signals) -> None:
    tally, ids = signals.tally("ids"), signals.gate("ids").path

    @system.remote
    def tell() -> str:
        with open(ids, "a") as file:
            file.write(system.get_runtime_context().get_task_id() + "\n")
        if tally.add() == 1:
            os._exit(1)
        return "done"

    assert system.get(tell.remote()) == "done"
    with open(ids) as file:
        first, second = file.read().split()
    assert first == second


def test_other_tasks_go_on_while_one_crashes(signals: Signals) -> None:
    crashing = crash_until.remote(signals.tally("crash"), 3)
    fine = [raise_until.remote(signals.tally(f"fine{index}"), 1) for index in range(5)]
    assert system.get(fine) == [1] * 5
    assert system.get(crashing) == 3
