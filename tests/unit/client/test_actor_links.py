"""Links to actors over real sockets; the test is the actor."""

from __future__ import annotations

import os
import resource
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from runner.client.actors.channel import ActorChannel, Call, ChannelState, End
from runner.client.actors.link import Link
from runner.client.actors.links import ActorLinks
from runner.rpc.actor_frames import ActorKind, Decoder, Frame, encode
from runner.rpc.gen import client_pb2
from tests.integration.helpers import wait_until


class Desk:
    """Whom the links tell."""

    def __init__(self) -> None:
        self.relayed: list[bytes] = []

    def frames(self, link: Link, frames: list[Frame]) -> bool:
        return all(link.channel.received(frame) for frame in frames)

    def relay(self, channel: ActorChannel, data: memoryview) -> None:
        self.relayed.append(bytes(data))

    def tidy(self) -> None: ...


class Client:
    """Whom the channel tells: nobody is interested."""

    def answered(self, call: Call, values: list[bytes], *, is_registered: bool) -> None: ...

    def failed(self, call: Call, failure: bytes) -> None: ...

    def item(self, call: Call, index: int, value: bytes, *, is_registered: bool) -> None: ...

    def ended(self, call: Call, end: End, failure: bytes) -> None: ...

    def registered(self, seq: int) -> None: ...


class Scene:
    """A caller, and the socket on which its actor listens."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.desk = Desk()
        self.links = ActorLinks(self.desk, self.lock, nullcontext())
        self.channel = ActorChannel("t-1", "c-me", Client())
        self.listener = socket.socket(socket.AF_UNIX)
        address = f"\0runner-test-{secrets.token_hex(8)}"
        self.listener.bind(address)
        self.listener.listen()
        self.listener.settimeout(10)
        with self.lock:
            update = client_pb2.ActorUpdate(actor_id="t-1", state="alive", incarnation=1, address=address)
            update.secret = b"secret"
            self.channel.updated(update)
            self.links.connect(self.channel)

    def accept(self) -> socket.socket:
        sock, _ = self.listener.accept()
        sock.settimeout(10)
        sock.sendall(encode(ActorKind.WELCOME))
        wait_until(lambda: self.channel.state is ChannelState.OPEN, 10, "an open channel")
        return sock

    def call(self, args: bytes) -> None:
        with self.lock:
            seq = self.channel.next_seq()
            frame = encode(ActorKind.CALL, seq, f"c-{seq}", "m", args, (), 1, 0)
            self.channel.call(Call(seq, f"c-{seq}", "A.m", 1, 0, frame))
        self.links.called(self.channel)


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.links.close(10)
    scene.listener.close()


def test_calls_of_an_actor_that_reads_nothing_cost_no_more_than_others(scene: Scene) -> None:
    with scene.accept() as sock:
        before_s = time.process_time()
        for _ in range(500):
            scene.call(bytes(90_000))
        used_s = time.process_time() - before_s
        assert used_s < 3, f"{used_s:.1f} s for 500 calls: what waits is copied with each"
        decoder = Decoder()
        frames: list[Frame] = []
        while len(frames) < 501:
            frames += decoder.feed(sock.recv(1 << 20))
    assert [frame[0] for frame in frames[:2]] == [ActorKind.HELLO, ActorKind.CALL]
    assert [frame[1] for frame in frames[1:]] == list(range(1, 501))


def test_without_descriptors_calls_go_through_the_server(scene: Scene) -> None:
    with scene.accept():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with scene.lock:
                scene.links.connect(scene.channel)
            wait_until(lambda: scene.desk.relayed, 10, "the way through the server")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert scene.links._thread.is_alive()


def test_another_user_who_has_taken_the_name_of_an_ended_actor_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    scene = Scene()
    sock, _ = scene.listener.accept()
    with sock:
        sock.settimeout(10)
        assert sock.recv(1 << 16) == b""
    wait_until(lambda: scene.desk.relayed, 10, "the way through the server")
    assert Decoder().feed(scene.desk.relayed[0])[0][0] == ActorKind.HELLO
    scene.links.close(10)
    scene.listener.close()
