"""Whether a call's arguments fit the function: said where the call is made, as in a local call, and not minutes later."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self

from runner.errors import BadTypeError

_MANY = 1 << 30
_KINDS = {
    int(kind): kind
    for kind in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.KEYWORD_ONLY,
        inspect.Parameter.VAR_KEYWORD,
    )
}


class _Some:
    """A default that is elsewhere."""

    def __repr__(self) -> str:
        return "..."


_SOME = _Some()


class Parameters:
    """Those of one function. One whose signature Python cannot tell takes anything."""

    __slots__ = ("_least", "_most", "_name", "_signature")

    def __init__(self, name: str, signature: inspect.Signature | None) -> None:
        self._name = name
        self._least, self._most = 0, _MANY  # so many arguments fit, if all are positional
        self._signature = signature
        if signature is None:
            return
        kinds = inspect.Parameter
        parameters = signature.parameters.values()
        positional = [each for each in parameters if each.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
        self._least = sum(each.default is kinds.empty for each in positional)
        if not any(each.kind is kinds.VAR_POSITIONAL for each in parameters):
            self._most = len(positional)
        if any(each.kind is kinds.KEYWORD_ONLY and each.default is kinds.empty for each in parameters):
            self._least = _MANY

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Self:
        """Those that `function` says it has."""
        name = getattr(function, "__qualname__", repr(function))
        try:
            return cls(name, inspect.signature(function))
        except (TypeError, ValueError):
            return cls(name, None)

    def pack(self) -> list[list[Any]] | None:
        """What `unpack` needs: name, kind, and whether it may be left out, of each. Defaults and annotations do not travel."""
        if self._signature is None:
            return None
        parameters = self._signature.parameters.values()
        return [[each.name, int(each.kind), each.default is not inspect.Parameter.empty] for each in parameters]

    @classmethod
    def unpack(cls, name: str, rows: list[list[Any]] | None) -> Self:
        """The inverse of `pack`, for a function that is elsewhere."""
        if rows is None:
            return cls(name, None)
        parameters = [
            inspect.Parameter(each, _KINDS[kind], default=_SOME if is_optional else inspect.Parameter.empty)
            for each, kind, is_optional in rows
        ]
        return cls(name, inspect.Signature(parameters))

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
