"""`@runner.template`: a function without arguments whose value is made once per machine, in the process that executors are forked from.

Where no template has made it, its first call in a process makes it.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar, overload

from runner.errors import BadOptionsError, BadTypeError
from runner.options import parse_timeout

R = TypeVar("R")

TIMEOUT_S = 600.0

# Values made in this process, or in the template that it was forked from: by key, and by name where that leads to one function.
_made: dict[str, Any] = {}
# One lock per value: code that makes one may wait for threads that make another.
_making: dict[str, threading.RLock] = {}
_lock = threading.RLock()  # of the keys, and of `_making`
_is_template_process = False


def enter_template_process() -> None:
    """From now on this process runs the code of templates, to be forked afterwards."""
    global _is_template_process
    _is_template_process = True


def leave_template_process() -> None:
    """This process was forked from a template: it may do what it likes."""
    global _is_template_process
    _is_template_process = False


def in_template_process() -> bool:
    """Whether code that runs now runs in a template."""
    return _is_template_process


class TemplateFunction(Generic[R]):
    """Calling it gives the value, the same object each time in a process."""

    __runner_template__ = True

    def __init__(self, function: Callable[[], R], timeout_s: float, key: str = "") -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self.timeout_s = timeout_s
        self._key = key  # of its content; "" until it is pickled, and where it was imported by name
        self._is_hashing = False
        self._lock = threading.RLock()
        self._value: list[R] = []  # once it is known here

    def __call__(self) -> R:
        """The value: made by the template that this process was forked from, else by the first call here."""
        if not self._value:
            places = [place for place in (self._key, self._place_by_name()) if place]
            with self._lock_of(places):
                if not self._value:
                    self._value.append(self._find(places))
        return self._value[0]

    def __repr__(self) -> str:
        return f"<template {self.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return TemplateFunction, (self._function, self.timeout_s, self.find_key())

    @property
    def name(self) -> str:
        """For people."""
        module, name = self._function.__module__, self._function.__qualname__
        return name if module == "__main__" else f"{module}.{name}"

    def find_key(self) -> str:
        """A hash of the pickled code. The first process that pickles it says what it is: pickles differ between processes."""
        with _lock:
            if not self._key and not self._is_hashing:  # a function may name itself
                self._is_hashing = True
                try:
                    self._key = hashlib.sha256(self._pickled_function()).hexdigest()[:32]
                finally:
                    self._is_hashing = False
            return self._key

    def _pickled_function(self) -> bytes:
        from runner.client.pickling_errors import not_serializable
        from runner.objects.serialization import serialize

        try:
            return serialize(self._function).to_bytes()
        except Exception as error:
            raise not_serializable(self._function, self.name, error) from None

    def _lock_of(self, places: Sequence[str]) -> threading.RLock:
        if not places:
            return self._lock
        with _lock:
            return _making.setdefault(places[0], threading.RLock())

    def _find(self, places: Sequence[str]) -> R:
        # A key says more than a name, which another version of the code may have.
        if places and places[0] in _made:
            value: R = _made[places[0]]
            return value
        value = self._function()
        _made.update(dict.fromkeys(places, value))
        return value

    def _place_by_name(self) -> str:
        """Empty for a function that no import leads to."""
        module, name = self._function.__module__, self._function.__qualname__
        return "" if module == "__main__" or "<locals>" in name else f"{module}:{name}"


class TemplateDecorator(Protocol):
    """What `runner.template(...)` with options returns."""

    def __call__(self, function: Callable[[], R], /) -> TemplateFunction[R]: ...


@overload
def template(function: Callable[[], R], /) -> TemplateFunction[R]: ...
@overload
def template(*, timeout_s: float = TIMEOUT_S) -> TemplateDecorator: ...
def template(function: Any = None, /, *, timeout_s: float = TIMEOUT_S) -> Any:
    """Run a function once per machine and environment, in the process that workers are forked from.

    The function has no arguments, imports what it needs and returns what tasks share, such as a model's weights on the CPU. Tasks and
    actors that name it (in their code, or by `template=`) run in forks of that process: calling it there gives the value at
    once, and all of them share its memory. It must not use a GPU, and no thread of its may live on: else each process makes
    the value for itself, and a warning says why. What it raises fails the tasks that need it. `timeout_s` is its time limit.

    Raises:
        BadOptionsError: the function has parameters, or is a generator or a coroutine function.
    """
    limit_s = parse_timeout("timeout_s", timeout_s)
    if function is None:
        return lambda decorated: _checked(decorated, limit_s)
    return _checked(function, limit_s)


def _checked(function: Any, timeout_s: float) -> TemplateFunction[Any]:
    if not inspect.isfunction(function):
        raise BadTypeError(f"runner.template takes a function, not a {type(function).__name__}.")
    name = function.__qualname__
    kinds = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(is_kind(function) for is_kind in kinds):
        raise BadOptionsError(f"{name} cannot be a template: expected a plain function that returns the value.")
    if inspect.signature(function).parameters:
        raise BadOptionsError(
            f"{name} cannot be a template: it has parameters, and nobody would give it arguments. Make one template per value."
        )
    return TemplateFunction(function, timeout_s)
