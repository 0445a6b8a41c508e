"""The tree of errors, and Ray's names for it."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from runner import errors, exceptions

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.RunnerError)]


def test_every_error_is_in_the_tree_at_the_top() -> None:
    drawn = set(re.findall(r"\w+Error", (errors.__doc__ or "").split("Message order")[0]))
    public = {kind.__name__ for kind in CLASSES if not kind.__name__.startswith("_")}
    assert public <= drawn


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickle(kind: type[errors.RunnerError]) -> None:
    again = pickle.loads(pickle.dumps(kind("what failed")))
    assert type(again) is kind
    assert str(again) == "what failed"


def test_names_that_ray_has_mean_the_same_branch() -> None:
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), exceptions.RayError), name
    for kind in (exceptions.ActorUnavailableError, exceptions.ActorDiedError):
        assert issubclass(kind, exceptions.RayActorError)
    assert issubclass(exceptions.OwnerDiedError, exceptions.ObjectLostError)
    assert issubclass(exceptions.GetTimeoutError, TimeoutError)


def test_a_forced_cancel_is_caught_under_either_name() -> None:
    error = errors.TaskKilledError("task t-1 was cancelled with force")
    assert isinstance(error, exceptions.TaskCancelledError)
    assert isinstance(error, exceptions.WorkerCrashedError)


def test_an_attempt_that_the_message_tells_of_is_not_told_again() -> None:
    history = ("attempt 1 on m-1: killed by signal 9", "attempt 2 on m-1: exited with code 3")
    error = errors.WorkerCrashedError("task t-1: exited with code 3; return instead", history=history)
    assert str(error).splitlines() == ["task t-1: exited with code 3; return instead", f"  {history[0]}"]
