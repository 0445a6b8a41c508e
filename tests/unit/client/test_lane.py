"""The client's end of a lane: order, bursts, sockets that are full, threads that wait, and ends."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from runner.client.lane import ClientLane
from runner.client.loop_thread import LoopThread
from runner.client.waiting import Waiter
from runner.rpc.lanes import LaneDecoder, pack
from tests.integration.helpers import wait_until


class FakeSession:
    """Frames are numbers; a reply finishes the waiter of its name."""

    def __init__(self) -> None:
        self.frames: deque[bytes] = deque()
        self.dropped: deque[str] = deque()
        self.waiters: dict[bytes, Waiter] = {}
        self.got: list[bytes] = []
        self.raises: BaseException | None = None
        self.readers: set[str] = set()
        self.number = 0
        self.lock = threading.RLock()

    @property
    def machine(self) -> Any:
        return SimpleNamespace(has_operations=bool(self.frames))

    def add(self, size_bytes: int = 8) -> None:
        with self.lock:
            self.number += 1
            self.frames.append(self.number.to_bytes(size_bytes, "little"))

    def take_frame(self) -> bytes | None:
        with self.lock:
            return self.frames.popleft() if self.frames else None

    def deliver(self, reply: bytes) -> None:
        self.readers.add(threading.current_thread().name)
        if self.raises is not None:
            raise self.raises
        self.got.append(reply)
        if reply in self.waiters:
            self.waiters[reply].finish()

    def waiter(self, reply: bytes) -> Waiter:
        waiter = self.waiters[reply] = Waiter(("x",), 1, wake_on_failure=False)
        return waiter


class Peer:
    """The other end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.decoder = LaneDecoder()

    def read(self, count: int) -> list[int]:
        self.sock.settimeout(10)
        numbers: list[int] = []
        while len(numbers) < count:
            numbers += [int.from_bytes(each, "little") for each in self.decoder.feed(self.sock.recv(65536))]
        return numbers

    def say(self, reply: bytes) -> None:
        self.sock.sendall(pack(reply))


class Scene:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX)
        ours.setblocking(False)
        self.threaded = LoopThread()
        self.session = FakeSession()
        self.peer = Peer(theirs)
        self.lane = ClientLane(ours, self.threaded)

    def begin(self, again: list[bytes] | None = None) -> None:
        async def begin() -> None:
            self.lane.begin(self.session, again or [])  # type: ignore[arg-type]

        self.threaded.call(begin)

    def close(self) -> None:
        async def close() -> None:
            self.lane.close()

        self.threaded.call(close)
        self.threaded.stop(5)
        self.peer.sock.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.close()


def test_who_waits_before_it_has_begun_is_served_once_it_has(scene: Scene) -> None:
    waiter = scene.session.waiter(b"reply")
    scene.peer.say(b"reply")
    assert not scene.lane.wait(waiter, 0.01), "nobody has said yet whose frames these are"
    scene.begin()
    assert scene.lane.wait(waiter, 10)


def test_what_is_sent_again_goes_first(scene: Scene) -> None:
    scene.session.number = 2
    scene.session.add()
    scene.begin([(1).to_bytes(8, "little"), (2).to_bytes(8, "little")])
    assert scene.peer.read(3) == [1, 2, 3]


def test_frames_of_many_threads_keep_their_order(scene: Scene) -> None:
    scene.begin()

    def submit() -> None:
        for _ in range(300):
            scene.session.add()
            scene.lane.wake()

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert scene.peer.read(1200) == list(range(1, 1201))
    for thread in threads:
        thread.join()


def test_what_the_socket_does_not_take_follows(scene: Scene) -> None:
    scene.begin()
    for _ in range(20):
        scene.session.add(300_000)
    scene.lane.wake()
    assert scene.session.frames, "more fitted than the test reckoned with"
    assert scene.peer.read(20) == list(range(1, 21))


def test_who_waits_reads_for_everybody(scene: Scene) -> None:
    scene.begin()
    mine, others = scene.session.waiter(b"mine"), scene.session.waiter(b"others")
    first = threading.Thread(target=scene.lane.wait, args=(mine, None), name="first")
    first.start()
    wait_until(scene.lane._pump.locked, 5, "the first to read")
    second = threading.Thread(target=scene.lane.wait, args=(others, None), name="second")
    second.start()
    scene.peer.say(b"others")
    second.join(5)
    assert not second.is_alive()
    assert scene.session.readers == {"first"}
    scene.peer.say(b"mine")
    first.join(5)
    assert not first.is_alive()
    scene.peer.say(b"later")
    wait_until(lambda: b"later" in scene.session.got, 5, "what nobody waits for to be read all the same")


def test_a_wait_ends_in_time_and_others_are_read_on(scene: Scene) -> None:
    scene.begin()
    assert scene.lane.wait(scene.session.waiter(b"never"), 0.05) is False
    late = scene.session.waiter(b"late")
    waiting = threading.Thread(target=scene.lane.wait, args=(late, None))
    waiting.start()
    scene.peer.say(b"late")
    waiting.join(5)
    assert not waiting.is_alive()


def test_who_waits_goes_on_waiting_when_the_lane_ends(scene: Scene) -> None:
    scene.begin()
    waiter = scene.session.waiter(b"x")
    waiting = threading.Thread(target=scene.lane.wait, args=(waiter, None))
    waiting.start()
    wait_until(scene.lane._pump.locked, 5, "it to read")
    scene.peer.sock.shutdown(socket.SHUT_RDWR)
    wait_until(scene.lane.ended.done, 5, "the end to be told")
    wait_until(lambda: not scene.lane._pump.locked(), 5, "it to read no more")
    waiter.finish()  # by the next connection
    waiting.join(5)
    assert not waiting.is_alive()


class Interrupted:
    """A socket whose reader is interrupted as soon as it has read."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def recv(self, size: int) -> bytes:
        self._sock.recv(size)
        raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["received", "understood"])
def test_an_interrupt_between_bytes_and_their_meaning_ends_the_lane(scene: Scene, when: str) -> None:
    """The session then asks again on the next one."""
    scene.begin()
    if when == "received":
        scene.lane._sock = Interrupted(scene.lane._sock)  # type: ignore[assignment]
    else:
        scene.session.raises = KeyboardInterrupt()
    scene.lane._watch.modify(scene.lane._sock, 0)  # only who waits reads
    scene.peer.say(b"lost")
    with pytest.raises(KeyboardInterrupt):
        scene.lane.wait(scene.session.waiter(b"x"), 5)
    wait_until(scene.lane.ended.done, 5, "the end")
    assert not scene.lane._pump.locked()


def test_a_call_from_within_a_send_does_not_overtake(scene: Scene) -> None:
    """A garbage collection can call us in the middle of anything."""
    scene.begin()
    take = scene.session.take_frame
    calls: list[int] = []

    def take_frame() -> bytes | None:
        frame = take()
        if frame is not None and not calls:
            calls.append(1)
            scene.session.add()
            scene.lane.send()
        return frame

    scene.session.take_frame = take_frame  # type: ignore[method-assign]
    scene.session.add()
    scene.lane.send()
    assert scene.peer.read(2) == [1, 2]
