"""Histories of a session against a coordinator that loses connections: nothing is lost, repeated or left behind."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from runner.client.session_machine import SessionMachine
from runner.ids import ObjectId
from runner.rpc.gen import client_pb2, types_pb2


class Coordinator:
    """Applies each frame once, in order, as the real one does; keeps who is held."""

    def __init__(self) -> None:
        self.applied_seq = 0
        self.held: Counter[str] = Counter()
        self.cancels: list[str] = []
        self.resolves: list[str] = []

    def take(self, request: bytes) -> None:
        frame = client_pb2.SessionRequest.FromString(request).frame
        if frame.seq <= self.applied_seq:
            return
        assert frame.seq == self.applied_seq + 1, "a frame is missing"
        self.applied_seq = frame.seq
        for operation in frame.operations:
            kind = operation.WhichOneof("op")
            if kind == "add_refs":
                for object_id in operation.add_refs.object_ids:
                    self.held[object_id] += 1
                    assert self.held[object_id] == 1, "added although held"
            elif kind == "release_refs":
                for object_id in operation.release_refs.object_ids:
                    self.held[object_id] -= 1
                    assert self.held[object_id] == 0, "released although not held"
            elif kind == "resolve":
                self.resolves += operation.resolve.object_ids
            elif kind == "put":
                self.held[operation.put.object_id] += 1
            elif kind == "cancel":
                self.cancels.append(operation.cancel.task_id)


class SessionHistory(RuleBasedStateMachine):
    refs = Bundle("refs")

    def __init__(self) -> None:
        super().__init__()
        self.machine = SessionMachine(subscribed=True)
        self.coordinator = Coordinator()
        self.on_the_way: list[bytes] = []  # in order, lost when the connection breaks
        self.wanted: list[str] = []
        self.live: Counter[str] = Counter()
        self.numbers = 0

    @rule(target=refs)
    def put(self) -> str:
        self.numbers += 1
        object_id = f"o-{self.numbers}"
        operation = client_pb2.Operation(put=client_pb2.Put(object_id=object_id))
        self.machine.put(object_id, operation.SerializeToString(), b"")
        self.live[object_id] += 1
        return object_id

    @rule(target=refs, object_id=st.sampled_from(["o-a", "o-b", "o-c"]))
    def borrow(self, object_id: str) -> str:
        self.machine.borrow(object_id)
        self.live[object_id] += 1
        return object_id

    @rule(object_id=consumes(refs))
    def drop(self, object_id: str) -> None:
        self.machine.dropped.append(ObjectId(object_id))
        self.live[object_id] -= 1

    @rule(object_id=refs)
    def want(self, object_id: str) -> None:
        self.machine.want([object_id])

    @rule()
    def cancel(self) -> None:
        self.numbers += 1
        self.wanted.append(f"t-{self.numbers}")
        message = client_pb2.Cancel(task_id=self.wanted[-1])
        self.machine.operate(client_pb2.Operation(cancel=message).SerializeToString())

    @rule()
    def send(self) -> None:
        frame = self.machine.take_frame()
        if frame is not None:
            self.on_the_way.append(frame)

    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(0, len(self.on_the_way)))
        for request in self.on_the_way[:count]:
            self.coordinator.take(request)
        del self.on_the_way[:count]

    @rule()
    def acknowledge(self) -> None:
        if self.machine.is_connected:
            self.machine.received(client_pb2.ServerFrame(acked_seq=self.coordinator.applied_seq))

    @rule(object_id=refs)
    def become_ready(self, object_id: str) -> None:
        if self.machine.is_connected:
            value = types_pb2.Value().SerializeToString()
            item = client_pb2.ObjectReady(object_id=object_id, value=value)
            self.machine.received(client_pb2.ServerFrame(ready=[item]))

    @rule()
    def lose_connection(self) -> None:
        self.machine.disconnected()
        self.on_the_way.clear()

    @rule()
    def reconnect(self) -> None:
        if not self.machine.is_connected:
            self.on_the_way = self.machine.connected(self.coordinator.applied_seq)

    @invariant()
    def outcomes_only_of_held_objects(self) -> None:
        self.machine.drain_dropped()
        assert set(self.machine.outcomes) <= set(self.machine.held())
        assert self.machine.held() == [key for key in self.machine.held() if self.live[key] > 0]

    def teardown(self) -> None:
        self.reconnect()
        for object_id, count in self.live.items():
            self.machine.dropped.extend([ObjectId(object_id)] * count)
        while (frame := self.machine.take_frame()) is not None:
            self.on_the_way.append(frame)
        for request in self.on_the_way:
            self.coordinator.take(request)
        self.machine.received(client_pb2.ServerFrame(acked_seq=self.coordinator.applied_seq))
        assert self.machine.is_flushed
        assert not self.machine.holds_refs
        assert +self.coordinator.held == Counter(), "refs do not net to zero"
        assert self.coordinator.cancels == self.wanted, "operations were lost, repeated or reordered"


TestSessionHistory = SessionHistory.TestCase
TestSessionHistory.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
