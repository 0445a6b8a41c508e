from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from runner.worker.agent.logs import LINE_BYTES_MAX, LinePipe


@pytest.fixture
def pipe() -> Iterator[tuple[LinePipe, int]]:
    read, write = os.pipe()
    line_pipe = LinePipe(read, "stdout")
    yield line_pipe, write
    line_pipe.close()
    os.close(write)


def test_lines_in_pieces(pipe: tuple[LinePipe, int]) -> None:
    lines, fd = pipe
    assert lines.read() == []
    os.write(fd, b"one\ntw")
    assert lines.read() == ["one"]
    os.write(fd, b"o\n\nlast")
    assert lines.read() == ["two", ""]
    assert lines.flush() == ["last"]
    assert lines.flush() == []


def test_a_long_line_is_cut_and_says_by_how_much(pipe: tuple[LinePipe, int]) -> None:
    lines, fd = pipe
    got = []
    for _ in range(4):
        os.write(fd, b"x" * 30_000)
        got += lines.read()
    os.write(fd, b"\nnext\n")
    got += lines.read()
    assert got == ["x" * LINE_BYTES_MAX + f" … [{120_000 - LINE_BYTES_MAX} bytes more]", "next"]


def test_a_progress_bar_shows_its_last_state(pipe: tuple[LinePipe, int]) -> None:
    lines, fd = pipe
    os.write(fd, b"10%\r50%\r100%\r\n")
    assert lines.read() == ["100%"]


def test_bytes_that_are_no_text(pipe: tuple[LinePipe, int]) -> None:
    lines, fd = pipe
    os.write(fd, b"\xff\x00ok\n")
    assert lines.read() == ["\ufffd\x00ok"]


def test_a_full_pipe_is_read_to_its_end() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    written = 0
    try:
        while True:
            written += os.write(write, b"123456789\n")
    except BlockingIOError:
        pass
    lines = LinePipe(read, "stdout")
    assert len(lines.read()) == written // 10
    os.close(write)
    assert lines.read() == []
    assert lines.is_at_end
    lines.close()
