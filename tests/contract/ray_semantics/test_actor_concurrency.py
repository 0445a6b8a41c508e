"""Actors that do several things at once: threads, coroutines, groups, limits, and generators."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Gate, Signals, Tally
from tests.integration.helpers import let_stay, wait_until


class Threaded:
    def __init__(self) -> None:
        self.waiting = 0

    def meet(self, mine: Gate, other: Gate) -> bool:
        mine.open()
        other.wait()
        return True

    def hold(self, running: Tally, gate: Gate) -> int:
        count = running.add()
        gate.wait()
        return count

    def thread(self) -> int:
        return threading.get_ident()

    def quick(self) -> str:
        return "quick"


class Async:
    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.waiting = 0

    async def wait(self) -> str:
        self.waiting += 1
        await self.event.wait()
        return "set"

    async def set(self) -> int:
        self.event.set()
        return self.waiting

    async def count(self) -> int:
        return self.waiting

    async def value_of(self, refs: list[Any]) -> Any:
        return await refs[0]

    async def fail(self) -> None:
        raise ValueError("from a coroutine")

    async def cancelled(self, started: Gate, seen: Gate) -> None:
        started.open()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.open()
            raise

    def plain(self) -> str:
        return "plain"

    async def letters(self, n: int) -> Any:
        for index in range(n):
            await asyncio.sleep(0)
            yield "abc"[index]


class Producer:
    def numbers(self, n: int) -> Any:
        for index in range(n):  # noqa: UP028
            yield index

    def fails(self) -> Any:
        yield 0
        raise ValueError("after the first")

    def step(self, gates: list[Gate]) -> Any:
        for index, gate in enumerate(gates):
            gate.wait()
            yield index

    def counting(self, made: Tally, n: int) -> Any:
        for index in range(n):
            made.add()
            yield index

    def crash_after(self, n: int) -> Any:
        for index in range(n):  # noqa: UP028
            yield index
        os._exit(1)

    def plain(self) -> str:
        return "plain"


def make(cls: type, **options: Any) -> Any:
    made = system.remote(cls)
    return (made.options(**options) if options else made).remote()


# ---- threads ----
def test_max_concurrency_runs_calls_side_by_side(signals: Signals) -> None:
    a, b = signals.gate("a"), signals.gate("b")
    actor = make(Threaded, max_concurrency=2)
    assert system.get([actor.meet.remote(a, b), actor.meet.remote(b, a)]) == [True, True]


def test_max_concurrency_is_a_limit(signals: Signals) -> None:
    running, gate = signals.tally("running"), signals.gate("go")
    actor = make(Threaded, max_concurrency=2)
    refs = [actor.hold.remote(running, gate) for _ in range(4)]
    wait_until(lambda: running.count() == 2, 20, "two calls")
    let_stay(lambda: running.count() == 2, 0.2, "no more than two")
    gate.open()
    assert sorted(system.get(refs)) == [1, 2, 3, 4]


def test_a_sync_actor_uses_one_thread() -> None:
    actor = make(Threaded)
    assert len(set(system.get([actor.thread.remote() for _ in range(5)]))) == 1


def test_errors_in_threads_hit_their_call_only() -> None:
    class Fails:
        def fail(self) -> None:
            raise ValueError("one of them")

        def fine(self) -> int:
            return 1

    actor = make(Fails, max_concurrency=3)
    bad, good = actor.fail.remote(), actor.fine.remote()
    with pytest.raises(ValueError):
        system.get(bad)
    assert system.get(good) == 1


# ---- coroutines ----
def test_coroutines_run_side_by_side() -> None:
    actor = make(Async)
    waiting = [actor.wait.remote() for _ in range(20)]
    wait_until(lambda: system.get(actor.count.remote()) == 20, 20, "all coroutines")
    assert system.get(actor.set.remote()) == 20
    assert system.get(waiting) == ["set"] * 20


def test_coroutines_start_in_the_order_of_the_calls() -> None:
    class Log:
        def __init__(self) -> None:
            self.seen: list[int] = []

        async def add(self, value: int) -> None:
            self.seen.append(value)

        async def all(self) -> list[int]:
            return self.seen

    actor = make(Log)
    system.get([actor.add.remote(index) for index in range(50)])
    assert system.get(actor.all.remote()) == list(range(50))


def test_max_concurrency_limits_coroutines() -> None:
    actor = make(Async, max_concurrency=1)
    blocked = actor.wait.remote()
    later = actor.count.remote()
    assert system.wait([later], timeout=0.2)[0] == []
    system.kill(actor)
    with pytest.raises(system.ActorError):
        system.get(blocked)


def test_a_coroutine_can_await_refs() -> None:
    assert system.get(make(Async).value_of.remote([system.put(5)])) == 5


def test_errors_of_coroutines_are_raised() -> None:
    with pytest.raises(ValueError, match="from a coroutine"):
        system.get(make(Async).fail.remote())


def test_plain_methods_of_async_actors_work() -> None:
    assert system.get(make(Async).plain.remote()) == "plain"


def test_a_waiting_coroutine_does_not_hold_up_others() -> None:
    actor = make(Async)
    waiting = actor.wait.remote()
    assert system.get(actor.plain.remote(), timeout=20) == "plain"
    system.get(actor.set.remote())
    assert system.get(waiting) == "set"


# ---- concurrency groups ----
def test_groups_do_not_hold_up_each_other(signals: Signals) -> None:
    class Grouped:
        @system.method(concurrency_group="io")
        def io(self, running: Tally, gate: Gate) -> int:
            count = running.add()
            gate.wait()
            return count

        @system.method(concurrency_group="compute")
        def compute(self) -> str:
            return "computed"

        def other(self) -> str:
            return "other"

    running, gate = signals.tally("running"), signals.gate("go")
    actor = system.remote(concurrency_groups={"io": 2, "compute": 1})(Grouped).remote()
    blocked = [actor.io.remote(running, gate) for _ in range(3)]
    wait_until(lambda: running.count() == 2, 20, "two calls of one group")
    assert system.get([actor.compute.remote(), actor.other.remote()], timeout=20) == ["computed", "other"]
    let_stay(lambda: running.count() == 2, 0.1, "a group's limit")
    gate.open()
    assert sorted(system.get(blocked)) == [1, 2, 3]


def test_a_call_may_name_its_group(signals: Signals) -> None:
    gate = signals.gate("go")
    actor = system.remote(concurrency_groups={"side": 1})(Threaded).remote()
    blocked = actor.hold.remote(signals.tally("running"), gate)
    assert system.get(actor.quick.options(concurrency_group="side").remote(), timeout=20) == "quick"
    gate.open()
    assert system.get(blocked) == 1


# ---- max_pending_calls ----
def test_too_many_pending_calls_are_refused(signals: Signals) -> None:
    gate, running = signals.gate("go"), signals.tally("running")
    actor = make(Threaded, max_pending_calls=3)
    system.get(actor.quick.remote())
    refs: list[Any] = []
    with pytest.raises(system.PendingCallsLimitExceeded):
        for _ in range(5):
            refs.append(actor.hold.remote(running, gate))  # noqa: PERF401
    assert 2 <= len(refs) <= 3  # the answer of the call before may still count
    gate.open()
    system.get(refs)
    assert system.get(actor.quick.remote()) == "quick"


# ---- cancel ----
def pending_call_cancelled(signals: Signals) -> int:
    """Cancel a call behind a running one; returns how many have run."""
    gate, running = signals.gate("go"), signals.tally("running")
    actor = make(Threaded)
    blocked = actor.hold.remote(running, gate)
    wait_until(running.count, 20, "the first call")
    pending = actor.hold.remote(running, gate)
    system.cancel(pending)
    gate.open()
    with pytest.raises(system.TaskCancelledError):
        system.get(pending, timeout=20)
    assert system.get(blocked) == 1
    return running.count()


def test_a_pending_call_can_be_cancelled(signals: Signals) -> None:
    assert pending_call_cancelled(signals) >= 1


def test_a_cancelled_call_that_was_pending_never_runs(signals: Signals) -> None:
    assert pending_call_cancelled(signals) == 1


def test_a_running_coroutine_is_cancelled(signals: Signals) -> None:
    started, seen = signals.gate("started"), signals.gate("seen")
    actor = make(Async)
    ref = actor.cancelled.remote(started, seen)
    started.wait()
    system.cancel(ref)
    with pytest.raises(system.TaskCancelledError):
        system.get(ref, timeout=20)
    seen.wait()
    assert system.get(actor.plain.remote()) == "plain"


def test_a_call_cannot_be_cancelled_by_force(signals: Signals) -> None:
    gate = signals.gate("go")
    actor = make(Threaded)
    ref = actor.hold.remote(signals.tally("running"), gate)
    with pytest.raises(ValueError, match="force"):
        system.cancel(ref, force=True)
    gate.open()
    assert system.get(ref) == 1


def test_a_finished_call_stays_as_it_is() -> None:
    ref = make(Threaded).quick.remote()
    assert system.get(ref) == "quick"
    system.cancel(ref)
    assert system.get(ref) == "quick"


@pytest.mark.parametrize("threads", [1, 2])
def test_a_running_call_can_see_that_it_is_cancelled_and_its_result_is_dropped(signals: Signals, threads: int) -> None:
    started = signals.gate("started")

    class Polite:
        def work(self) -> str:
            started.open()
            wait_until(lambda: system.get_runtime_context().is_canceled(), 20, "the wish to stop")
            return "stopped"

        def fine(self) -> bool:
            return bool(system.get_runtime_context().is_canceled())

    actor = make(Polite, max_concurrency=threads)
    ref = actor.work.remote()
    started.wait()
    system.cancel(ref)
    with pytest.raises(system.TaskCancelledError):
        system.get(ref, timeout=20)
    assert system.get(actor.fine.remote()) is False


# ---- generators ----
def test_generator_methods_stream() -> None:
    actor = make(Producer)
    items = actor.numbers.remote(3)
    assert system.is_generator(items)
    assert [system.get(ref) for ref in items] == [0, 1, 2]
    assert system.get(actor.plain.remote()) == "plain"


def test_the_first_item_of_a_method_comes_before_the_second_is_made(signals: Signals) -> None:
    gates = [signals.gate("first"), signals.gate("second")]
    items = make(Producer).step.remote(gates)
    gates[0].open()
    assert system.get(next(items)) == 0
    gates[1].open()
    assert system.get(next(items)) == 1
    with pytest.raises(StopIteration):
        next(items)


def test_errors_of_generator_methods_come_in_order() -> None:
    actor = make(Producer)
    items = actor.fails.remote()
    assert system.get(next(items)) == 0
    with pytest.raises(ValueError, match="after the first"):
        system.get(next(items))
    with pytest.raises(StopIteration):
        next(items)
    assert system.get(actor.plain.remote()) == "plain"


def test_async_generators_stream() -> None:
    items = make(Async).letters.remote(3)
    assert [system.get(ref) for ref in items] == ["a", "b", "c"]


async def test_async_generators_can_be_read_with_async_for() -> None:
    assert [await ref async for ref in make(Async).letters.remote(2)] == ["a", "b"]


def test_backpressure_holds_a_generator_method(signals: Signals) -> None:
    made = signals.tally("made")
    actor = make(Producer)
    items = actor.counting.options(_generator_backpressure_num_objects=2).remote(made, 5)
    wait_until(lambda: made.count() >= 2, 20, "the first items")
    let_stay(lambda: made.count() <= 3, 0.2, "a producer that waits")
    assert [system.get(ref) for ref in items] == list(range(5))


def test_a_generator_method_dies_with_its_actor() -> None:
    items = make(Producer).crash_after.remote(1)
    refs = list(items)
    with pytest.raises(system.ActorError):
        system.get(refs)


def test_two_generators_of_one_actor_follow_each_other() -> None:
    actor = make(Producer)
    first, second = actor.numbers.remote(3), actor.numbers.remote(2)
    assert [system.get(ref) for ref in second] == [0, 1]
    assert [system.get(ref) for ref in first] == [0, 1, 2]
