"""Names of functions: of those that the core has yet to see, and of all others from the core."""

from __future__ import annotations

from typing import Any

from runner.coordinator.sessions import Sessions
from runner.ids import FunctionId


class Core:
    """An engine and its cluster, of which only names are asked."""

    def __init__(self) -> None:
        self.cluster = self

    def function_name(self, function_id: str) -> str:
        return f"core's {function_id}"


def test_few_names_are_kept_beside_the_core() -> None:
    core: Any = Core()
    nothing: Any = None
    sessions = Sessions(core, nothing, nothing, nothing, nothing)
    for number in range(2000):
        sessions.name_function(FunctionId(f"f-{number}"), f"name {number}")
    assert len(sessions._function_names) == 1000
    assert sessions._function_name(FunctionId("f-1999")) == "name 1999"
    assert sessions._function_name(FunctionId("f-0")) == "core's f-0"
