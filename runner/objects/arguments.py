"""The arguments of a call: top-level refs become slots that the executor fills with the values they stand for.

`pack` and `unpack` are the two ends. Small arguments travel inside the TaskSpec. Large ones are put as one object, which
is then the call's *last* dependency and named by `WHOLE` in place of the arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.objects.refs import ObjectRef
from runner.objects.serialization import Serialized, deserialize, is_plain, serialize, serialize_plain
from runner.rpc.gen import types_pb2


class Slot:
    """Stands for the value of one dependency."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> tuple[type[Slot], tuple[int]]:
        return Slot, (self.index,)


EMPTY = serialize_plain(((), {}))
WHOLE = serialize_plain(None)


def pack(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes | Serialized, list[ObjectRef[Any]]]:
    """Encode a call's arguments: finished bytes when they are plain, else a Serialized; and the refs to wait for."""
    if not args and not kwargs:
        return EMPTY, []
    if is_plain(args) and is_plain(kwargs.values()):
        return serialize_plain((args, kwargs)), []
    refs: dict[ObjectRef[Any], int] = {}

    def slotted(value: Any) -> Any:
        if type(value) is not ObjectRef:
            return value
        return Slot(refs.setdefault(value, len(refs)))

    slotted_args = tuple(map(slotted, args))
    slotted_kwargs = {name: slotted(value) for name, value in kwargs.items()}
    return serialize((slotted_args, slotted_kwargs)), list(refs)


def unpack(args: types_pb2.Value, dependencies: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Decode a call's arguments; `dependencies` are the values of `spec.dependencies`, in order."""
    if args.inline == EMPTY:
        return (), {}
    packed = dependencies[-1] if args.inline == WHOLE else deserialize(args.inline)
    if not dependencies:
        return packed  # type: ignore[no-any-return]
    filled = tuple(dependencies[arg.index] if type(arg) is Slot else arg for arg in packed[0])
    named = {name: dependencies[arg.index] if type(arg) is Slot else arg for name, arg in packed[1].items()}
    return filled, named
