from __future__ import annotations

import pytest

from runner.worker.actors.channel import UNSENT_BYTES_MAX, Channel


class Pipe:
    """A carrier that takes as much as the test allows."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.written = bytearray()
        self.writes = 0
        self.watched = (True, False)
        self.is_broken = self.is_closed = False

    def write(self, data: memoryview) -> int:
        if self.is_broken:
            raise BrokenPipeError
        taken = data[: self.room]
        self.room -= len(taken)
        self.written += taken
        self.writes += 1
        return len(taken)

    def watch(self, *, read: bool, write: bool) -> None:
        self.watched = (read, write)

    def close(self) -> None:
        self.is_closed = True


def nobody(_channel: Channel) -> None:
    """Is not told that there is room."""


def test_frames_are_gathered_and_sent_as_one() -> None:
    pipe, dirty = Pipe(1000), set[Channel]()
    channel = Channel(pipe, dirty, nobody)
    channel.gather(b"one")
    channel.gather(b"two")
    assert (bytes(pipe.written), dirty, channel.has_output) == (b"", {channel}, True)
    channel.flush()
    assert (bytes(pipe.written), pipe.writes, channel.has_output) == (b"onetwo", 1, False)


def test_much_is_not_held_back() -> None:
    pipe = Pipe(1 << 20)
    channel = Channel(pipe, set(), nobody)
    channel.gather(bytes(100_000))
    assert len(pipe.written) == 100_000


def test_what_does_not_fit_goes_later_and_in_order() -> None:
    pipe = Pipe(4)
    channel = Channel(pipe, set(), nobody)
    channel.gather(b"abcdef")
    channel.flush()
    channel.gather(b"gh")
    assert (pipe.watched, channel.has_output) == ((True, True), True)
    pipe.room = 100
    channel.flush()
    assert (bytes(pipe.written), pipe.watched, channel.has_output) == (b"abcdefgh", (True, False), False)


def test_a_caller_that_takes_nothing_is_not_read() -> None:
    pipe = Pipe(0)
    told: list[Channel] = []
    channel = Channel(pipe, set(), told.append)
    for _ in range(UNSENT_BYTES_MAX // 100_000 + 1):
        assert not channel.is_full
        channel.gather(bytes(100_000))
    assert (channel.is_full, pipe.watched, told) == (True, (False, True), [])
    pipe.room = 1 << 30
    channel.flush()
    assert (channel.is_full, pipe.watched, told) == (False, (True, False), [channel])


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_closed_channel_takes_nothing(*, is_broken: bool) -> None:
    pipe = Pipe(0)
    channel = Channel(pipe, set(), nobody)
    channel.gather(b"lost")
    pipe.is_broken = is_broken
    channel.flush()
    assert channel.is_open is not is_broken
    channel.close()
    channel.gather(b"more")
    channel.flush()
    assert (channel.has_output, channel.is_full, pipe.is_closed, bytes(pipe.written)) == (False, False, True, b"")
