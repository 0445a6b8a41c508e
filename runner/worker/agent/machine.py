"""Every decision of an agent: what runs where and when, what is stopped how, and when the machine gives up. Pure.

Stops escalate: an interrupt, after TERM_AFTER_S SIGTERM to the attempt's process group, after KILL_AFTER_S more SIGKILL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core.values import FailureKind
from runner.worker.agent import events as ev
from runner.worker.agent import faults
from runner.worker.agent.attempt_flow import IDLE_AFTER_S, RETURN_AFTER_S, AttemptFlow
from runner.worker.agent.events import Key, StopReason
from runner.worker.agent.executor_pool import ExecutorState
from runner.worker.agent.lease import Lease, LeaseState
from runner.worker.agent.slots import Phase, Placed
from runner.worker.agent.suspend_words import (
    Awoke,
    CudaMoved,
    ExecutorParked,
    HooksRun,
    HungUp,
    PrepareAsked,
    SuspendAsked,
    SuspendCalledOff,
)
from runner.worker.agent.suspending import Suspending
from runner.worker.agent.template_flow import PRESTART_MAX, AgentSettings
from runner.worker.agent.templates import BASE, Modules, TemplateState

__all__ = ["KILL_AFTER_S", "RETURN_AFTER_S", "TERM_AFTER_S", "AgentMachine", "AgentSettings"]

TERM_AFTER_S = 5.0
# A suspend that interrupts: an actor whose calls take longer ends with its exit hooks, and is made anew elsewhere.
ACTOR_QUIET_S = 1.0
KILL_AFTER_S = 2.0


class AgentMachine(AttemptFlow):
    """`handle(event, now_s)` changes the state and returns what to do; times are CLOCK_BOOTTIME seconds."""

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__(settings)
        self._lease = Lease(
            is_used=settings.is_leased, lost_after_s=settings.lost_after_s, destroy_after_s=settings.destroy_after_s
        )
        self._suspending = Suspending(self._emit, self._limit_hooks, self._give_up, moves_cuda=settings.moves_cuda)
        self._prestart = min(PRESTART_MAX, max(1, int(settings.cpus)))
        self._handlers: dict[type, Callable[[Any], None]] = {
            ev.AttemptAssigned: self._assigned,
            ev.StopRequested: self._stop_requested,
            ev.AttemptResumed: self._resumed,
            ev.DrainRequested: self._drain,
            ev.ExitRequested: lambda event: self._exit(event.reason),
            ev.LayerWanted: lambda event: self._want_template(event.modules),
            ev.Registered: self._registered,
            ev.HeartbeatAcked: lambda event: self._lease.renew(event.sent_s),
            ev.ExecutorReady: self._ready,
            ev.ExecutorEnded: self._ended,
            ev.ExecutorBlocked: self._blocked,
            ev.ExecutorUnblocked: self._unblocked,
            ev.ExecutorExited: self._executor_exited,
            ev.SpawnFailed: self._spawn_failed,
            ev.StageReached: self._stage_reached,
            ev.MemoryExceeded: self._memory_exceeded,
            ev.MemoryLow: self._memory_low,
            ev.LayerReady: lambda event: self._settle_layer(event.modules, TemplateState.READY),
            ev.LayerFailed: lambda event: self._settle_layer(event.modules, TemplateState.FAILED),
            ev.TemplateFailed: self._template_failed,
            ev.TemplateUnfit: self._template_unfit,
            ev.TemplateExited: self._template_exited,
            ev.ClockGapSeen: lambda _event: None if self._suspending.is_away else self._lease.doubt(self._now_s),
            ev.Ticked: lambda _event: None,
            SuspendAsked: self._suspend_asked,
            PrepareAsked: self._suspending.prepare,
            SuspendCalledOff: lambda event: self._suspending.call_off(event.snapshot),
            ExecutorParked: self._parked,
            HooksRun: self._suspending.hooks_run,
            CudaMoved: self._suspending.cuda_moved,
            HungUp: lambda _event: self._suspending.hung_up(),
            Awoke: self._awoke,
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
            "template": self._template_timed_out,
            "unused": self._expire_template,
            "hooks": self._suspending.timed_out,
            "actors": self._end_busy_actors,
        }

    # ---- the public face ----
    def handle(self, event: ev.Event, now_s: float) -> list[ev.Command]:
        """Take one event; returns commands to be carried out in order."""
        self._now_s = now_s
        self._handlers[type(event)](event)
        if not self._suspending.is_away:
            for name, subject in self._timers.due(now_s):
                self._on_timer[name](subject)
        self._follow_suspend()
        self._follow_lease()
        if self._is_draining and not self._slots.by_key:
            self._exit("drained")
        commands, self._commands = self._commands, []
        return commands

    def next_wakeup_s(self) -> float | None:
        """When to call `handle(Ticked())` at the latest; None: whenever."""
        if self._suspending.is_away:
            return None
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
        if self._suspending.is_active:
            return  # each has hooks to run; `_follow_suspend` has it looked at again
        while (executor := self._pool.next_expiry(self._prestart)) is not None:
            due_s = executor.idle_since_s + IDLE_AFTER_S
            if due_s > self._now_s:
                self._is_idle_watched = True
                self._timers.set(due_s, "idle")
                return
            self._retire(executor)

    # ---- user templates ----
    def _template_failed(self, event: ev.TemplateFailed) -> None:
        if self._templates.state(event.names) is TemplateState.LOADING:
            self._lose_template(event.names, FailureKind.SETUP, event.message, event.traceback)

    def _template_exited(self, event: ev.TemplateExited) -> None:
        names = self._templates.numbered(event.number)
        if names is None:
            return  # it was told to end
        if self._templates.state(names) is TemplateState.LOADING:
            self._lose_template(names, *faults.template_exited(event, self._templates.user[names].killed))
        else:
            self._templates.drop(names)
            self._follow_templates()

    def _lose_template(self, names: Modules, kind: FailureKind, text: str, traceback: str = "") -> None:
        """Who waits for it fails; the next attempt that needs it has its code run again: what failed may have passed."""
        self._templates.drop(names)
        waiting = [each for environment, each in self._waiting.items() if environment.layer == names]
        for placed in [placed for each in waiting for placed in each]:
            self._leave_waiting(placed)
            placed.fault = faults.without_template(
                placed.attempt.label, self._settings.machine_id, kind, text, traceback
            )
            following = self._finish(placed, 0)
            if following is not None:
                self._start(following)
        self._follow_templates()

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
        self._give_back(lambda _placed: event.stop_running)

    def _give_back(self, stops: Callable[[Placed], bool]) -> None:
        """All that has not begun, and of what runs that for which `stops` says so."""
        # Chained ones first: else each would start when the one before it goes.
        for placed in reversed(list(self._slots)):
            if placed.phase in (Phase.CHAINED, Phase.STARTING) or stops(placed):
                self._stop(placed, StopReason.DRAIN)

    # ---- suspends ----
    def _suspend_asked(self, event: SuspendAsked) -> None:
        if not self._suspending.begin(event.snapshot):
            return
        self._is_suspending = True
        self._give_back(lambda placed: event.interrupts and not placed.is_parked and not placed.attempt.grace_s)
        if event.interrupts:  # actors first say whether they have calls at all
            self._timers.set(self._now_s + ACTOR_QUIET_S, "actors", event.snapshot)

    def _end_busy_actors(self, snapshot: int) -> None:
        if self._suspending.is_waiting_for_quiet(snapshot):
            self._give_back(lambda placed: not placed.is_parked)

    def _parked(self, event: ExecutorParked) -> None:
        placed = self._on(event.number, event.serial)
        if placed is not None and event.snapshot == self._suspending.snapshot and self._suspending.is_active:
            placed.is_parked = True

    def _awoke(self, event: Awoke) -> None:
        self._lease.renew(self._now_s)
        self._timers.shift(event.asleep_s)
        if event.ends_executors:
            for placed in self._slots:
                self._stop(placed, StopReason.FENCED)
            for executor in self._pool.by_number.values():
                if executor.state is not ExecutorState.RETIRING:
                    self._kill(executor)
        staying = [each.number for each in self._pool.by_number.values() if each.state is not ExecutorState.RETIRING]
        self._suspending.awoke(event.hooks_s, staying)

    def _follow_suspend(self) -> None:
        if not self._is_suspending:
            return
        executors = self._pool.by_number
        is_quiet = all(placed.is_parked and placed.phase is not Phase.ENDING for placed in self._slots) and all(
            executor.state in (ExecutorState.IDLE, ExecutorState.BUSY) for executor in executors.values()
        )
        self._suspending.look(is_quiet=is_quiet, executors=executors)
        if self._suspending.is_away:
            self._lease.stop()
        elif not self._suspending.is_active:
            self._is_suspending = False
            for placed in self._slots:
                placed.is_parked = False
            if not self._is_idle_watched:
                self._is_idle_watched = True
                self._timers.set(self._now_s + IDLE_AFTER_S, "idle")

    def _executor_exited(self, event: ev.ExecutorExited) -> None:
        executor = self._pool.by_number.get(event.number)
        self._exited(event)
        if executor is not None:
            self._suspending.executor_gone(event.number, executor.pid)

    def _limit_hooks(self, after_s: float, token: int) -> None:
        self._timers.set(self._now_s + after_s, "hooks", token)

    def _give_up(self, number: int, why: str) -> None:
        """After a suspend that did not take place its hooks have failed, or its CUDA memory is not back."""
        executor = self._pool.by_number.get(number)
        if executor is None or executor.state is ExecutorState.RETIRING:
            return
        placed = self._slots.by_key.get(executor.key) if executor.key is not None else None
        if placed is not None:
            who = f"{placed.attempt.label}: executor {executor.pid} on {self._settings.machine_id}"
            placed.fault = placed.fault or faults.gave_up_after_suspend(who, why)
        self._kill(executor)

    def _exit(self, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._emit(ev.ExitAgent(reason))
