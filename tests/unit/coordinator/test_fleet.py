"""How long lost machines are replaced, and what is kept of requests."""

from __future__ import annotations

from typing import Any

import pytest

from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.fleet import Fleet
from runner.core import events
from runner.core.values import CPU, UNIT, make_shape
from runner.ids import ClusterId, MachineId
from runner.providers.fake import FakeProvider
from runner.testing import FakeClock


class Posted:
    """An engine that only listens."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def post(self, event: Any) -> None:
        self.events.append(event)

    def closed(self) -> list[str]:
        return [event.instead_of for event in self.events if isinstance(event, events.FleetClosed)]


class Numbers:
    def __init__(self) -> None:
        self.last = 0

    def take(self, _name: str, count: int) -> range:
        self.last += count
        return range(self.last - count + 1, self.last + 1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def posted() -> Posted:
    return Posted()


@pytest.fixture
def fleet(clock: FakeClock, posted: Posted) -> Fleet:
    engine: Any = posted
    return Fleet(
        engine=engine,
        provider=FakeProvider(clock),
        clock=clock,
        config=CoordinatorConfig(home="/nowhere"),
        cluster_id=ClusterId("c"),
        ca_pem=b"",
        take_numbers=Numbers().take,
    )


def lose(fleet: Fleet, clock: FakeClock, after_s: float, *, registered: bool, cpus: int = 1) -> MachineId:
    (machine_id,) = fleet.request(1, make_shape({CPU: cpus * UNIT}))
    if registered:
        fleet.note_phase(machine_id, "registered", clock.unix_s())
    clock.advance(after_s)
    fleet.replace(machine_id)
    return machine_id


def test_machines_that_never_register_are_not_asked_for_for_ever(fleet, clock, posted):
    lost = [lose(fleet, clock, 120.0, registered=False) for _ in range(6)]
    assert posted.closed() == lost[5:]


def test_a_machine_that_served_begins_the_count_anew(fleet, clock, posted):
    for _ in range(4):
        for _ in range(4):
            lose(fleet, clock, 1.0, registered=True)
        lose(fleet, clock, 60.0, registered=True)
    assert posted.closed() == []


def test_shapes_are_counted_by_themselves(fleet, clock, posted):
    for _ in range(5):
        lose(fleet, clock, 120.0, registered=False, cpus=1)
        lose(fleet, clock, 600.0, registered=True, cpus=4)
    assert posted.closed() == []
    last = lose(fleet, clock, 120.0, registered=False, cpus=1)
    assert posted.closed() == [last]


def test_repeats_of_a_request_are_known_within_bounds(fleet):
    first = fleet.request(2, request_id="r-0")
    assert fleet.request(2, request_id="r-0") == first
    for number in range(1, 1001):
        fleet.request(0, request_id=f"r-{number}")
    assert len(fleet._requests) == 1000
