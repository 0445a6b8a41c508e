"""A pool's record: its machines by state, which of them are idle, and why it may be unable to grow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from runner.core.machine import BOOTING, Machine, MachineState
from runner.core.scaling import PoolLoad
from runner.core.values import PoolRecord

# A machine that served shorter than this, or not at all, died of something that its successor may die of too.
SHORT_LIFE_S = 10.0
# So many waves of boots in a row that came to nothing; then no more are asked for.
FAILURES_MAX = 5
# Where the provider itself refuses, it may be away for some time: this long it is asked again.
OUTAGE_S = 600.0
_BACKOFF_FIRST_S = 0.25
_BACKOFF_MAX_S = 30.0
_SHORTAGE_FIRST_S = 30.0
_SHORTAGE_MAX_S = 600.0
_GONE = MachineState.DESTROYED
_COMING = BOOTING | {MachineState.RESUMING}
_DOZING = MachineState.SUSPENDING
_GOING = frozenset(MachineState) - _COMING - {MachineState.READY, _DOZING, MachineState.SUSPENDED, _GONE}


@dataclass(slots=True, eq=False)
class Pool:
    """`record` and the machines are durable; the rest is what this coordinator has seen and is told anew by events."""

    record: PoolRecord
    counts: dict[MachineState, int] = field(default_factory=lambda: dict.fromkeys(MachineState, 0))
    idle: dict[Machine, float] = field(default_factory=dict)  # ready ones without work and since when, longest first
    asleep: dict[Machine, None] = field(default_factory=dict)  # suspended ones, longest first
    start: int = 0  # machines that a start asks for; 0 once they have been there, or are known not to be had
    came: int = 0  # machines that have registered
    # ---- trouble ----
    problem: str = ""  # for people: why it cannot have what it wants
    is_hopeless: bool = False
    limit: float = inf  # machines that can be had until `limit_until_s`
    limit_until_s: float = inf
    shortages: int = 0  # in a row
    short_by: int = 0  # machines that were refused for want of room, since people were told last
    failures: int = 0  # waves of boots that came to nothing
    failing_since_s: float = 0.0
    wave_s: float = -inf  # when the last one failed: boots requested earlier belong to it
    retry_at_s: float = -inf

    @property
    def coming(self) -> int:
        return sum(self.counts[state] for state in _COMING)

    @property
    def ready(self) -> int:
        return self.counts[MachineState.READY]

    @property
    def there(self) -> int:
        """Machines that can serve, now or soon."""
        return self.coming + self.ready + self.counts[_DOZING] + len(self.asleep)

    @property
    def going(self) -> int:
        return sum(self.counts[state] for state in _GOING)

    @property
    def is_refused(self) -> bool:
        """Whether a boot has failed for good, since machines were last asked for by number."""
        return self.limit < inf and self.limit_until_s == inf

    @property
    def can_ever_grow(self) -> bool:
        """Whether it may have a machine, now or later."""
        return self.record.max > 0 and not self.is_hopeless

    @property
    def is_elastic(self) -> bool:
        """Whether what waits changes how many machines it has."""
        return self.record.max > self.record.min or self.record.is_single_use or self.record.suspends_idle

    def load(self, now_s: float) -> PoolLoad:
        """What the plan looks at."""
        record = self.record
        most = record.max if now_s >= self.limit_until_s else min(record.max, self.limit)
        if self.is_hopeless or now_s < self.retry_at_s:
            most = min(most, self.there + self.going)
        least = min(max(record.min, self.start), record.max)
        return PoolLoad(
            record.shape,
            least,
            int(most),
            record.buffer,
            record.is_single_use,
            self.coming,
            self.ready,
            len(self.idle),
            self.going,
            record.labels,
            record.unknown_labels,
            len(self.asleep),
            self.counts[_DOZING],
            record.suspends_idle,
        )

    def note_start(self) -> None:
        """Whether the machines of the start have been there, or will not all be: then they may go as others do."""
        if self.came >= min(self.start, self.record.max) or self.is_hopeless or self.limit < self.start:
            self.start = 0

    # ---- what goes wrong ----
    def refused(self, reason: str) -> None:
        """A boot failed for good: what is there is what can be had."""
        self.problem = reason
        self.limit, self.limit_until_s = self.there, inf
        self.is_hopeless = not self.limit

    def short(self, reason: str, now_s: float) -> None:
        """The provider has no room for more now."""
        self.problem = reason
        self.short_by += 1
        self.limit = self.there
        if now_s >= self.limit_until_s or self.limit_until_s == inf:
            pause_s = min(_SHORTAGE_FIRST_S * 2.0**self.shortages, _SHORTAGE_MAX_S)
            self.shortages += 1
            self.limit_until_s = now_s + pause_s

    def take_shortage(self) -> int:
        """How many of the machines that were asked for cannot be had, once that is known of all; then 0 until it happens again."""
        if self.coming:
            return 0
        short_by, self.short_by = self.short_by, 0
        return short_by

    def failed(self, machine: Machine, reason: str, now_s: float) -> bool:
        """A boot came to nothing, or its machine died young; whether a wave of them has just begun to fail."""
        was_created = machine.provider_machine_id != ""
        if machine.requested_s <= self.wave_s:
            return False
        self.failures += 1
        self.problem = reason
        if self.failures == 1:
            self.failing_since_s = now_s
        self.wave_s = now_s
        self.retry_at_s = now_s + min(_BACKOFF_FIRST_S * (2.0**self.failures - 1.0), _BACKOFF_MAX_S)
        is_outage = not was_created and now_s - self.failing_since_s < OUTAGE_S
        self.is_hopeless = self.failures > FAILURES_MAX and not is_outage
        return True

    def lived(self) -> None:
        """A machine has served, or a boot has worked since the last one that failed: those before do not count any more."""
        self.failures = 0
        self.retry_at_s = self.wave_s = -inf
        if self.limit_until_s == inf and self.limit == inf:
            self.problem = ""

    def forget_trouble(self, now_s: float) -> None:
        """It has what it wants: what kept it from that is over."""
        is_limited = now_s < self.limit_until_s and self.limit < inf
        if not self.is_hopeless and not is_limited and now_s >= self.retry_at_s:
            self.problem = ""

    def next_due_s(self, now_s: float) -> float:
        """When time alone may change the plan."""
        due_s = [at_s for at_s in (self.retry_at_s, self.limit_until_s) if now_s < at_s < inf]
        if self.idle and self.is_elastic:
            due_s.append(max(now_s, next(iter(self.idle.values())) + self.record.idle_shutdown_s))
        return min(due_s, default=inf)

    def idle_too_long(self, now_s: float) -> Iterable[Machine]:
        """Longest idle first."""
        limit_s = self.record.idle_shutdown_s
        return [machine for machine, since_s in self.idle.items() if since_s + limit_s <= now_s]
