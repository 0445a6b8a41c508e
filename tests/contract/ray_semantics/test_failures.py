"""Errors are values: where they are raised, of which type, with which words."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Signals


class Custom(Exception):
    def __init__(self, message: str, code: int) -> None:
        super().__init__(message, code)
        self.code = code


class NotRebuildable(Exception):
    """Can be pickled, but its constructor wants more than pickle gives it."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


class HoldsLock(Exception):
    """Cannot be pickled at all."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


@system.remote
def fail(error: type[BaseException] = ValueError, *args: Any) -> None:
    raise error(*(args or ("the words",)))


@system.remote
def same(value: Any) -> Any:
    return value


def test_what_a_task_raises_is_raised_by_get() -> None:
    with pytest.raises(ValueError, match="the words"):
        system.get(fail.remote())


def test_the_error_is_also_the_systems_own() -> None:
    with pytest.raises(system.TaskError) as caught:
        system.get(fail.remote(KeyError, "key"))
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, system.SystemError)


def test_subclasses_are_caught_by_their_bases() -> None:
    with pytest.raises(LookupError):
        system.get(fail.remote(IndexError))
    with pytest.raises(OSError):
        system.get(fail.remote(FileNotFoundError))


def test_the_error_is_no_instance_of_other_types() -> None:
    with pytest.raises(system.TaskError) as caught:
        system.get(fail.remote(KeyError, "key"))
    assert not isinstance(caught.value, ValueError | system.WorkerCrashedError)


def test_the_cause_is_the_exception_that_was_raised() -> None:
    with pytest.raises(Custom) as caught:
        system.get(fail.remote(Custom, "words", 7))
    assert isinstance(caught.value, system.TaskError)
    assert type(caught.value.cause) is Custom
    assert caught.value.cause.args == ("words", 7)
    assert caught.value.cause.code == 7


def test_attributes_of_the_exception_can_be_read_off_the_error() -> None:
    with pytest.raises(Custom) as caught:
        system.get(fail.remote(Custom, "words", 7))
    assert caught.value.code == 7


def test_the_text_has_the_traceback_of_the_task() -> None:
    @system.remote
    def somewhere_deep() -> None:
        raise ValueError("deep down")

    with pytest.raises(ValueError) as caught:
        system.get(somewhere_deep.remote())
    assert "somewhere_deep" in str(caught.value)
    assert "deep down" in str(caught.value)


def test_the_text_tells_of_the_error_that_led_to_it() -> None:
    @system.remote
    def chained() -> None:
        try:
            _ = 1 / 0
        except ZeroDivisionError as error:
            raise KeyError("outer") from error

    with pytest.raises(KeyError) as caught:
        system.get(chained.remote())
    assert "ZeroDivisionError" in str(caught.value)


def test_dependants_raise_the_first_error() -> None:
    failed = fail.remote(ValueError, "the origin")
    with pytest.raises(ValueError, match="the origin"):
        system.get(same.remote(same.remote(failed)))


def test_dependants_of_a_failed_task_never_run(signals: Signals) -> None:
    ran = signals.tally("ran")

    @system.remote
    def depends(value: Any) -> None:
        ran.add()

    with pytest.raises(ValueError):
        system.get(depends.remote(fail.remote()))
    assert ran.count() == 0


def test_a_failed_ref_inside_a_container_fails_only_when_it_is_read() -> None:
    @system.remote
    def look(refs: list[Any]) -> str:
        try:
            system.get(refs[0])
        except ValueError:
            return "caught"
        return "nothing"

    assert system.get(look.remote([fail.remote()])) == "caught"


def test_an_error_of_a_nested_task_passes_through() -> None:
    @system.remote
    def outer() -> None:
        system.get(fail.remote(KeyError, "innermost"))

    with pytest.raises(KeyError, match="innermost") as caught:
        system.get(outer.remote())
    assert isinstance(caught.value, system.TaskError)


def test_get_of_a_list_raises_when_one_of_them_failed() -> None:
    with pytest.raises(ValueError):
        system.get([same.remote(1), fail.remote(), same.remote(2)])


def test_a_failed_ref_is_ready() -> None:
    ref = fail.remote()
    assert system.wait([ref], timeout=20) == ([ref], [])


def test_an_error_is_raised_each_time() -> None:
    ref = fail.remote()
    for _ in range(2):
        with pytest.raises(ValueError, match="the words"):
            system.get(ref)


def test_an_exception_that_cannot_be_pickled_can_still_be_read() -> None:
    with pytest.raises(system.TaskError, match="held fast"):
        system.get(fail.remote(HoldsLock, "held fast"))


def test_an_exception_that_cannot_be_rebuilt_can_still_be_read() -> None:
    with pytest.raises(system.SystemError, match="this and that"):
        system.get(fail.remote(NotRebuildable, "this", "that"))


def test_a_result_that_cannot_be_pickled_is_an_error() -> None:
    @system.remote
    def lock() -> Any:
        return threading.Lock()

    with pytest.raises(TypeError, match="lock"):
        system.get(lock.remote())


def test_an_exception_may_be_returned_as_a_value() -> None:
    value = system.get(same.remote(ValueError("a value")))
    assert isinstance(value, ValueError)
    assert value.args == ("a value",)


def test_stop_iteration_is_an_error_like_others() -> None:
    with pytest.raises(system.TaskError) as caught:
        system.get(fail.remote(StopIteration, 4))
    assert isinstance(caught.value, StopIteration)


def test_asserts_fail_the_task() -> None:
    @system.remote
    def check() -> None:
        assert not "this", "not equal"

    with pytest.raises(AssertionError, match="not equal"):
        system.get(check.remote())


def test_sys_exit_with_a_code_counts_as_a_crash() -> None:
    with pytest.raises(system.WorkerCrashedError):
        system.get(fail.options(max_retries=0).remote(SystemExit, 3))


async def test_errors_are_raised_by_await() -> None:
    with pytest.raises(ValueError, match="the words"):
        await fail.remote()


def test_errors_are_those_of_the_future() -> None:
    error = fail.remote().future().exception(timeout=20)
    assert isinstance(error, ValueError)
    assert isinstance(error, system.TaskError)
