"""What is read from frames: names of functions that the core has yet to see, and operations that nobody knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runner.coordinator.operations import Operations
from runner.errors import ProtocolViolationError
from runner.ids import FunctionId
from runner.rpc.gen import client_pb2, types_pb2


class Core:
    """A cluster of which only names are asked."""

    def function_name(self, function_id: str) -> str:
        return f"core's {function_id}"


SESSION: Any = SimpleNamespace(client_id="c-1", executor_id="")


def make_operations() -> Operations:
    core: Any = Core()
    nothing: Any = None
    return Operations(core, nothing, nothing, nothing, nothing, nothing)


def test_few_names_are_kept_beside_the_core() -> None:
    operations = make_operations()
    for number in range(2000):
        function = types_pb2.Function(function_id=f"f-{number}", name=f"name {number}")
        assert operations.read(SESSION, client_pb2.Operation(register_function=function), None) is not None
    assert len(operations._function_names) == 1000
    assert operations._function_name(FunctionId("f-1999")) == "name 1999"
    assert operations._function_name(FunctionId("f-0")) == "core's f-0"


def test_an_operation_of_a_newer_version_is_refused() -> None:
    with pytest.raises(ProtocolViolationError, match="client c-1 sent an operation that this version does not know"):
        make_operations().read(SESSION, client_pb2.Operation(), None)
