"""Generators as a session sees them: items in order, losses, reads, and the end of the reader."""

from __future__ import annotations

import pytest

from runner.client.item_streams import ItemStream
from runner.client.session_machine import SessionMachine
from runner.client.waiting import Waiter
from runner.ids import ObjectId
from runner.rpc.gen import client_pb2
from tests.unit.client.test_session_machine import failed, operations, ready


@pytest.fixture
def machine() -> SessionMachine:
    machine = SessionMachine(subscribed=True)
    machine.connected(0)
    return machine


def call(machine: SessionMachine, *, has_backpressure: bool = False) -> ItemStream:
    machine.created(["t.0"])
    return machine.streams.open("t", has_backpressure=has_backpressure)


def items(first_index: int, *values: bytes, is_over: bool = False) -> client_pb2.ServerFrame:
    told = client_pb2.StreamItems(task_id="t", first_index=first_index, values=values, is_over=is_over)
    return client_pb2.ServerFrame(items=[told])


def taken(machine: SessionMachine, stream: ItemStream) -> list[str]:
    ids = []
    while (object_id := machine.streams.take(stream)) is not None:
        ids.append(f"{object_id}={machine.outcomes[object_id].payload.decode()}")
    return ids


def test_items_come_once_and_in_order_whatever_is_told_again(machine: SessionMachine) -> None:
    stream = call(machine)
    machine.received(items(0, b"a"))
    machine.received(items(2, b"c"))  # what came before it was lost: ignored until it is told again
    assert taken(machine, stream) == ["t.i0=a"]
    machine.received(items(0, b"a", b"b", b"c"))
    assert taken(machine, stream) == ["t.i1=b", "t.i2=c"]


def test_after_a_reconnect_the_next_item_is_asked_for(machine: SessionMachine) -> None:
    call(machine)
    machine.received(items(0, b"a"))
    assert machine.take_frame() is None, "nothing is asked for while nothing is lost"
    machine.operate(client_pb2.Operation(cancel=client_pb2.Cancel(task_id="x")).SerializeToString())
    machine.take_frame()
    machine.disconnected()
    machine.connected(1)
    assert operations(machine.take_frame()) == ["resolve t.0 t.i1"]


def test_the_end_counts_only_when_the_outcome_is_known(machine: SessionMachine) -> None:
    stream = call(machine)
    machine.received(items(0, b"a", is_over=True))
    assert not stream.is_over
    machine.received(ready("t.0"))
    machine.received(items(1, is_over=True))
    assert stream.is_over
    assert taken(machine, stream) == ["t.i0=a"]
    machine.received(items(0, b"a", is_over=True))
    assert taken(machine, stream) == []
    machine.disconnected()
    machine.connected(0)
    assert machine.take_frame() is None, "all is known"


def test_last_items_and_the_end_in_one_word(machine: SessionMachine) -> None:
    stream = call(machine)
    machine.received(ready("t.0"))
    machine.received(items(0, b"a", b"b", is_over=True))
    assert stream.is_over
    assert taken(machine, stream) == ["t.i0=a", "t.i1=b"]


def test_who_waits_for_the_next_item_wakes_for_it_and_for_the_end(machine: SessionMachine) -> None:
    stream = call(machine)
    called: list[str] = []
    first = Waiter([stream.awaited], 1, wake_on_failure=True)
    machine.add_waiter(first)
    machine.watch(stream.awaited, lambda: called.append("item"))
    assert machine.want([stream.awaited]) == ["t.i0"]
    assert machine.take_frame() is None, "items come unasked"
    machine.received(items(0, b"a"))
    assert first.done
    assert called == ["item"]
    last = Waiter([stream.awaited], 1, wake_on_failure=True)
    machine.add_waiter(last)
    machine.received(ready("t.0"))
    assert not last.done
    machine.received(items(1, is_over=True))
    assert last.done


def test_an_unknown_stream_ends_with_the_failure_that_says_so(machine: SessionMachine) -> None:
    stream = call(machine)
    waiter = Waiter([stream.awaited], 1, wake_on_failure=True)
    machine.add_waiter(waiter)
    machine.received(failed("t.i0"))
    assert waiter.done
    assert stream.is_over
    object_id = machine.streams.take(stream)
    assert object_id is not None
    assert machine.outcomes[object_id].is_failure


def test_reads_are_told_only_with_backpressure_and_in_one_word(machine: SessionMachine) -> None:
    stream = call(machine, has_backpressure=True)
    machine.received(items(0, b"a", b"b", b"c"))
    taken(machine, stream)
    assert machine.has_operations
    request = client_pb2.SessionRequest.FromString(machine.take_frame() or b"")
    assert [(each.read_stream.task_id, each.read_stream.count) for each in request.frame.operations] == [("t", 3)]
    assert machine.take_frame() is None


def test_a_closed_reader_forgets_what_it_has_not_taken(machine: SessionMachine) -> None:
    stream = call(machine)
    machine.received(items(0, b"a", b"b"))
    assert machine.streams.take(stream) == "t.i0"
    waiter = Waiter([stream.awaited], 1, wake_on_failure=True)
    machine.add_waiter(waiter)
    machine.streams.close("t")
    assert waiter.done
    request = client_pb2.SessionRequest.FromString(machine.take_frame() or b"")
    (drop,) = [each.drop_stream for each in request.frame.operations]
    assert (drop.task_id, drop.count, drop.go_on) == ("t", 1, False)
    machine.received(items(2, b"c"))
    assert set(machine.outcomes) == {"t.i0"}
    assert sorted(machine.held()) == ["t.0", "t.i0"]
    machine.streams.close("t")
    assert machine.take_frame() is None, "said once"


@pytest.mark.parametrize("is_wanted", [False, True])
def test_a_collected_reader_closes_and_a_ref_to_the_end_keeps_the_task(
    machine: SessionMachine, is_wanted: bool
) -> None:
    call(machine)
    if is_wanted:
        machine.borrow("t.0")
    machine.dropped.extend([ObjectId("t"), ObjectId("t.0")])
    request = client_pb2.SessionRequest.FromString(machine.take_frame() or b"")
    assert [each.drop_stream.go_on for each in request.frame.operations if each.HasField("drop_stream")] == [is_wanted]


def test_nothing_is_said_about_a_stream_that_was_read_to_its_end(machine: SessionMachine) -> None:
    stream = call(machine)
    machine.received(items(0, b"a"))
    machine.received(ready("t.0"))
    machine.received(items(1, is_over=True))
    assert taken(machine, stream) == ["t.i0=a"]
    machine.streams.close("t")
    assert machine.take_frame() is None


def test_items_of_another_maker_are_read_and_closed_there() -> None:
    """Calls of actors: their items come by another way, and the server knows nothing of them."""

    class Maker:
        def __init__(self) -> None:
            self.told: list[tuple[object, ...]] = []

        def read(self, stream_id: str, count: int) -> None:
            self.told.append(("read", stream_id, count))

        def closed(self, stream_id: str, count: int, *, go_on: bool) -> None:
            self.told.append(("closed", stream_id, count, go_on))

    maker, machine = Maker(), SessionMachine(subscribed=False)
    machine.connected(0)
    machine.created(["t.0"])
    stream = machine.streams.open("t", has_backpressure=True, producer=maker)
    machine.streams.arrived("t", 0, [b"a", b"b"])
    assert machine.streams.take(stream) == "t.i0"
    machine.streams.close("t")
    assert maker.told == [("read", "t", 1), ("closed", "t", 1, False)]
    machine.ask_again()
    assert machine.take_frame() is None
