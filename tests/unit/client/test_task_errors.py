from __future__ import annotations

import pickle
import threading
import traceback
from typing import Any

import pytest

from runner import errors
from runner.client.task_errors import exception_from_failure, failure_from_exception
from runner.errors import TaskError
from runner.rpc.gen import types_pb2


class NeedsArguments(Exception):
    """Its initialiser does not take its args."""

    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(f"{one}/{two}")
        self.two = two


class WithFields(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class HoldsALock(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class RefusesPickle(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("no")


class BadText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def raised(error: BaseException) -> types_pb2.Failure:
    try:
        raise error
    except BaseException as caught:
        failure = failure_from_exception(caught)
    failure.task_id, failure.task_name, failure.attempt, failure.machine_id = "t-1", "lr=0.1", 2, "m-3"
    failure.history.append("attempt 1 on m-2: executor killed by signal 9 (SIGKILL)")
    return failure


EXAMPLES = [
    ValueError("bad"),
    KeyError("k"),
    OSError(2, "No such file", "/f"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    StopIteration(5),
    ImportError("no module", name="x"),
    MemoryError("much"),
    WithFields(7),
    NeedsArguments(1, two=2),
    ExceptionGroup("several", [ValueError(1), KeyError(2)]),
    errors.GetTimeoutError("late"),
    errors.NotScalarError("not a number"),
    errors.StoreFullError("full", task_id="t-9"),
]


@pytest.mark.parametrize("original", EXAMPLES, ids=lambda error: type(error).__name__)
def test_the_error_is_of_both_types_and_survives_pickle(original: Exception) -> None:
    error = exception_from_failure(raised(original))
    assert isinstance(error, TaskError)
    assert isinstance(error, type(original))
    assert repr(error.args) == repr(original.args)
    assert type(error.cause) is type(original)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again).keys() == vars(error).keys()


def test_fields_of_the_original_can_be_read() -> None:
    os_error: Any = exception_from_failure(raised(OSError(2, "No such file", "/f")))
    assert (os_error.errno, os_error.filename) == (2, "/f")
    assert isinstance(os_error, FileNotFoundError)
    unicode_error: Any = exception_from_failure(raised(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")))
    assert (unicode_error.start, unicode_error.reason) == (0, "invalid")
    needs_arguments: Any = exception_from_failure(raised(NeedsArguments(1, two=2)))
    assert (needs_arguments.two, needs_arguments.args) == (2, ("1/2",))
    with_fields: Any = exception_from_failure(raised(WithFields(7)))
    assert with_fields.code == 7


def test_the_text_tells_the_story() -> None:
    error: Any = exception_from_failure(raised(ValueError("bad")))
    lines = str(error).splitlines()
    assert lines[0] == "lr=0.1 raised ValueError: bad (attempt 2 on m-3)"
    assert lines[1] == "  attempt 1 on m-2: executor killed by signal 9 (SIGKILL)"
    assert "in raised" in error.remote_traceback
    assert error.remote_traceback.rstrip() in str(error)
    assert (error.task_id, error.attempt, error.machine_id) == ("t-1", 2, "m-3")


@pytest.mark.parametrize("original", [HoldsALock(), RefusesPickle("x")])
def test_an_exception_that_cannot_travel_is_readable(original: Exception) -> None:
    error: Any = exception_from_failure(raised(original))
    assert type(error).__mro__[1] is TaskError
    assert error.cause is None
    assert type(original).__name__ in str(error)
    assert "could not be brought here" in str(error)
    assert "in raised" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_an_exception_whose_text_fails_is_told() -> None:
    assert "<its text could not be made: RuntimeError>" in str(exception_from_failure(raised(BadText())))


@pytest.mark.parametrize("original", [SystemExit(3), KeyboardInterrupt()])
def test_what_ends_processes_does_not_end_the_client(original: BaseException) -> None:
    error = exception_from_failure(raised(original))
    assert isinstance(error, TaskError)
    assert isinstance(error, Exception)
    assert not isinstance(error, SystemExit | KeyboardInterrupt)


def nested(error: Exception, depth: int) -> Any:
    """What a client gets of an error that came through so many tasks, none of which handled it."""
    for _ in range(depth):
        error = exception_from_failure(raised(error))
    return error


@pytest.mark.parametrize("original", [ValueError("bad"), HoldsALock()])
def test_an_error_of_an_error_keeps_its_type(original: Exception) -> None:
    inner, outer = nested(original, 1), nested(original, 3)
    assert type(outer) is type(inner)
    assert outer.args == inner.args
    assert str(pickle.loads(pickle.dumps(outer))) == str(outer)
    if inner.cause is not None:
        assert type(outer.cause) is type(original)
        assert str(outer).splitlines()[0] == str(inner).splitlines()[0]


def test_the_story_of_nested_errors_is_told_once() -> None:
    text = str(nested(ValueError("bad"), 6))
    assert text.count("in raised") == 6
    assert text.endswith("\nValueError: bad")  # as Python tells it, where it was raised


def test_tracebacks_name_the_type_that_can_be_caught() -> None:
    told = traceback.format_exception_only(exception_from_failure(raised(HoldsALock())))[0]
    assert told.startswith("runner.errors.TaskError: lr=0.1 raised ")


def test_each_reading_is_a_new_exception() -> None:
    failure = raised(ValueError("bad"))
    assert exception_from_failure(failure) is not exception_from_failure(failure)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (types_pb2.FAILURE_KIND_WORKER_CRASHED, errors.WorkerCrashedError),
        (types_pb2.FAILURE_KIND_OUT_OF_MEMORY, MemoryError),
        (types_pb2.FAILURE_KIND_MACHINE_LOST, errors.MachineLostError),
        (types_pb2.FAILURE_KIND_CANCELLED, errors.TaskCancelledError),
        (types_pb2.FAILURE_KIND_TIMEOUT, errors.TaskTimeoutError),
        (types_pb2.FAILURE_KIND_UNSCHEDULABLE, errors.UsageError),
        (types_pb2.FAILURE_KIND_OBJECT_LOST, errors.ObjectLostError),
        (types_pb2.FAILURE_KIND_SETUP, errors.TaskSetupError),
        (types_pb2.FAILURE_KIND_STORE_FULL, OSError),
    ],
)
def test_other_failures(kind: types_pb2.FailureKind, expected: type[Exception]) -> None:
    failure = types_pb2.Failure(kind=kind, message="what happened", task_id="t-1", attempt=3, history=["attempt 1: x"])
    error: Any = exception_from_failure(failure)
    assert isinstance(error, expected)
    assert str(error) == "what happened\n  attempt 1: x"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.attempt, str(again)) == (type(error), 3, str(error))


def test_every_error_class_survives_pickle() -> None:
    classes = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.RunnerError)
    ]
    assert len(classes) > 20
    for cls in classes:
        again = pickle.loads(pickle.dumps(cls("text")))
        assert type(again) is cls
        assert again.args == ("text",)


def test_long_texts_lose_their_middle_and_stay_valid() -> None:
    failure = raised(RuntimeError("head" + "\udc80ü" * 2_000_000 + "tail"))
    assert failure.message.startswith("head") and failure.message.split(" [pickled")[0].endswith("tail")
    assert "bytes left out" in failure.message
    assert failure.ByteSize() < 128 * 1024
    assert failure.exception == b""
