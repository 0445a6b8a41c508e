"""Tools for tests of programs that use runner, and for runner's own: a clock to turn by hand, seeded faults, a cluster that must leave nothing."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import selectors
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from runner.providers.fake import FakeProvider, ProviderFaults

if TYPE_CHECKING:
    from runner.flysim.fixture import FlySim
    from runner.testing_cluster import LocalCluster

__all__ = ["FakeClock", "FakeProvider", "Fault", "FaultPlan", "FlySim", "LocalCluster", "ProviderFaults"]

T = TypeVar("T")

_BUSY_TURNS = 100  # of the event loop without waiting, after which each turn takes time
_TURN_S = 1e-6


class FakeClock:
    """Time that stands still until somebody moves it.

    `advance` moves it by hand. Under `run` it moves by itself: whenever everything waits, it jumps to the earliest deadline, and
    asyncio's own timeouts and sleeps follow it, so hours of waiting take microseconds. A loop that is busy for more than a hundred turns
    makes it creep by a microsecond a turn. For one event loop's thread.
    """

    def __init__(self, *, start_s: float = 1000.0, unix_start_s: float = 1_700_000_000.0) -> None:
        self._now_s = start_s
        self._asleep_s = 0.0  # while the host was suspended: counted by boottime, not by monotonic
        self._wall_offset_s = unix_start_s - start_s
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._serial = itertools.count()

    def monotonic_s(self) -> float:
        return self._now_s

    def boottime_s(self) -> float:
        return self._now_s + self._asleep_s

    def unix_s(self) -> float:
        return self._now_s + self._asleep_s + self._wall_offset_s

    def advance(self, duration_s: float) -> None:
        """Let this much time pass and wake those whose time has come, in the order of their deadlines."""
        if duration_s < 0:
            raise ValueError(f"time cannot go back by {-duration_s} s")
        self._now_s += duration_s
        while self._sleepers and self._sleepers[0][0] <= self._now_s:
            sleeper = heapq.heappop(self._sleepers)[2]
            if not sleeper.done():
                sleeper.set_result(None)

    def suspend_host(self, duration_s: float) -> None:
        """The host slept: boottime and the wall clock went on, monotonic time did not."""
        self._asleep_s += duration_s

    def jump_wall(self, by_s: float) -> None:
        """Somebody set the wall clock."""
        self._wall_offset_s += by_s

    async def sleep(self, duration_s: float) -> None:
        """Return when this much time has passed on this clock."""
        await self.sleep_until(self._now_s + duration_s)

    async def sleep_until(self, deadline_s: float) -> None:
        """Return when `monotonic_s()` has reached `deadline_s`."""
        if deadline_s <= self._now_s:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (deadline_s, next(self._serial), woken))
        await woken

    def next_deadline_s(self) -> float | None:
        """When the first of those who sleep on this clock wakes."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def run(self, work: Coroutine[Any, Any, T], *, idle_s: float = 0.0) -> T:
        """Run it to its end on a new event loop whose time is this clock's, with autojump.

        `idle_s` is how long (in real seconds) nothing may arrive from real sockets and pipes before the clock jumps.
        """
        with asyncio.Runner(loop_factory=lambda: _ClockLoop(self, idle_s)) as loop_runner:
            return loop_runner.run(work)


class _ClockLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: FakeClock, idle_s: float) -> None:
        self._fake_clock = clock
        super().__init__(_JumpingSelector(clock, idle_s))

    def time(self) -> float:
        return self._fake_clock.monotonic_s()


class _JumpingSelector(selectors.DefaultSelector):
    """Waiting means that every callback has run: the moment to jump."""

    def __init__(self, clock: FakeClock, idle_s: float) -> None:
        super().__init__()
        self._clock = clock
        self._idle_s = idle_s
        self._busy_turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            self._busy_turns += 1
            if self._busy_turns > _BUSY_TURNS:
                # Whoever polls until a moment has come would never see it, did its own turns take no time.
                self._clock.advance(_TURN_S)
            return super().select(0)
        self._busy_turns = 0
        deadlines = [self._clock.next_deadline_s(), None if timeout is None else self._clock.monotonic_s() + timeout]
        due = [deadline_s for deadline_s in deadlines if deadline_s is not None]
        events = super().select(self._idle_s if due else None)
        if due and not events:
            self._clock.advance(max(0.0, min(due) - self._clock.monotonic_s()))
        return events


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """Something to break, at a time counted from the start of the plan."""

    at_s: float
    kind: str
    victim: float = 0.0  # in [0, 1): which one, scaled by the caller to however many there are then

    def pick(self, candidates: list[T]) -> T | None:
        """The victim among these; None when there are none."""
        return candidates[int(self.victim * len(candidates))] if candidates else None


@dataclass(slots=True)
class FaultPlan:
    """All chance of a test, from one seed.

    Each label has its own stream of numbers, so that a new kind of fault does not change when the old ones strike.
    """

    seed: int
    _streams: dict[str, random.Random] = field(init=False, default_factory=dict)

    def stream(self, label: str) -> random.Random:
        """The random numbers for one purpose; the same label gives the same stream to go on with."""
        if label not in self._streams:
            self._streams[label] = random.Random(f"{self.seed}/{label}")
        return self._streams[label]

    def strikes(self, label: str, probability: float) -> bool:
        """Whether it happens this time."""
        return self.stream(label).random() < probability

    def schedule(self, rates_per_s: Mapping[str, float], duration_s: float) -> list[Fault]:
        """When what breaks within `duration_s`: for each kind a Poisson process with its rate, all in order of time."""
        faults = []
        for kind, rate_per_s in rates_per_s.items():
            numbers = self.stream(f"schedule/{kind}")
            at_s = numbers.expovariate(rate_per_s) if rate_per_s > 0 else duration_s
            while at_s < duration_s:
                faults.append(Fault(at_s, kind, numbers.random()))
                at_s += numbers.expovariate(rate_per_s)
        return sorted(faults)

    def provider_faults(self, **chances: float) -> ProviderFaults:
        """Faults for a FakeProvider, drawn from this plan's seed; keywords as in ProviderFaults."""
        return ProviderFaults(seed=self.stream("provider").getrandbits(32), **chances)


def __getattr__(name: str) -> Any:
    # Clocks and plans are useful without gRPC, which this one brings.
    if name == "LocalCluster":
        from runner.testing_cluster import LocalCluster

        return LocalCluster
    if name == "FlySim":  # and this one httpx
        from runner.flysim.fixture import FlySim

        return FlySim
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
