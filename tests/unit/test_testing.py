from __future__ import annotations

import asyncio

import pytest

from runner.testing import FakeClock, Fault, FaultPlan


def test_time_stands_still_until_it_is_moved() -> None:
    clock = FakeClock(start_s=5.0)
    assert clock.monotonic_s() == 5.0
    clock.advance(2.5)
    assert clock.monotonic_s() == 7.5
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


def test_the_three_clocks_differ_when_the_host_sleeps_or_the_wall_clock_jumps() -> None:
    clock = FakeClock(start_s=0.0, unix_start_s=100.0)
    clock.advance(1.0)
    clock.suspend_host(10.0)
    clock.jump_wall(-3.0)
    assert (clock.monotonic_s(), clock.boottime_s(), clock.unix_s()) == (1.0, 11.0, 108.0)


async def test_sleepers_wake_in_the_order_of_their_deadlines() -> None:
    clock = FakeClock()
    woken: list[int] = []

    async def sleeper(duration_s: int) -> None:
        await clock.sleep(duration_s)
        woken.append(duration_s)

    async with asyncio.TaskGroup() as group:
        for duration_s in (3, 1, 2, 0):
            group.create_task(sleeper(duration_s))
        await asyncio.sleep(0)
        clock.advance(10.0)
    assert woken == [0, 1, 2, 3]


async def test_a_cancelled_sleeper_is_no_deadline() -> None:
    clock = FakeClock()
    sleeper = asyncio.ensure_future(clock.sleep(5.0))
    await asyncio.sleep(0)
    assert clock.next_deadline_s() == clock.monotonic_s() + 5.0
    sleeper.cancel()
    await asyncio.wait([sleeper])
    assert clock.next_deadline_s() is None


def test_autojump_passes_days_at_once_and_in_order() -> None:
    clock = FakeClock(start_s=0.0)
    seen: list[tuple[str, float]] = []

    async def tick(name: str, period_s: float, count: int) -> None:
        for _ in range(count):
            await clock.sleep(period_s)
            seen.append((name, clock.monotonic_s()))

    async def main() -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(tick("hourly", 3600.0, 48))
            group.create_task(tick("daily", 86_400.0 + 1, 2))
        return "done"

    assert clock.run(main()) == "done"
    assert clock.monotonic_s() == 2 * 86_401.0
    assert [at_s for _, at_s in seen] == sorted(at_s for _, at_s in seen)
    assert len(seen) == 50


def test_asyncio_timeouts_follow_the_clock_too() -> None:
    clock = FakeClock()

    async def main() -> None:
        begun_s = clock.monotonic_s()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(500):
                await asyncio.Event().wait()
        await asyncio.sleep(100)
        assert clock.monotonic_s() - begun_s == pytest.approx(600)

    clock.run(main())


def test_time_creeps_for_those_who_poll() -> None:
    clock = FakeClock()

    async def main() -> None:
        deadline_s = clock.monotonic_s() + 1e-4
        while clock.monotonic_s() < deadline_s:
            await asyncio.sleep(0)

    clock.run(main())


def test_the_clock_does_not_jump_while_a_real_pipe_has_something_to_say() -> None:
    clock = FakeClock()

    async def main() -> None:
        begun_s = clock.monotonic_s()
        timeout = asyncio.ensure_future(asyncio.sleep(1000))
        child = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
        output, _ = await child.communicate()
        assert output == b"hello\n"
        assert clock.monotonic_s() == begun_s
        timeout.cancel()

    clock.run(main(), idle_s=10.0)


def test_a_plan_repeats_and_its_streams_do_not_disturb_each_other() -> None:
    one, two = FaultPlan(7), FaultPlan(7)
    two.stream("another").random()
    assert [one.stream("a").random() for _ in range(3)] == [two.stream("a").random() for _ in range(3)]
    rates = {"kill": 2.0, "freeze": 0.5, "never": 0.0}
    schedule = FaultPlan(7).schedule(rates, 10.0)
    assert schedule == FaultPlan(7).schedule(rates, 10.0)
    assert schedule == sorted(schedule)
    assert {fault.kind for fault in schedule} == {"kill", "freeze"}
    assert schedule != FaultPlan(8).schedule(rates, 10.0)
    more = FaultPlan(7).schedule(rates | {"new": 1.0}, 10.0)
    assert [fault for fault in more if fault.kind != "new"] == schedule


def test_a_fault_picks_a_victim_among_those_there_are() -> None:
    assert Fault(0.0, "kill", 0.99).pick([1, 2, 3]) == 3
    assert Fault(0.0, "kill", 0.0).pick([1, 2, 3]) == 1
    assert Fault(0.0, "kill", 0.5).pick([]) is None


def test_strikes_follow_the_probability() -> None:
    plan = FaultPlan(1)
    assert not any(plan.strikes("never", 0.0) for _ in range(100))
    assert all(plan.strikes("always", 1.0) for _ in range(100))
    assert 20 < sum(plan.strikes("often", 0.3) for _ in range(100)) < 40
