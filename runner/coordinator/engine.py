"""One loop turn: drain events, let the core decide, record, commit once, then carry out commands and acknowledge.

Everything that happens to the cluster passes `Engine.post`, in order. Nothing is awaited inside a turn, so no other
coroutine ever sees a state that is not committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from runner.clock import Clock
from runner.coordinator.journal import Journal
from runner.coordinator.recorder import LogEntry
from runner.core import commands, events, journal_form
from runner.core.cluster import Cluster

log = logging.getLogger(__name__)

# The loop proves that it runs this often; a beat that comes later than this much is a stall.
_BEAT_S = 1.0
_STALL_S = 1.0
# What comes sooner after the last turn waits until the loop has read all that is there.
_GATHER_S = 0.0005


class Performer(Protocol):
    """Carries out what a turn decided."""

    def record(self, decided: list[commands.Command | LogEntry], turn: int) -> None:
        """Write down what readers are to see, to count once the journal has this turn (0: it needs no commit)."""

    def abandon(self) -> None:
        """The turn failed: nobody may see what was recorded."""

    def perform(self, decided: list[commands.Command | LogEntry]) -> None:
        """In order, without waiting for anything."""

    def finish_turn(self) -> None:
        """Called once after `perform`: send what was gathered."""


class CoreClock:
    """The core's time: goes on from the last journalled value plus the wall difference, never backwards."""

    def __init__(self, clock: Clock, *, last_now_s: float = 0.0, last_unix_s: float = 0.0) -> None:
        self._clock = clock
        away_s = max(0.0, clock.unix_s() - last_unix_s) if last_unix_s else 0.0
        self._offset_s = last_now_s + away_s - clock.monotonic_s()

    def now_s(self) -> float:
        """Seconds of core time."""
        return self._clock.monotonic_s() + self._offset_s

    def unix_s(self, core_s: float) -> float:
        """The wall time of a moment in core time, as the clocks stand now."""
        return core_s - self.now_s() + self._clock.unix_s()


class Engine:
    """The only writer of the core's state.

    `fatal` is called, once, when a turn could not be decided or committed: what is in memory is then ahead of what is
    durable, and the process must end without acknowledging anything more.
    """

    def __init__(
        self, cluster: Cluster, journal: Journal, clock: Clock, core_clock: CoreClock, fatal: Callable[[str], None]
    ) -> None:
        self.cluster = cluster
        self._journal = journal
        self._clock = clock
        self._core_clock = core_clock
        self._fatal = fatal
        self._performer: Performer | None = None
        self._queue: list[events.Event | LogEntry] = []
        self._after_commit: list[Callable[[], None]] = []
        self._scheduled: asyncio.Handle | None = None
        self._turn_s = 0.0  # when the last one began
        self._dead = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._beat: asyncio.TimerHandle | None = None
        self._beat_at_s = 0.0

    def start(self, performer: Performer, *, watch_stalls: bool) -> None:
        """Begin to take turns in the running loop. `watch_stalls`: leases are extended when the loop itself hung."""
        self._performer = performer
        self._loop = asyncio.get_running_loop()
        self._beat_at_s = self._clock.monotonic_s()
        if watch_stalls:
            self._next_beat()
        if self._queue:
            self._schedule()

    def stop(self) -> None:
        """Take no more turns. Idempotent."""
        self._dead = True
        for handle in (self._timer, self._beat):
            if handle is not None:
                handle.cancel()

    def post(self, item: events.Event | LogEntry) -> None:
        """Hand over what happened; it is decided in the loop's next iteration."""
        self._queue.append(item)
        if self._scheduled is None:
            self._schedule()

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back when everything posted so far is durable. Never called when that fails."""
        self._after_commit.append(callback)
        if self._scheduled is None:
            self._schedule()

    def decide_now(self) -> None:
        """Take the turn that is due, if any, unless turns follow each other closely: then the next one gathers more."""
        if self._scheduled is not None and self._clock.monotonic_s() - self._turn_s > _GATHER_S:
            self._scheduled.cancel()
            self._turn()

    async def committed(self) -> None:
        """Return when everything posted so far is durable and its commands are carried out."""
        future = asyncio.get_running_loop().create_future()
        self.after_commit(lambda: None if future.done() else future.set_result(None))
        await future

    def now_s(self) -> float:
        """Core time."""
        return self._core_clock.now_s()

    def _schedule(self) -> None:
        if self._loop is not None and not self._dead:
            self._scheduled = self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = None
        if self._dead or self._performer is None:
            return
        queue, self._queue = self._queue, []
        callbacks, self._after_commit = self._after_commit, []
        self._turn_s = self._clock.monotonic_s()
        try:
            now_s = self._core_clock.now_s()
            decided, new_facts = self._decide(queue, now_s)
            # Events before facts: those of a turn that is not committed are dropped at the next start, while lost ones
            # could not be had again, as the work that they tell of has ended.
            self._performer.record(decided, self._journal.turn + 1 if new_facts else 0)
            if new_facts:
                self._journal.commit(new_facts, now_s, self._clock.unix_s())
            self._performer.perform(decided)
            self._performer.finish_turn()
        except Exception as exc:
            # The core may have applied what the journal lacks: going on would acknowledge what is not kept.
            self.stop()
            self._performer.abandon()
            log.critical("turn failed on %s", [type(item).__name__ for item in queue[:20]], exc_info=True)
            self._fatal(f"{type(exc).__name__}: {exc}")
            return
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("a callback of a committed turn failed")  # the others wait for it no less
        self._set_timer()

    def _decide(
        self, queue: list[events.Event | LogEntry], now_s: float
    ) -> tuple[list[commands.Command | LogEntry], list[object]]:
        """Commands, and facts to commit. Log entries keep their place among the commands, so readers see them in order."""
        handle = self.cluster.handle
        encode = journal_form.encode
        new_facts: list[object] = []
        decided: list[commands.Command | LogEntry] = []
        stalled_s = self._clock.monotonic_s() - self._beat_at_s - _BEAT_S
        if self._beat is not None and stalled_s > _STALL_S:
            self._beat_at_s = self._clock.monotonic_s()
            log.warning("the event loop did not run for %.1f s; leases are extended", stalled_s)
            queue.insert(0, events.LoopStalled(stalled_s))
        for item in queue:
            if type(item) is LogEntry:
                if self.cluster.is_current(item.machine_id, item.generation, item.task_id, item.attempt):
                    decided.append(item)
                continue
            decision = handle(item, now_s)  # type: ignore[arg-type]  # narrowed by type() above
            new_facts.extend([encode(fact) for fact in decision.facts])
            decided.extend(decision.commands)
        wakeup_s = self.cluster.next_wakeup_s()
        if wakeup_s is not None and wakeup_s <= now_s:
            # Last, so that frames which waited are handled before anything expires.
            decision = handle(events.ClockAdvanced(), now_s)
            new_facts.extend([encode(fact) for fact in decision.facts])
            decided.extend(decision.commands)
        return decided, new_facts

    def _set_timer(self) -> None:
        wakeup_s = self.cluster.next_wakeup_s()
        if wakeup_s is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        if self._timer is not None:
            if wakeup_s == self._timer_at_s:
                return
            self._timer.cancel()
        assert self._loop is not None
        self._timer_at_s = wakeup_s
        self._timer = self._loop.call_later(max(0.0, wakeup_s - self._core_clock.now_s()), self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._scheduled is None:
            self._schedule()

    def _next_beat(self) -> None:
        assert self._loop is not None
        late_s = self._clock.monotonic_s() - self._beat_at_s - _BEAT_S
        if late_s > _STALL_S and self._beat is not None:
            # A turn notes the stall before it looks at any lease.
            if self._scheduled is None:
                self._schedule()
        else:
            self._beat_at_s = self._clock.monotonic_s()
        self._beat = self._loop.call_later(_BEAT_S, self._next_beat)
