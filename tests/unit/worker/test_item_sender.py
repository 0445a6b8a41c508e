"""When items leave, in what batches, and when their generator waits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from runner.client.waiting import Waiter
from runner.objects.serialization import Serialized, deserialize
from runner.objects.values import INLINE_MAX_BYTES
from runner.rpc.gen import fleet_pb2, types_pb2
from runner.worker.executor import item_sender
from runner.worker.executor.generating import run_generator
from runner.worker.executor.item_sender import BATCH_ITEMS, ItemSender
from tests.integration.helpers import pause, wait_until


class Transport:
    """Waits as the executor's does, and says what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def wake(self) -> None:
        self.said.append("wake")

    def wait(self, waiter: Waiter, timeout_s: float | None) -> bool:
        return waiter.done or waiter.block(timeout_s)

    def blocked(self) -> None:
        self.said.append("blocked")

    def unblocked(self) -> None:
        self.said.append("unblocked")


class Scene:
    """A sender, and what it has sent."""

    def __init__(self, *, backpressure: int = 0, done: int = 0, read: int = 0) -> None:
        self.sent: list[fleet_pb2.Items] = []
        self.placed: list[str] = []
        self.transport = Transport()
        spec = types_pb2.TaskSpec(task_id="t-1", backpressure=backpressure)
        assignment = fleet_pb2.Assignment(items_done=done, items_read=read)
        place: Any = self.place
        transport: Any = self.transport
        self.sender = ItemSender(spec, assignment, place, transport, self.take)

    def place(self, serialized: Serialized, object_id: str, *, inline_max_bytes: int) -> types_pb2.Value:
        self.placed.append(object_id)
        return types_pb2.Value(inline=serialized.to_bytes())

    def take(self, items: bytes) -> None:
        self.sent.append(fleet_pb2.Items.FromString(items))

    @property
    def values(self) -> list[Any]:
        """All that was sent; no gap, no repeat."""
        found: list[Any] = []
        first = self.sent[0].first_index if self.sent else 0
        for items in self.sent:
            assert items.first_index == first + len(found)
            found += [deserialize(value.inline) for value in items.values]
            found += [deserialize(types_pb2.Value.FromString(plain).inline) for plain in items.plain]
        return found


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """So much is gathered as a test adds."""
    monkeypatch.setattr(item_sender, "GATHER_S", 3600.0)


def test_an_item_leaves_before_the_next_is_made() -> None:
    scene = Scene()

    def watching() -> Iterator[int]:
        yield 0
        assert scene.values == [0]
        pause(2 * item_sender.GATHER_S, "long enough for the next one to leave at once, too")
        yield 1
        assert scene.values == [0, 1]

    run_generator(watching(), scene.sender)
    scene.sender.close()
    assert scene.values == [0, 1]


def test_what_follows_quickly_shares_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.sender.add(0)
    monkeypatch.setattr(item_sender, "GATHER_S", 3600.0)
    for index in range(1, BATCH_ITEMS + 5):
        scene.sender.add(index)
    assert [len(items.plain) for items in scene.sent] == [1, BATCH_ITEMS]
    scene.sender.close()
    assert scene.values == list(range(BATCH_ITEMS + 5))


def test_a_slow_generator_keeps_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.sender.add(0)
    monkeypatch.setattr(item_sender, "GATHER_S", 0.2)
    scene.sender.add(1)
    wait_until(lambda: scene.values == [0, 1], 10, "the item that waited for company")
    scene.sender.close()


@pytest.mark.usefixtures("slow_clock")
def test_large_items_and_small_ones_keep_their_order() -> None:
    scene = Scene()
    large = bytes(INLINE_MAX_BYTES)
    made = [0, 1, large, 2, large, large, 3]
    run_generator(iter(made), scene.sender)
    scene.sender.close()
    assert scene.values == made
    assert scene.placed == ["t-1.i2", "t-1.i4", "t-1.i5"]


@pytest.mark.usefixtures("slow_clock")
def test_a_repeated_attempt_skips_what_is_stored() -> None:
    scene = Scene(done=2)
    run_generator(iter(range(4)), scene.sender)
    scene.sender.close()
    assert scene.sent[0].first_index == 2
    assert scene.values == [2, 3]


def test_it_waits_for_its_reader_and_gives_its_cpus_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_sender, "BLOCK_AFTER_S", 0.0)
    scene = Scene(backpressure=2)
    made: list[int] = []
    scene.transport.wait = lambda waiter, timeout_s: timeout_s is None and read_one()  # type: ignore[method-assign]

    def read_one() -> bool:
        assert len(scene.values) == len(made), "all was sent before it waits"
        scene.sender.was_read(len(made) - 1)
        return True

    def making() -> Iterator[int]:
        for index in range(5):
            made.append(index)
            assert len(made) - scene.sender._read <= 2
            yield index

    run_generator(making(), scene.sender)
    scene.sender.close()
    assert scene.values == list(range(5))
    assert scene.transport.said.count("blocked") == scene.transport.said.count("unblocked") > 0


def test_a_repeated_attempt_does_not_wait_for_what_was_read_before() -> None:
    scene = Scene(backpressure=1, done=3, read=3)
    for index in range(3):
        assert not scene.sender.must_wait
        scene.sender.add(index)
    assert not scene.sender.must_wait
    scene.sender.add(3)
    assert scene.sender.must_wait
    scene.sender.was_read(4)
    assert not scene.sender.must_wait
    scene.sender.close()


def test_generators_are_closed_whatever_ends_them() -> None:
    ended: list[str] = []

    def sync() -> Iterator[Any]:
        try:
            yield lambda: 0
            yield threading.Lock()
        finally:
            ended.append("sync")

    async def coroutines() -> AsyncIterator[Any]:
        try:
            yield 1
            await asyncio.sleep(0)
            yield threading.Lock()
        finally:
            ended.append("async")

    for generator in (sync(), coroutines()):
        scene = Scene()
        with pytest.raises(TypeError, match="yielded value"):
            run_generator(generator, scene.sender)
        scene.sender.close()
        assert len(scene.values) == 1
    assert ended == ["sync", "async"]


def test_what_is_no_generator_is_refused() -> None:
    with pytest.raises(ValueError, match="returned a list"):
        run_generator([1], Scene().sender)


def test_its_thread_ends_whenever_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when that falls between its look at the time and its sending."""
    scene = Scene()
    clear = scene.sender._has_waiting.clear

    def closing_clear() -> None:
        monkeypatch.setattr(scene.sender._has_waiting, "clear", clear)
        scene.sender._is_over.set()
        scene.sender._has_waiting.set()
        clear()

    monkeypatch.setattr(scene.sender._has_waiting, "clear", closing_clear)
    scene.sender.add(0)
    monkeypatch.setattr(item_sender, "GATHER_S", 0.2)  # however slow this machine is, the next one waits for company
    scene.sender.add(1)
    thread = scene.sender._thread
    assert thread is not None
    thread.join(10)
    assert not thread.is_alive()
    scene.sender.close()
    assert scene.values == [0, 1]


@pytest.mark.usefixtures("slow_clock")
def test_an_interrupt_while_it_sends_repeats_nothing() -> None:
    scene = Scene()
    take = scene.sender._send

    def interrupted(_items: bytes) -> None:
        scene.sender._send = take
        raise KeyboardInterrupt

    for index in range(3):
        scene.sender.add(index)
    scene.sender._send = interrupted
    with pytest.raises(KeyboardInterrupt):
        scene.sender.flush()
    scene.sender.close()
    assert scene.values == [0], "the first one left at once"
