"""Functions as bytes, and where the large ones are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.objects.refs import ObjectRef
from runner.objects.serialization import Buffer, deserialize


class FunctionElsewhere:
    """Stands for a function that is too large for a message: it is the value of a ref."""

    __slots__ = ("ref",)

    def __init__(self, ref: ObjectRef[Any]) -> None:
        self.ref = ref

    def __reduce__(self) -> tuple[type[FunctionElsewhere], tuple[ObjectRef[Any]]]:
        return FunctionElsewhere, (self.ref,)


def load_function(blob: Buffer, get: Callable[[ObjectRef[Any]], Any]) -> Callable[..., Any]:
    """The function of a `types_pb2.Function`'s blob; `get` brings the value of a ref (a large function)."""
    function = deserialize(blob)
    if isinstance(function, FunctionElsewhere):
        function = get(function.ref)
    return function  # type: ignore[no-any-return]
