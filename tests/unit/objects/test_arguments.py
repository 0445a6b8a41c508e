from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from runner.objects import arguments
from runner.objects.serialization import Serialized
from runner.rpc.gen import types_pb2

values = st.none() | st.integers() | st.text() | st.lists(st.integers())


@given(st.lists(values), st.dictionaries(st.text(min_size=1), values))
def test_arguments_come_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    packed, refs = arguments.pack(tuple(args), kwargs)
    assert refs == []
    inline = packed.to_bytes() if isinstance(packed, Serialized) else packed
    assert arguments.unpack(types_pb2.Value(inline=inline), []) == (tuple(args), kwargs)


def test_no_arguments_are_one_constant() -> None:
    assert arguments.pack((), {}) == (arguments.EMPTY, [])
    assert arguments.unpack(types_pb2.Value(inline=arguments.EMPTY), []) == ((), {})


def test_whole_arguments_are_the_last_dependency() -> None:
    packed = ((arguments.Slot(0), 5), {"b": arguments.Slot(0)})
    found = arguments.unpack(types_pb2.Value(inline=arguments.WHOLE), ["value", packed])
    assert found == (("value", 5), {"b": "value"})
