from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

import runner
from runner.errors import InternalError
from runner.training import Interrupted, run_script, watch
from tests.unit.training.stories import Event, four_running, queued, settled, started

DONE = [settled(index, "SUCCEEDED") for index in range(4)]


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=100, height=30, force_terminal=terminal, color_system=None, _environ={})


def output(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_plain_output_is_a_line_per_event() -> None:
    screen = console(terminal=False)
    results = watch([], epochs=3, console=screen, events=[*four_running(6), *DONE])
    lines = output(screen).splitlines()
    assert "[    0.3 s] machine m-0000: ready, registered after 0.31 s" in lines
    assert "[    0.5 s] lr=0.0001: running on m-0001" in lines
    assert "[   11.0 s] lr=0.0001: epoch 1/3  loss 0.620  accuracy 0.520" in lines
    assert "[   40.0 s] lr=0.0001: done" in lines
    assert len([line for line in lines if "lr=0.0001: epoch" in line]) == 3
    assert len(results.runs) == 4
    assert results.failed == []


def test_plain_output_tells_failures_and_new_attempts() -> None:
    screen = console(terminal=False)
    again = Event("attempt", 1041.0, "t0", attempt=2, step=1, machine_id="m-0001")
    watch([], console=screen, events=[*queued(1), *started(0), again, settled(0, "FAILED", 1050.0, "ValueError: no")])
    assert "lr=5e-06: attempt 2 goes on after step 1" in output(screen)
    assert "lr=5e-06: failed: ValueError: no" in output(screen)


def test_the_live_view_leaves_nothing_on_the_terminal() -> None:
    screen = console(terminal=True)
    results = watch([], epochs=3, console=screen, events=[*four_running(6), *DONE])
    assert "\x1b[?25l" in output(screen)
    assert output(screen).rstrip().endswith("\x1b[2K")  # the last frame is wiped
    assert len(results.runs) == 4


def test_an_error_of_the_stream_ends_the_view() -> None:
    def broken() -> Iterator[Event]:
        yield from queued(1)
        raise InternalError("gone")

    with pytest.raises(InternalError):
        watch([], console=console(terminal=True), events=broken())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_cancels_all_runs_and_waits_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    all_asked = threading.Event()

    def cancel(run: Any) -> None:
        asked.append(run)
        if len(asked) == 4:
            all_asked.set()

    def events() -> Iterator[Event]:
        yield from four_running(3)
        yield settled(0, "SUCCEEDED")
        os.kill(os.getpid(), signal.SIGINT)
        assert all_asked.wait(10)
        yield from (settled(index, "CANCELLED") for index in range(1, 4))

    monkeypatch.setattr(runner, "cancel", cancel, raising=False)
    screen = console(terminal=False)
    with pytest.raises(Interrupted) as caught:
        watch(["a", "b", "c", "d"], epochs=3, console=screen, events=events())
    assert asked == ["a", "b", "c", "d"]
    assert [row.state for row in caught.value.results.runs] == ["done", "cancelled", "cancelled", "cancelled"]
    assert "Ctrl-C: cancelling 4 runs" in output(screen)
    assert "cancelled lr=0.0001 (epoch 1.5 of 3)" in output(screen)
    assert "Nothing is running any more." in output(screen)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_when_all_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def events() -> Iterator[Event]:
        yield from [*four_running(6), *DONE]
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(runner, "cancel", lambda run: None, raising=False)
    screen = console(terminal=False)
    with pytest.raises(Interrupted):
        watch(["a"], console=screen, events=events())
    assert "nothing had to be cancelled, 4 runs had finished" in output(screen)


def test_another_sigint_handler_is_left_alone() -> None:
    def mine(*_: Any) -> None:
        pass

    before = signal.signal(signal.SIGINT, mine)
    try:
        watch([], console=console(terminal=False), events=queued(1))
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.timeout(60)
def test_the_second_ctrl_c_quits_at_once() -> None:
    program = """
import itertools, os, signal, time, runner
from runner.training import watch
runner.cancel = lambda run: time.sleep(60)
def events():
    for _ in itertools.count():
        print("up", flush=True)
        time.sleep(0.01)
        yield from ()
watch(["a"], events=events())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        for line in child.stdout:
            if "Ctrl-C" in line:  # two threads write
                break
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "Quit at once." in errors


def test_exit_status_of_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    def broken() -> int:
        raise InternalError("what failed")

    assert run_script(lambda: 3) == 3
    assert run_script(interrupted) == 130
    assert run_script(broken) == 1
    assert "InternalError: what failed" in capsys.readouterr().err
