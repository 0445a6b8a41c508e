"""What is read from frames: names of functions that the core has yet to see, and operations that nobody knows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runner.coordinator.operations import Operations
from runner.core.suspend_events import ResumeRequested
from runner.errors import ProtocolViolationError
from runner.ids import FunctionId, MachineId
from runner.rpc.gen import client_pb2, fleet_pb2, types_pb2


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


class Links:
    """Keeps what machines are told."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def send(self, machine_id: str, generation: int, command: fleet_pb2.AgentCommand) -> None:
        told = command.actor_input
        self.sent.append((machine_id, generation, told.key.task_id, told.key.attempt, told.caller_id, told.frames))


def calls(links: Any, *, is_asleep: bool = False) -> tuple[Operations, Any]:
    """For one session, and an actor whose second incarnation is on m-1."""
    core: Any = SimpleNamespace(
        actor_place=lambda actor_id, incarnation: ("m-1", 3) if incarnation == 2 else None,
        is_asleep=lambda machine_id: is_asleep,
    )
    nothing: Any = None
    session: Any = SimpleNamespace(client_id="c-1", executor_id="", relayed=set())
    return Operations(core, nothing, nothing, nothing, links, nothing), session


@pytest.mark.parametrize("is_asleep", [True, False])
def test_a_call_wakes_the_machine_of_its_actor_if_that_sleeps(is_asleep: bool) -> None:
    operations, session = calls(Links(), is_asleep=is_asleep)
    part = client_pb2.ActorFrames(actor_id="t-1", incarnation=2, frames=b"frames")
    event = operations.read(session, client_pb2.Operation(actor_frames=part), None)
    assert event == (ResumeRequested(MachineId("m-1")) if is_asleep else None)


def test_an_actor_is_told_that_a_caller_elsewhere_is_gone() -> None:
    links: Any = Links()
    operations, session = calls(links)
    for incarnation in (1, 2):
        part = client_pb2.ActorFrames(actor_id="t-1", incarnation=incarnation, frames=b"frames")
        operations.read(session, client_pb2.Operation(actor_frames=part), None)
    operations.session_ended(session)
    assert links.sent == [("m-1", 3, "t-1", 2, "c-1", b"frames"), ("m-1", 3, "t-1", 2, "c-1", b"")]
