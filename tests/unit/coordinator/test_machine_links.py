"""What waits for an agent, and what of it a machine that slept gets in its next generation."""

from __future__ import annotations

import pytest

from runner.coordinator.machine_links import MachineLink, MachineLinks
from runner.ids import ExecutorId, MachineId
from runner.rpc.gen import client_pb2, fleet_pb2

M1 = MachineId("m-1")


def free(path: str) -> fleet_pb2.AgentCommand:
    return fleet_pb2.AgentCommand(free_segment=fleet_pb2.FreeSegment(path=path))


def waiting(link: MachineLink) -> list[str]:
    """The paths, or the kinds, of what it is told next."""
    frame = link.take_frame()
    commands = frame.commands if frame is not None else []
    return [each.free_segment.path or str(each.WhichOneof("command")) for each in commands]


@pytest.fixture
def links() -> MachineLinks:
    return MachineLinks()


def prepared(links: MachineLinks) -> MachineLink:
    """Frame 1 was taken in, frame 2 was sent, and one more command waits; then the agent said that it is prepared."""
    link = links.of(M1, 1)
    assert link is not None
    for path in ("/1", "/2"):
        link.push(free(path))
        link.take_frame()
    link.confirm(1)
    link.push(fleet_pb2.AgentCommand(suspend=fleet_pb2.Suspend(snapshot=1)))
    link.push(free("/3"))
    link.prepared = 1
    return link


def test_a_machine_that_slept_is_told_what_it_had_not_taken_in(links: MachineLinks) -> None:
    prepared(links)
    succeeded: list[tuple[MachineId, int]] = []
    links.on_succeeded = lambda *place: succeeded.append(place)
    links.send(M1, 1, free("/4"))  # while it sleeps
    links.relay(M1, ExecutorId("x-1"), client_pb2.SessionReply())
    links.send(M1, 2, free("/5"))
    link = links.of(M1, 2)
    assert link is not None and waiting(link) == ["/2", "/3", "/4", "relay", "/5"]
    assert succeeded == [(M1, 2)]


def test_what_an_old_generation_is_told_later_is_dropped(links: MachineLinks) -> None:
    old = prepared(links)
    link = links.of(M1, 2)
    assert link is not None
    waiting(link)
    links.send(M1, 1, free("/late"))
    assert waiting(link) == [] and old.exit_reason


def test_a_new_agent_gets_nothing_of_what_was_meant_for_the_old_one(links: MachineLinks) -> None:
    links.on_succeeded = lambda *_place: pytest.fail("nothing of it goes on")
    old = links.of(M1, 1)
    assert old is not None
    old.push(free("/1"))
    link = links.of(M1, 2)
    assert link is not None and waiting(link) == []


def test_a_machine_that_starts_cold_after_its_suspend_gets_nothing(links: MachineLinks) -> None:
    prepared(links)
    links.fence(M1, 1, "its snapshot is not to be used")
    link = links.of(M1, 2)
    assert link is not None and waiting(link) == []
