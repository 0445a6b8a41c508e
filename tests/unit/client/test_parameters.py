"""Arguments that do not fit are refused where the call is made."""

from __future__ import annotations

from typing import Any

import pytest

from runner.client.parameters import Parameters
from runner.client.session import Session
from tests.unit.client.memory import MemoryTransport, remote


def plain(a: Any, b: Any = 0) -> None: ...


def keywords(a: Any, *, b: Any, c: Any = 0) -> None: ...


def many(*args: Any, **kwargs: Any) -> None: ...


GOOD: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    (plain, (1,), {}),
    (plain, (1, 2), {}),
    (plain, (), {"a": 1}),
    (keywords, (1,), {"b": 2}),
    (many, (), {}),
    (many, (1, 2, 3), {"x": 1}),
    (max, (1, 2), {}),  # Python cannot tell its signature
    (pow, (2, 8), {}),
]
BAD: list[tuple[Any, tuple[Any, ...], dict[str, Any], str]] = [
    (plain, (), {}, "missing a required argument: 'a'"),
    (plain, (1, 2, 3), {}, "too many positional arguments"),
    (plain, (1,), {"c": 3}, "unexpected keyword argument 'c'"),
    (plain, (1,), {"a": 3}, "multiple values for argument 'a'"),
    (keywords, (1,), {}, "missing a required argument: 'b'"),
]


@pytest.mark.parametrize(("function", "args", "kwargs"), GOOD)
def test_what_fits(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    Parameters(function).check(args, kwargs)


@pytest.mark.parametrize(("function", "args", "kwargs", "says"), BAD)
def test_what_does_not(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says) as caught:
        Parameters(function).check(args, kwargs)
    assert f"{function.__name__}(a" in str(caught.value)


def test_a_call_that_does_not_fit_is_not_sent(session: Session, transport: MemoryTransport) -> None:
    def one(x: int) -> int:
        return x

    function = remote()
    function.__runner_function__ = one
    function._pickle._function = one
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        function.options(num_cpus=2).remote()
    assert transport.submits() == []
    assert session.failure is None
