from __future__ import annotations

import pytest

from runner.client import session_machine
from runner.client.session_machine import FRAME_MAX_OPERATIONS, SessionMachine
from runner.client.waiting import Waiter
from runner.errors import ClusterError
from runner.ids import ObjectId
from runner.rpc.gen import client_pb2, types_pb2


def operations(request: bytes | None) -> list[str]:
    assert request is not None
    return [describe(operation) for operation in client_pb2.SessionRequest.FromString(request).frame.operations]


def describe(operation: client_pb2.Operation) -> str:
    kind = operation.WhichOneof("op") or ""
    if kind in {"add_refs", "release_refs", "resolve"}:
        return f"{kind} {' '.join(sorted(getattr(operation, kind).object_ids))}"
    return f"{kind} {operation.cancel.task_id}" if kind == "cancel" else kind


def seq_of(request: bytes | None) -> int:
    assert request is not None
    return int(client_pb2.SessionRequest.FromString(request).frame.seq)


def cancel(task_id: str) -> bytes:
    return client_pb2.Operation(cancel=client_pb2.Cancel(task_id=task_id)).SerializeToString()


def ready(object_id: str, *, acked_seq: int = 0) -> client_pb2.ServerFrame:
    value = types_pb2.Value(inline=b"v").SerializeToString()
    return client_pb2.ServerFrame(acked_seq=acked_seq, ready=[client_pb2.ObjectReady(object_id=object_id, value=value)])


def failed(object_id: str) -> client_pb2.ServerFrame:
    failure = types_pb2.Failure(message="no").SerializeToString()
    return client_pb2.ServerFrame(ready=[client_pb2.ObjectReady(object_id=object_id, failure=failure)])


@pytest.fixture
def machine() -> SessionMachine:
    machine = SessionMachine(subscribed=True)
    machine.connected(0)
    return machine


def test_operations_wait_for_a_connection() -> None:
    machine = SessionMachine(subscribed=True)
    machine.operate(cancel("t-1"))
    assert machine.take_frame() is None
    assert machine.connected(0) == []
    assert operations(machine.take_frame()) == ["cancel t-1"]
    assert machine.take_frame() is None


def test_frames_are_numbered_and_capped(machine: SessionMachine) -> None:
    for index in range(FRAME_MAX_OPERATIONS + 1):
        machine.operate(cancel(f"t-{index}"))
    first, second = machine.take_frame(), machine.take_frame()
    assert (seq_of(first), seq_of(second)) == (1, 2)
    assert (len(operations(first)), len(operations(second))) == (FRAME_MAX_OPERATIONS, 1)


def test_large_operations_get_frames_of_their_own(machine: SessionMachine) -> None:
    for _ in range(3):
        machine.operate(
            client_pb2.Operation(submit=types_pb2.TaskSpec(env_vars={"x": "y" * 600_000})).SerializeToString()
        )
    assert [len(operations(machine.take_frame())) for _ in range(3)] == [1, 1, 1]


def test_unacknowledged_frames_are_sent_again_in_order(machine: SessionMachine) -> None:
    frames = []
    for index in range(3):
        machine.operate(cancel(f"t-{index}"))
        frames.append(machine.take_frame())
    machine.disconnected()
    machine.operate(cancel("t-3"))
    assert machine.take_frame() is None
    assert machine.connected(1) == frames[1:]
    assert seq_of(machine.take_frame()) == 4


def test_a_coordinator_that_forgot_us_is_noticed(machine: SessionMachine) -> None:
    machine.operate(cancel("t-1"))
    machine.take_frame()
    machine.received(client_pb2.ServerFrame(acked_seq=1))
    machine.disconnected()
    with pytest.raises(ClusterError, match="lease of this session ended"):
        machine.connected(0)


def test_own_results_are_subscribed_and_asked_for_again_after_a_reconnect(machine: SessionMachine) -> None:
    machine.created(["t-1.0"])
    machine.operate(cancel("t-0"))
    assert machine.want(["t-1.0"]) == ["t-1.0"]
    assert operations(machine.take_frame()) == ["cancel t-0"]
    machine.disconnected()
    machine.connected(1)
    assert operations(machine.take_frame()) == ["resolve t-1.0"]


def test_executors_ask_for_everything() -> None:
    machine = SessionMachine(subscribed=False)
    machine.connected(0)
    machine.created(["t-1.0"])
    assert machine.take_frame() is None
    machine.want(["t-1.0"])
    machine.want(["t-1.0"])
    assert operations(machine.take_frame()) == ["resolve t-1.0"]


def test_a_borrowed_ref_is_added_once_and_asked_for_when_wanted(machine: SessionMachine) -> None:
    machine.borrow("o-1")
    machine.borrow("o-1")
    machine.want(["o-1"])
    assert operations(machine.take_frame()) == ["add_refs o-1", "resolve o-1"]


def test_the_last_drop_releases(machine: SessionMachine) -> None:
    machine.borrow("o-1")
    machine.borrow("o-1")
    machine.take_frame()
    machine.dropped.append(ObjectId("o-1"))
    assert machine.take_frame() is None
    machine.dropped.append(ObjectId("o-1"))
    assert operations(machine.take_frame()) == ["release_refs o-1"]
    assert not machine.holds_refs


def test_releases_come_after_the_operations_that_used_the_refs(machine: SessionMachine) -> None:
    machine.borrow("o-1")
    machine.operate(cancel("t-1"))
    machine.dropped.append(ObjectId("o-1"))
    assert operations(machine.take_frame()) == ["add_refs o-1", "cancel t-1", "release_refs o-1"]


def test_outcomes_are_kept_while_there_is_a_ref(machine: SessionMachine) -> None:
    machine.created(["t-1.0"])
    machine.received(ready("t-1.0"))
    assert machine.want(["t-1.0"]) == []
    machine.dropped.append(ObjectId("t-1.0"))
    machine.drain_dropped()
    assert machine.outcomes == {}
    machine.received(ready("t-1.0"))  # told again, too late
    assert machine.outcomes == {}


def test_a_waiter_wakes_when_enough_is_ready(machine: SessionMachine) -> None:
    machine.created(["a", "b", "c"])
    waiter = Waiter(["a", "b", "c"], 2, wake_on_failure=False)
    machine.add_waiter(waiter)
    machine.received(ready("a"))
    machine.received(ready("a"))
    assert not waiter.done
    machine.received(failed("c"))
    assert waiter.done
    assert waiter.block(0)


def test_a_getting_waiter_wakes_at_the_first_failure(machine: SessionMachine) -> None:
    machine.created(["a", "b"])
    waiter = Waiter(["a", "b"], 2, wake_on_failure=True)
    machine.add_waiter(waiter)
    machine.received(failed("b"))
    assert waiter.done


def test_callbacks_come_once(machine: SessionMachine) -> None:
    calls: list[str] = []
    machine.created(["a"])
    assert machine.when_ready("a", lambda: calls.append("a"))
    machine.received(ready("a"))
    machine.received(ready("a"))
    assert calls == ["a"]
    assert not machine.when_ready("a", lambda: calls.append("b"))


def test_the_end_wakes_everybody(machine: SessionMachine) -> None:
    calls: list[str] = []
    machine.created(["a"])
    machine.when_ready("a", lambda: calls.append("a"))
    waiters = [Waiter(["a"], 1, wake_on_failure=False), Waiter((), 1, wake_on_failure=False)]
    machine.add_waiter(waiters[0])
    machine.add_ack_waiter(waiters[1], lambda: False)
    machine.finish_waiting()
    assert calls == ["a"]
    assert all(waiter.done for waiter in waiters)


def test_it_is_full_until_acknowledged(machine: SessionMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_machine, "UNACKED_MAX_OPERATIONS", 3)
    waiter = Waiter((), 1, wake_on_failure=False)
    for index in range(3):
        machine.operate(cancel(f"t-{index}"))
    machine.add_ack_waiter(waiter, lambda: not machine.is_full)
    machine.take_frame()
    assert machine.is_full
    assert not machine.is_flushed
    machine.received(client_pb2.ServerFrame(acked_seq=1))
    assert not machine.is_full
    assert machine.is_flushed
    assert waiter.done
