"""A session and an actor; the test is the actor and the server."""

from __future__ import annotations

import gc
import secrets
import socket
from collections.abc import Iterator

import pytest

from runner.client.actors.channel import Call
from runner.client.actors.client import _CallDesk
from runner.client.actors.meta import ActorMeta
from runner.client.actors.options import ActorOptions
from runner.client.session import Session
from runner.client.session_info import SessionInfo
from runner.ids import ObjectId
from runner.objects.refs import ObjectRef
from runner.rpc.actor_frames import REGISTERED, ActorKind, Decoder, Frame, encode
from runner.rpc.gen import client_pb2, types_pb2
from tests.integration.helpers import wait_until
from tests.unit.client.memory import MemoryTransport


class Kind:
    def large(self) -> None: ...


class Scene:
    """A session that holds a handle of an actor, which listens here."""

    def __init__(self) -> None:
        self.transport = MemoryTransport()
        info = SessionInfo(client_id="c-me", cluster_id="x", host_id="host", store_path="", embedded=True)
        self.session = Session(info, self.transport)
        self.transport.attach(self.session)
        self.listener = socket.socket(socket.AF_UNIX)
        self.address = f"\0runner-test-{secrets.token_hex(8)}"
        self.listener.bind(self.address)
        self.listener.listen()
        self.listener.settimeout(10)
        self.decoder = Decoder()
        self.session.borrow(ObjectId("t-1.0"))
        self.handle: ObjectRef[None] | None = ObjectRef(ObjectId("t-1.0"), self.session)
        self.meta = ActorMeta.of(Kind, ActorOptions())

    def call(self) -> ObjectRef[None]:
        assert self.handle is not None
        ref: ObjectRef[None] = self.session.actors.call(self.handle, self.meta, self.meta.methods["large"], (), {})
        return ref

    def accept(self) -> socket.socket:
        update = client_pb2.ActorUpdate(actor_id="t-1", state="alive", incarnation=1, host_id="host", secret=b"s")
        update.address = self.address
        frame = client_pb2.ServerFrame(actors=[update])
        self.session.deliver(client_pb2.SessionReply(frame=frame).SerializeToString())
        sock, _ = self.listener.accept()
        sock.settimeout(10)
        sock.sendall(encode(ActorKind.WELCOME))
        return sock

    def read(self, sock: socket.socket) -> list[Frame]:
        data = sock.recv(1 << 16)
        return self.decoder.feed(data) if data else []


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.session.actors.close(10)
    scene.listener.close()


def test_a_handle_dropped_with_a_large_answer_on_its_way_is_held_until_the_server_knows_who_has_it(
    scene: Scene,
) -> None:
    """When it hangs up the actor lets go of the answer, and then nobody would hold it."""
    ref = scene.call()
    with scene.accept() as sock:
        frames: list[Frame] = []
        while len(frames) < 2:
            frames += scene.read(sock)
        scene.transport.acks = False
        value = types_pb2.Value(segment=types_pb2.Segment(host_id="host", path="p", size_bytes=1))
        sock.sendall(encode(ActorKind.RESULT, frames[1][1], (value.SerializeToString(),), REGISTERED))
        wait_until(lambda: ref.id in scene.session.machine.outcomes, 10, "the answer")
        scene.handle = None
        gc.collect()
        scene.transport.wake()
        assert [list(each.add_refs.object_ids) for each in scene.transport.sent if each.HasField("add_refs")][-1] == [
            ref.id
        ]
        assert not [each for each in scene.transport.sent if each.HasField("release_refs")]
        assert scene.session.actors.links.link("t-1") is not None
        scene.transport.deliver(acked_seq=scene.transport.seqs[-1])
        scene.session.actors.links.ring()
        assert scene.read(sock)[0][0] == ActorKind.RELEASED
        scene.transport.wake()
        assert scene.read(sock) == []
        (released,) = [each.release_refs for each in scene.transport.sent if each.HasField("release_refs")]
        assert list(released.object_ids) == ["t-1.0"]


def test_an_interrupt_while_answers_are_taken_in_loses_none(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in get(), which reads for everybody."""
    calls = [scene.call() for _ in range(3)]
    answered, interrupts = _CallDesk.answered, [KeyboardInterrupt()]

    def interrupted(desk: _CallDesk, call: Call, values: list[bytes], *, is_registered: bool) -> None:
        answered(desk, call, values, is_registered=is_registered)
        if interrupts and call.seq == 2:
            raise interrupts.pop()

    monkeypatch.setattr(_CallDesk, "answered", interrupted)
    links = scene.session.actors.links
    with scene.accept() as sock:
        frames: list[Frame] = []
        while len(frames) < 4:
            frames += scene.read(sock)
        with links._pump:  # the thread reads nothing meanwhile
            value = (types_pb2.Value(inline=b"").SerializeToString(),)
            sock.sendall(b"".join(encode(ActorKind.RESULT, seq, value, 0) for seq in (1, 2, 3)))
            with pytest.raises(KeyboardInterrupt):
                links._read(10)
        assert all(ref.id in scene.session.machine.outcomes for ref in calls)
        assert links.link("t-1") is not None
