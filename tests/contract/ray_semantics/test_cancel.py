"""cancel(): what never starts, what stops, what does not change."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Gate, Signals, Tally
from tests.integration.helpers import wait_until

CLUSTER = {"num_cpus": 1}


@system.remote
def hold(started: Gate, gate: Gate) -> str:
    started.open()
    gate.wait()
    return "held"


@system.remote
def count(tally: Tally, value: Any = None) -> int:
    return tally.add()


@system.remote
def sleep(started: Gate, seconds: float) -> None:
    started.open()
    time.sleep(seconds)


def test_a_waiting_task_never_starts(signals: Signals) -> None:
    started, gate, ran = signals.gate("started"), signals.gate("go"), signals.tally("ran")
    holder = hold.remote(started, gate)
    started.wait()
    waiting = count.remote(ran)
    system.cancel(waiting)
    with pytest.raises(system.TaskCancelledError):
        system.get(waiting, timeout=20)
    gate.open()
    assert system.get(holder) == "held"
    assert system.get(count.remote(signals.tally("other"))) == 1
    assert ran.count() == 0


def test_a_task_that_waits_for_its_arguments_never_starts(signals: Signals) -> None:
    started, gate, ran = signals.gate("started"), signals.gate("go"), signals.tally("ran")
    holder = hold.remote(started, gate)
    waiting = count.remote(ran, holder)
    system.cancel(waiting)
    with pytest.raises(system.TaskCancelledError):
        system.get(waiting, timeout=20)
    gate.open()
    assert system.get(holder) == "held"
    assert ran.count() == 0


def test_a_running_task_is_interrupted(signals: Signals) -> None:
    started = signals.gate("started")
    ref = hold.remote(started, signals.gate("never"))
    started.wait()
    system.cancel(ref)
    with pytest.raises(system.TaskCancelledError):
        system.get(ref, timeout=10)


def test_a_task_sees_a_keyboard_interrupt_and_may_clean_up(signals: Signals) -> None:
    started, never, cleaned = signals.gate("started"), signals.gate("never"), signals.gate("cleaned")

    @system.remote
    def careful() -> None:
        try:
            started.open()
            never.wait()
        except KeyboardInterrupt:
            cleaned.open()
            raise

    ref = careful.remote()
    started.wait()
    system.cancel(ref)
    with pytest.raises(system.TaskCancelledError):
        system.get(ref, timeout=10)
    cleaned.wait()


def test_a_sleeping_task_is_interrupted_within_a_second(signals: Signals) -> None:
    started = signals.gate("started")
    ref = sleep.remote(started, 15)
    started.wait()
    begin_s = time.monotonic()
    system.cancel(ref)
    with pytest.raises(system.TaskCancelledError):
        system.get(ref, timeout=20)
    assert time.monotonic() - begin_s < 3


def test_the_cpu_of_a_cancelled_task_is_free(signals: Signals) -> None:
    started = signals.gate("started")
    ref = hold.remote(started, signals.gate("never"))
    started.wait()
    system.cancel(ref)
    assert system.get(count.remote(signals.tally("next")), timeout=20) == 1


def test_force_ends_the_process(signals: Signals) -> None:
    started = signals.gate("started")
    ref = sleep.remote(started, 30)
    started.wait()
    system.cancel(ref, force=True)
    with pytest.raises((system.TaskCancelledError, system.WorkerCrashedError)):
        system.get(ref, timeout=10)
    assert system.get(count.remote(signals.tally("next")), timeout=20) == 1


def test_a_cancelled_task_is_not_retried(signals: Signals) -> None:
    started, tally = signals.gate("started"), signals.tally("attempts")

    @system.remote(max_retries=5, retry_exceptions=True)
    def endless() -> None:
        tally.add()
        started.open()
        signals_never.wait()

    signals_never = signals.gate("never")
    ref = endless.remote()
    started.wait()
    system.cancel(ref)
    with pytest.raises(system.TaskCancelledError):
        system.get(ref, timeout=10)
    assert system.get(count.remote(signals.tally("next")), timeout=20) == 1
    assert tally.count() == 1


def test_a_finished_task_stays_as_it_is(signals: Signals) -> None:
    ref = count.remote(signals.tally("done"))
    assert system.get(ref) == 1
    system.cancel(ref)
    system.cancel(ref, force=True)
    assert system.get(ref) == 1


def test_a_failed_task_stays_failed() -> None:
    @system.remote
    def bad() -> None:
        raise ValueError("before")

    ref = bad.remote()
    with pytest.raises(ValueError):
        system.get(ref)
    system.cancel(ref)
    with pytest.raises(ValueError, match="before"):
        system.get(ref)


def test_dependants_of_a_cancelled_task_fail_alike(signals: Signals) -> None:
    started, ran = signals.gate("started"), signals.tally("ran")
    ref = hold.remote(started, signals.gate("never"))
    dependant = count.remote(ran, ref)
    started.wait()
    system.cancel(ref)
    with pytest.raises(system.TaskCancelledError):
        system.get(dependant, timeout=10)
    assert ran.count() == 0


def test_children_are_cancelled_too(signals: Signals) -> None:
    started, never = signals.gate("started"), signals.gate("never")
    interrupted = signals.gate("interrupted")

    @system.remote
    def child() -> None:
        started.open()
        try:
            never.wait()
        except KeyboardInterrupt:
            interrupted.open()
            raise

    @system.remote
    def parent() -> None:
        system.get(child.remote())

    ref = parent.remote()
    started.wait()
    system.cancel(ref)
    interrupted.wait()
    with pytest.raises(system.TaskCancelledError):
        system.get(ref, timeout=10)


def test_children_go_on_when_cancel_is_not_recursive(signals: Signals) -> None:
    started, gate, finished = signals.gate("started"), signals.gate("go"), signals.gate("finished")

    @system.remote(num_cpus=0)
    def child() -> None:
        started.open()
        gate.wait()
        finished.open()

    @system.remote(num_cpus=0)
    def parent() -> None:
        system.get(child.remote())

    ref = parent.remote()
    started.wait()
    system.cancel(ref, recursive=False)
    with pytest.raises(system.TaskCancelledError):
        system.get(ref, timeout=10)
    gate.open()
    finished.wait()


def test_cancel_takes_refs_only() -> None:
    with pytest.raises((TypeError, ValueError)):
        system.cancel(5)


def test_cancel_hits_no_other_task(signals: Signals) -> None:
    tally = signals.tally("all")
    refs = [count.remote(tally) for _ in range(20)]
    for ref in refs[::2]:
        system.cancel(ref)
    for ref in refs[1::2]:
        assert system.get(ref, timeout=20) > 0


def test_a_task_can_cancel_another(signals: Signals) -> None:
    started = signals.gate("started")
    ref = hold.options(num_cpus=0).remote(started, signals.gate("never"))

    @system.remote(num_cpus=0)
    def end(refs: list[Any]) -> None:
        system.cancel(refs[0])

    started.wait()
    system.get(end.remote([ref]))
    with pytest.raises(system.TaskCancelledError):
        system.get(ref, timeout=10)


def test_a_cancelled_error_is_the_systems_own(signals: Signals) -> None:
    started = signals.gate("started")
    ref = hold.remote(started, signals.gate("never"))
    started.wait()
    system.cancel(ref)
    with pytest.raises(system.SystemError):
        system.get(ref, timeout=10)
    wait_until(lambda: system.wait([ref], timeout=0)[0], 5, "the cancelled ref")
