from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from runner.client.remote_function import RemoteFunction
from runner.errors import NotSerializableError, RunnerError
from runner.options import parse_options
from tests.unit.client.memory import MemoryTransport

LOCK = threading.Lock()


def path_of(function: Any) -> str:
    with pytest.raises(NotSerializableError) as caught:
        RemoteFunction(function, parse_options({})).remote()
    assert isinstance(caught.value, TypeError)
    assert caught.value.path in str(caught.value)
    return caught.value.path


def test_a_lock_in_a_closure(transport: MemoryTransport) -> None:
    lock = threading.Lock()

    def train() -> None:
        lock.acquire()

    assert path_of(train) == "train.<closure>.lock"


def test_deep_inside_a_closure(transport: MemoryTransport) -> None:
    config: dict[str, Any] = {"model": [1, {"handle": threading.Lock()}]}

    def train() -> Any:
        return config

    assert path_of(train) == "train.<closure>.config['model'][1]['handle']"


def test_a_global(transport: MemoryTransport) -> None:
    def make() -> Any:
        def train() -> Any:
            return LOCK

        return train

    assert path_of(make()) == "train.<globals>.LOCK"


def test_a_global_of_an_inner_function(transport: MemoryTransport) -> None:
    def train() -> Any:
        def inner() -> Any:
            return LOCK

        return inner()

    assert path_of(train) == "train.<globals>.LOCK"


def test_a_default(transport: MemoryTransport) -> None:
    def train(lock: Any = threading.Lock()) -> None: ...

    def other(*, lock: Any = threading.Lock()) -> None: ...

    assert path_of(train) == "train.<defaults>[0]"
    assert path_of(other) == "other.<defaults>.lock"


def test_a_helper_in_a_closure(transport: MemoryTransport) -> None:
    lock = threading.Lock()

    def helper() -> Any:
        return lock

    def train() -> Any:
        return helper()

    assert path_of(train) == "train.<closure>.helper.<closure>.lock"


def test_a_bound_method(transport: MemoryTransport) -> None:
    class Trainer:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def train(self) -> None: ...

    assert path_of(Trainer().train) == "train.__self__.lock"


def test_the_message_says_what_it_is_and_what_to_do(transport: MemoryTransport) -> None:
    stream = (index for index in range(3))

    def train() -> Any:
        return stream

    with pytest.raises(NotSerializableError, match=r"it is a builtins.generator .*Pass a list") as caught:
        RemoteFunction(train, parse_options({})).remote()
    assert caught.value.__cause__ is None


def test_an_object_that_refuses_is_named_itself(transport: MemoryTransport) -> None:
    class Refuses:
        def __reduce__(self) -> Any:
            raise ValueError("not me")

    thing = {"x": Refuses()}

    def train() -> Any:
        return thing

    with pytest.raises(RunnerError, match=r"train.<closure>.thing\['x'\] .*ValueError: not me"):
        RemoteFunction(train, parse_options({})).remote()


def test_a_cycle_ends(transport: MemoryTransport) -> None:
    loop: list[Any] = [threading.Lock()]
    loop.insert(0, loop)

    def train() -> Any:
        return loop

    assert path_of(train) == "train.<closure>.loop[1]"


def test_a_large_closure_is_warned_about(transport: MemoryTransport, caplog: pytest.LogCaptureFixture) -> None:
    weights = bytearray(11 * 1024 * 1024)
    small = 5

    def train() -> int:
        return len(weights) + small

    with caplog.at_level(logging.WARNING, logger="runner"):
        ref = RemoteFunction(train, parse_options({})).remote()
    assert "train is 11.5 MB when pickled, because it uses train.<closure>.weights (11.5 MB)" in caplog.text
    assert "runner.put()" in caplog.text
    assert ref is not None
