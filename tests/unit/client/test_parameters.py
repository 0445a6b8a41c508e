"""Arguments that do not fit are refused where the call is made."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from runner.client.actors.meta import ActorMeta
from runner.client.actors.options import ActorOptions
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


def elsewhere(function: Any) -> Parameters:
    """As a handle has them that came from another process."""
    return Parameters.unpack(function.__name__, Parameters.of(function).pack())


@pytest.mark.parametrize("known", [Parameters.of, elsewhere])
@pytest.mark.parametrize(("function", "args", "kwargs"), GOOD)
def test_what_fits(known: Any, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    known(function).check(args, kwargs)


@pytest.mark.parametrize("known", [Parameters.of, elsewhere])
@pytest.mark.parametrize(("function", "args", "kwargs", "says"), BAD)
def test_what_does_not(known: Any, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says) as caught:
        known(function).check(args, kwargs)
    assert f"{function.__name__}(a" in str(caught.value)


def adds_one(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(self: Any, *args: Any) -> Any:
        return function(self, *args, 1)

    return wrapper


class Methods:
    plain = plain  # its first argument is the instance

    @staticmethod
    def static(a: Any) -> None: ...

    @classmethod
    def of_class(cls, a: Any) -> None: ...

    @adds_one
    def wrapped(self, a: Any, one: Any) -> None: ...

    partial = functools.partialmethod(plain, 2)


@pytest.mark.parametrize(
    ("name", "fits", "does_not"),
    [
        ("plain", (1,), (1, 2)),
        ("static", (1,), ()),
        ("of_class", (1,), (1, 2)),
        ("wrapped", (1,), None),
        ("partial", (), None),
    ],
)
def test_methods_as_handles_know_them(name: str, fits: tuple[Any, ...], does_not: tuple[Any, ...] | None) -> None:
    """A wrapper's own signature counts, and what Python cannot tell for sure is not refused."""
    parameters = ActorMeta.of(Methods, ActorOptions()).methods[name].parameters
    assert parameters is not None
    parameters.check(fits, {})
    if does_not is not None:
        with pytest.raises(TypeError, match=rf"Methods\.{name}\("):
            parameters.check(does_not, {})


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
