from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from runner.worker.executor.interrupts import CancelPage, InterruptGate, TaskInterrupt


@pytest.fixture
def gate() -> Iterator[tuple[InterruptGate, CancelPage]]:
    fd = CancelPage.create()
    page, agents = CancelPage(fd), CancelPage(fd)
    os.close(fd)
    before = signal.getsignal(signal.SIGINT)
    it = InterruptGate(page)
    it.install()
    yield it, agents
    signal.signal(signal.SIGINT, before)
    page.close()
    agents.close()


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_an_interrupt_hits_the_attempt_that_is_meant(gate: tuple[InterruptGate, CancelPage]) -> None:
    it, page = gate
    it.open(7)
    interrupt()  # nobody is meant
    page.request(6)
    interrupt()  # somebody else was
    page.request(7)
    with pytest.raises(TaskInterrupt):
        interrupt()
    interrupt()  # once is enough: it may be cleaning up
    assert it.is_requested
    assert it.shut()


def test_nothing_raises_between_attempts(gate: tuple[InterruptGate, CancelPage]) -> None:
    it, page = gate
    it.open(1)
    assert not it.shut()
    page.request(1)
    interrupt()
    it.open(2)
    interrupt()
    assert not it.shut()


def test_a_stop_that_came_before_the_attempt_began_counts(gate: tuple[InterruptGate, CancelPage]) -> None:
    it, page = gate
    page.request(3)
    with pytest.raises(TaskInterrupt):
        it.open(3)
    assert it.shut()


def test_a_shield_delays(gate: tuple[InterruptGate, CancelPage]) -> None:
    it, page = gate
    it.open(1)
    page.request(1)
    done = []
    with pytest.raises(TaskInterrupt):
        with it:
            with it:
                interrupt()
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"]
    it.shut()


def test_user_code_that_took_the_signal_loses_it(gate: tuple[InterruptGate, CancelPage]) -> None:
    it, page = gate
    it.open(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    it.shut()
    it.open(2)
    page.request(2)
    with pytest.raises(TaskInterrupt):
        interrupt()
    it.shut()
