"""Every decision of an agent: what runs where and when, what is stopped how, and when the machine gives up. Pure.

Stops escalate: an interrupt, after TERM_AFTER_S SIGTERM to the attempt's process group, after KILL_AFTER_S more SIGKILL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.worker import agent_events as ev
from runner.worker import faults
from runner.worker.agent_events import Key, Phase, StopReason
from runner.worker.attempt_flow import IDLE_AFTER_S, PRESTART_MAX, RETURN_AFTER_S, AgentSettings, AttemptFlow
from runner.worker.executor_pool import ExecutorState
from runner.worker.lease import Lease, LeaseState
from runner.worker.slots import Placed
from runner.worker.templates import BASE, Modules, TemplateState

__all__ = ["KILL_AFTER_S", "RETURN_AFTER_S", "TERM_AFTER_S", "AgentMachine", "AgentSettings"]

TERM_AFTER_S = 5.0
KILL_AFTER_S = 2.0


class AgentMachine(AttemptFlow):
    """`handle(event, now_s)` changes the state and returns what to do; times are CLOCK_BOOTTIME seconds."""

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__(settings)
        self._lease = Lease(
            is_used=settings.is_leased, lost_after_s=settings.lost_after_s, destroy_after_s=settings.destroy_after_s
        )
        self._prestart = min(PRESTART_MAX, max(1, int(settings.cpus)))
        self._handlers: dict[type, Callable[[Any], None]] = {
            ev.AttemptAssigned: self._assigned,
            ev.StopRequested: self._stop_requested,
            ev.AttemptResumed: self._resumed,
            ev.DrainRequested: self._drain,
            ev.ExitRequested: lambda event: self._exit(event.reason),
            ev.LayerWanted: lambda event: self._want_layer(event.modules),
            ev.Registered: self._registered,
            ev.HeartbeatAcked: lambda event: self._lease.renew(event.sent_s),
            ev.ExecutorReady: self._ready,
            ev.ExecutorEnded: self._ended,
            ev.ExecutorBlocked: self._blocked,
            ev.ExecutorUnblocked: self._unblocked,
            ev.ExecutorExited: self._exited,
            ev.SpawnFailed: self._spawn_failed,
            ev.StageReached: self._stage_reached,
            ev.MemoryExceeded: self._memory_exceeded,
            ev.MemoryLow: self._memory_low,
            ev.LayerReady: lambda event: self._settle_layer(event.modules, TemplateState.READY),
            ev.LayerFailed: lambda event: self._settle_layer(event.modules, TemplateState.FAILED),
            ev.ClockGapSeen: lambda _event: self._lease.doubt(self._now_s),
            ev.Ticked: lambda _event: None,
        }
        self._on_timer: dict[str, Callable[[Any], None]] = {
            "timeout": self._timed_out,
            "startup": self._startup_timed_out,
            "term": self._terminate,
            "kill": self._kill_stopped,
            "retire": self._kill_number,
            "spawn": self._spawn_timed_out,
            "chain": self._check_chain,
            "idle": self._expire_idle,
            "layer": self._layer_timed_out,
        }

    # ---- the public face ----
    def handle(self, event: ev.Event, now_s: float) -> list[ev.Command]:
        """Take one event; returns commands to be carried out in order."""
        self._now_s = now_s
        self._handlers[type(event)](event)
        for name, subject in self._timers.due(now_s):
            self._on_timer[name](subject)
        self._follow_lease()
        if self._is_draining and not self._slots.by_key:
            self._exit("drained")
        commands, self._commands = self._commands, []
        return commands

    def next_wakeup_s(self) -> float | None:
        """When to call `handle(Ticked())` at the latest; None: whenever."""
        times = (self._timers.next_s, self._lease.next_change_s(self._now_s))
        return min((each for each in times if each is not None), default=None)

    def check(self) -> None:
        """Assert what must always hold; for tests."""
        self._pool.check()
        self._slots.check()
        for placed in self._slots:
            is_waiting = any(placed in waiting for waiting in self._waiting.values())
            assert is_waiting == (placed.phase is Phase.STARTING)
        for executor in self._pool.by_number.values():
            assert executor.key is None or self._slots.by_key[executor.key].executor is executor

    # ---- stopping ----
    def _stop_requested(self, event: ev.StopRequested) -> None:
        placed = self._slots.by_key.get(event.key)
        if placed is not None:
            self._stop(placed, event.reason, force=event.force)
        elif event.reason is not StopReason.FENCED:
            # Its assignment was lost on the way, or its report is; a report that was received makes this one void.
            self._emit(ev.ReportReturned(event.key, "it is not on this machine"))

    def _stop(self, placed: Placed, reason: StopReason, *, force: bool = False) -> None:
        if placed.phase in (Phase.CHAINED, Phase.STARTING):
            self._stop_unstarted(placed, reason)
            return
        is_first = placed.stop is None
        if (
            is_first
            or reason is StopReason.FENCED
            or (reason is StopReason.LEASE and placed.stop is not StopReason.FENCED)
        ):
            placed.stop = reason  # once fenced, always fenced: nobody wants its report
        if placed.phase is Phase.ENDING or placed.executor is None:
            return
        if force or reason in (StopReason.FENCED, StopReason.LEASE):
            self._kill(placed.executor)
        elif is_first and placed.attempt.grace_s and reason is not StopReason.CANCELLED:
            self._emit(ev.EndActor(placed.executor.number, placed.serial))
            due_s = self._now_s + placed.attempt.grace_s
            self._timers.set(due_s, "term", (placed.attempt.key, placed.serial))
        elif is_first:
            self._emit(ev.InterruptExecutor(placed.executor.number, placed.serial))
            self._timers.set(self._now_s + TERM_AFTER_S, "term", (placed.attempt.key, placed.serial))

    def _stop_unstarted(self, placed: Placed, reason: StopReason) -> None:
        attempt = placed.attempt
        self._leave_waiting(placed)
        following = self._slots.remove(placed)
        if reason in (StopReason.CANCELLED, StopReason.TIMEOUT):
            fault = faults.stopped(attempt.label, self._settings.machine_id, reason, timeout_s=attempt.timeout_s)
            self._emit(ev.ReportEnded(attempt.key, 0, None, fault, 0.0))
        elif reason is not StopReason.FENCED:
            self._emit(ev.ReportReturned(attempt.key, f"stopped before it started ({reason.name.lower()})"))
        if following is not None:
            self._start(following)

    def _timed_out(self, subject: tuple[Key, int]) -> None:
        placed = self._with_serial(subject)
        if placed is not None:
            self._stop(placed, StopReason.TIMEOUT)

    def _terminate(self, subject: tuple[Key, int]) -> None:
        placed = self._with_serial(subject)
        if placed is not None and placed.executor is not None and placed.executor.state is ExecutorState.BUSY:
            self._emit(ev.SignalGroup(placed.executor.number, ev.Signal.TERM))
            self._timers.set(self._now_s + KILL_AFTER_S, "kill", subject)

    def _kill_stopped(self, subject: tuple[Key, int]) -> None:
        placed = self._with_serial(subject)
        if placed is not None and placed.executor is not None:
            self._kill(placed.executor)

    def _kill_number(self, number: int) -> None:
        executor = self._pool.by_number.get(number)
        if executor is not None:
            self._kill(executor)

    def _spawn_timed_out(self, number: int) -> None:
        executor = self._pool.by_number.get(number)
        if executor is not None and executor.state is ExecutorState.SPAWNING:
            self._kill(executor)  # its exit fails the attempt that waits for it

    def _expire_idle(self, _subject: None) -> None:
        """As many as were there at the beginning may stay for ever."""
        self._is_idle_watched = False
        while (executor := self._pool.next_expiry(self._prestart)) is not None:
            due_s = executor.idle_since_s + IDLE_AFTER_S
            if due_s > self._now_s:
                self._is_idle_watched = True
                self._timers.set(due_s, "idle")
                return
            self._retire(executor)

    # ---- layers ----
    def _settle_layer(self, modules: Modules, state: TemplateState) -> None:
        before = self._templates.state(modules)
        if before is None or before is TemplateState.FAILED:
            return  # given up before it came
        self._templates.set(modules, state)
        self._spawn_missing(modules if state is TemplateState.READY else BASE)

    def _layer_timed_out(self, modules: Modules) -> None:
        if self._templates.state(modules) is TemplateState.LOADING:
            self._settle_layer(modules, TemplateState.FAILED)

    # ---- the machine's own life ----
    def _registered(self, _event: ev.Registered) -> None:
        self._lease.renew(self._now_s)
        for _ in range(self._prestart - len(self._pool.by_number)):
            self._spawn(BASE)

    def _follow_lease(self) -> None:
        state = self._lease.state(self._now_s)
        if state is self._lease_state:
            return
        self._lease_state = state
        if state is LeaseState.HELD:
            self._start_held()
        elif state is LeaseState.LOST:
            for placed in self._slots:
                if placed.attempt.key in self._slots.by_key:
                    self._stop(placed, StopReason.LEASE)
        elif state is LeaseState.OVER:
            self._exit("the coordinator has not been heard of for too long")

    def _start_held(self) -> None:
        for environment, waiting in list(self._waiting.items()):
            template = self._templates.find(environment.layer)
            for placed in list(waiting):
                executor = self._pool.take_idle(environment, template)
                if executor is None:
                    break
                self._leave_waiting(placed)
                self._run(placed, executor)
            if template is not None:
                self._spawn_missing(template)

    def _drain(self, event: ev.DrainRequested) -> None:
        self._is_draining = True
        # Chained ones first: else each would start when the one before it goes.
        for placed in reversed(list(self._slots)):
            if event.stop_running or placed.phase in (Phase.CHAINED, Phase.STARTING):
                self._stop(placed, StopReason.DRAIN)

    def _exit(self, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._emit(ev.ExitAgent(reason))
