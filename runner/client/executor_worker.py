"""What the calls of a `runner.Executor` do in a worker process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_initialised: dict[str, str] = {}  # by executor: empty, or why it failed


def chunked(function: Callable[..., T]) -> Callable[[Iterable[tuple[Any, ...]]], list[T]]:
    """Several calls of `function` in one."""

    def run_chunk(chunk: Iterable[tuple[Any, ...]]) -> list[T]:
        return [function(*args) for args in chunk]

    return run_chunk


def initialised(
    function: Callable[..., Any], token: str, initializer: Callable[..., object], initargs: tuple[Any, ...]
) -> Callable[..., Any]:
    """`function`, called in a process where the initializer of executor `token` has run."""

    def call(*args: Any, **kwargs: Any) -> Any:
        initialise(token, initializer, initargs)
        return function(*args, **kwargs)

    return call


def initialise(token: str, initializer: Callable[..., object], initargs: tuple[Any, ...]) -> None:
    """Once per process and executor.

    Raises:
        BrokenExecutor: it raised, now or before.
    """
    if token not in _initialised:
        try:
            initializer(*initargs)
        except Exception as error:
            _initialised[token] = f"the initializer raised {type(error).__name__}: {error}"
        else:
            _initialised[token] = ""
    if _initialised[token]:
        raise BrokenExecutor(f"A worker process could not be initialised: {_initialised[token]}")
