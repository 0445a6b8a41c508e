"""Whether a call's arguments fit the function: said where the call is made, as in a local call, and not minutes later."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from runner.errors import BadTypeError

_MANY = 1 << 30


class Parameters:
    """Those of one function. One whose signature Python cannot tell takes anything."""

    __slots__ = ("_least", "_most", "_name", "_signature")

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = getattr(function, "__qualname__", repr(function))
        self._least, self._most = 0, _MANY  # so many arguments fit, if all are positional
        self._signature: inspect.Signature | None = None
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError):
            return
        kinds = inspect.Parameter
        parameters = self._signature.parameters.values()
        positional = [each for each in parameters if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
        self._least = sum(each.default is kinds.empty for each in positional)
        if not any(each.kind is kinds.VAR_POSITIONAL for each in parameters):
            self._most = len(positional)
        if any(each.kind is kinds.KEYWORD_ONLY and each.default is kinds.empty for each in parameters):
            self._least = _MANY

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse arguments that the function cannot take.

        Raises:
            BadTypeError: says which is missing or too many.
        """
        if self._signature is None or (not kwargs and self._least <= len(args) <= self._most):
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadTypeError(
                f"{self._name}{self._signature} cannot be called with these arguments: {error}."
            ) from None
