"""How attempts get into executors and out again: the first half of the agent's decisions. Pure.

Slots: attempts of one slot share one allocation and run one after the other. A chained attempt whose predecessor has run for
RETURN_AFTER_S, or blocks, is given back, because it could run elsewhere by now.
"""

from __future__ import annotations

from collections import deque

from runner.worker.agent import events as ev
from runner.worker.agent import faults
from runner.worker.agent.events import Key, StopReason
from runner.worker.agent.executor_pool import Executor, ExecutorState
from runner.worker.agent.lease import LeaseState
from runner.worker.agent.slots import Phase, Placed, SlotTable
from runner.worker.agent.template_flow import AgentSettings, TemplateFlow
from runner.worker.agent.templates import Modules, user_part

RETURN_AFTER_S = 0.1
IDLE_AFTER_S = 60.0


class AttemptFlow(TemplateFlow):
    """Slots, and the moves of attempts between them and executors."""

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__(settings)
        self._slots = SlotTable()
        self._lease_state = LeaseState.HELD
        self._watched: set[int] = set()  # slots with a timer for their chain
        self._serials = 0
        self._is_draining = self._is_suspending = self._is_over = self._is_idle_watched = False

    # ---- assignments ----
    def _assigned(self, event: ev.AttemptAssigned) -> None:
        attempt = event.attempt
        if attempt.key in self._slots.by_key:
            return  # sent again after a reconnect
        head = self._slots.head(attempt.slot)
        is_lost = self._lease_state in (LeaseState.LOST, LeaseState.OVER)
        if self._is_draining or self._is_suspending or self._is_over or is_lost:
            self._emit(ev.ReportReturned(attempt.key, "the machine takes nothing new"))
        elif head is not None and head.phase in (Phase.BLOCKED, Phase.AWAKE):
            self._emit(ev.ReportReturned(attempt.key, "the attempt before it waits for something"))
        else:
            placed = self._slots.add(attempt)
            if head is None:
                self._start(placed)
            else:
                self._watch_chain(attempt.slot)

    def _start(self, placed: Placed) -> None:
        """The head of a slot gets an executor, now or as soon as there is one."""
        environment = placed.attempt.environment
        placed.move(Phase.STARTING)
        placed.head_since_s = self._now_s
        self._limit_startup(placed)
        template = self._templates.find(environment.layer)
        executor = self._pool.take_idle(environment, template) if self._may_start else None
        if executor is not None:
            self._run(placed, executor)
            return
        self._waiting.setdefault(environment, deque()).append(placed)
        if template is None:
            self._want_template(environment.layer, environment.template_s)  # `_spawn_missing` comes when it is there
        elif self._may_start:
            self._spawn_missing(template)

    def _run(self, placed: Placed, executor: Executor) -> None:
        attempt = placed.attempt
        self._serials += 1
        placed.move(Phase.RUNNING)
        placed.serial, placed.executor, placed.head_since_s = self._serials, executor, self._now_s
        executor.move(ExecutorState.BUSY)
        executor.key = attempt.key
        executor.environment = attempt.environment
        if attempt.max_calls:
            executor.calls[attempt.function_id] = executor.calls.get(attempt.function_id, 0) + 1
        self._emit(ev.RunAttempt(executor.number, placed.serial, attempt))
        self._emit(ev.ReportStarted(attempt.key, executor.number, attempt.is_run))
        if attempt.timeout_s > 0:
            self._timers.set(self._now_s + attempt.timeout_s, "timeout", (attempt.key, placed.serial))
        if self._slots.has_chain(attempt.slot):
            self._watch_chain(attempt.slot)

    # ---- chains ----
    def _watch_chain(self, slot: int) -> None:
        if slot not in self._watched:
            self._watched.add(slot)
            self._timers.set(self._now_s + RETURN_AFTER_S, "chain", slot)

    def _check_chain(self, slot: int) -> None:
        self._watched.discard(slot)
        head = self._slots.head(slot)
        if head is None or not self._slots.has_chain(slot):
            return
        due_s = head.head_since_s + RETURN_AFTER_S
        if due_s <= self._now_s:
            self._return_chain(slot, "the attempt before it took too long")
        else:
            self._watched.add(slot)
            self._timers.set(due_s, "chain", slot)

    def _return_chain(self, slot: int, why: str) -> None:
        for placed in self._slots.chain(slot):
            self._slots.remove(placed)
            self._emit(ev.ReportReturned(placed.attempt.key, why))

    # ---- what executors say ----
    def _ready(self, event: ev.ExecutorReady) -> None:
        executor = self._pool.by_number.get(event.number)
        if executor is not None and executor.state is ExecutorState.SPAWNING:
            executor.pid = event.pid
            self._pool.arrived(executor)
            self._offer(executor)

    def _offer(self, executor: Executor) -> None:
        """A free executor takes the first head that waits for its like, or rests."""
        placed = self._first_waiting(executor) if self._waiting and self._may_start else None
        if placed is not None:
            self._leave_waiting(placed)
            self._run(placed, executor)
            return
        surplus = self._pool.put_idle(executor, self._now_s)
        if surplus is not None:
            self._retire(surplus)
        elif not self._is_idle_watched:
            self._is_idle_watched = True
            self._timers.set(self._now_s + IDLE_AFTER_S, "idle")

    def _first_waiting(self, executor: Executor) -> Placed | None:
        if executor.environment is not None:
            waiting = self._waiting.get(executor.environment)
            return waiting[0] if waiting else None
        return next(
            (each[0] for environment, each in self._waiting.items() if self._suits(executor.template, environment)),
            None,
        )

    def _ended(self, event: ev.ExecutorEnded) -> None:
        placed = self._on(event.number, event.serial)
        if placed is None or placed.executor is None:
            return
        executor, attempt = placed.executor, placed.attempt
        placed.outcome = event.outcome
        if placed.stop is not None and event.was_interrupted and placed.fault is None:
            placed.fault = self._stopped_fault(placed)
        if placed.stop is StopReason.DRAIN and attempt.grace_s and placed.fault is None:
            placed.fault = self._stopped_fault(placed)  # an actor ended well, and is to go on elsewhere
        if executor.state is ExecutorState.RETIRING:
            placed.move(Phase.ENDING)  # its end was faster than our SIGKILL
        elif (
            event.left_children
            or event.was_interrupted  # libraries may have been left half way through something
            or 0 < attempt.max_calls <= executor.calls.get(attempt.function_id, 0)
        ):
            # Reported when the executor is gone: until then it may hold memory, a GPU, a port.
            placed.move(Phase.ENDING)
            if event.left_children:
                self._kill(executor)
            else:
                self._retire(executor)
        else:
            self._free(placed, executor)

    def _free(self, placed: Placed, executor: Executor) -> None:
        """The executor is done with the attempt and fit for another: one of the same slot, or any."""
        executor.key = None
        executor.move(ExecutorState.IDLE)
        self._templates.touch(executor.template, self._now_s)
        following = self._finish(placed, executor.number)
        if following is not None and following.attempt.environment == executor.environment and self._may_start:
            following.move(Phase.STARTING)
            self._limit_startup(following)
            self._run(following, executor)
            return
        self._offer(executor)
        if following is not None:
            self._start(following)

    def _finish(self, placed: Placed, number: int) -> Placed | None:
        """The one final report of an attempt; returns the attempt that is next in its slot."""
        attempt, stop = placed.attempt, placed.stop
        following = self._slots.remove(placed)
        if stop is StopReason.FENCED:
            pass  # nobody wants to know
        elif stop is StopReason.LEASE or (stop is StopReason.DRAIN and placed.fault is not None):
            self._emit(ev.ReportReturned(attempt.key, f"stopped ({stop.name.lower()})"))
        else:
            duration_s = self._now_s - placed.head_since_s
            outcome = None if placed.fault is not None else placed.outcome
            is_last = following is None
            self._emit(ev.ReportEnded(attempt.key, number, outcome, placed.fault, duration_s, is_last))
        return following

    def _blocked(self, event: ev.ExecutorBlocked) -> None:
        placed = self._on(event.number, event.serial)
        if placed is not None and placed.phase is Phase.RUNNING:
            placed.move(Phase.BLOCKED)
            self._return_chain(placed.attempt.slot, "the attempt before it waits for something")
            self._emit(ev.ReportBlocked(placed.attempt.key))

    def _unblocked(self, event: ev.ExecutorUnblocked) -> None:
        placed = self._on(event.number, event.serial)
        if placed is not None and placed.phase is Phase.BLOCKED:
            placed.move(Phase.AWAKE)
            self._emit(ev.ReportUnblocked(placed.attempt.key))

    def _resumed(self, event: ev.AttemptResumed) -> None:
        placed = self._slots.by_key.get(event.key)
        if placed is not None and placed.phase is Phase.AWAKE and placed.executor is not None:
            placed.move(Phase.RUNNING)
            self._emit(ev.ResumeExecutor(placed.executor.number, placed.serial))

    # ---- executors that end ----
    def _exited(self, event: ev.ExecutorExited) -> None:
        executor = self._pool.discard(event.number)
        if executor is None:
            return
        placed = self._slots.by_key.get(executor.key) if executor.key is not None else None
        following = None
        if placed is not None:
            if placed.phase is not Phase.ENDING:
                placed.move(Phase.ENDING)
                placed.fault = placed.fault or self._exit_fault(placed, executor, event)
            following = self._finish(placed, executor.number)
        self._emit(ev.ReportExecutorGone(executor.number))
        if following is not None:
            self._start(following)
        if executor.pid == 0:  # it never was ready
            how = event.cause.signal_name or f"exit code {event.cause.exit_code}"
            self._fail_spawn(executor.template, f"executor died while starting ({how})")

    def _spawn_failed(self, event: ev.SpawnFailed) -> None:
        executor = self._pool.discard(event.number)
        if executor is not None:
            self._fail_spawn(executor.template, event.text)

    def _fail_spawn(self, template: Modules, text: str) -> None:
        """One head pays for an executor that did not come; else a machine that cannot fork would try for ever."""
        able = [each for environment, each in self._waiting.items() if self._suits(template, environment)]
        if self._pool.spawning(template) >= sum(len(each) for each in able):
            return
        placed = able[0][0]
        self._leave_waiting(placed)
        placed.fault = faults.not_spawned(placed.attempt.label, self._settings.machine_id, text)
        following = self._finish(placed, 0)
        if following is not None:
            self._start(following)

    def _memory_exceeded(self, event: ev.MemoryExceeded) -> None:
        placed = self._on(event.number, event.serial)
        if placed is None or placed.executor is None or placed.fault is not None:
            return
        attempt, executor = placed.attempt, placed.executor
        placed.fault = faults.over_limit(
            attempt.label, executor.pid, self._settings.machine_id, event.used_bytes, attempt.memory_bytes, event.users
        )
        self._kill(executor)

    def _memory_low(self, event: ev.MemoryLow) -> None:
        """One attempt goes, so that the others can go on: the newest, rather one that is tried again. Before that: templates."""
        if self._free_template_memory():
            return
        going_on = (each for each in self._slots if each.fault is None and each.stop is None)
        running = [each for each in going_on if each.executor is not None and each.phase is not Phase.ENDING]
        placed = max(running, key=lambda each: (each.attempt.may_retry, each.serial), default=None)
        if placed is not None and (executor := placed.executor) is not None:
            placed.fault = faults.machine_full(placed.attempt, executor.pid, self._settings.machine_id, event)
            self._kill(executor)

    # ---- starts with a time limit ----
    def _limit_startup(self, placed: Placed) -> None:
        if placed.attempt.startup_timeout_s > 0:
            self._timers.set(self._now_s + placed.attempt.startup_timeout_s, "startup", placed)

    def _stage_reached(self, event: ev.StageReached) -> None:
        placed = self._on(event.number, event.serial)
        if placed is not None:
            placed.stage, placed.has_begun = event.stage, not event.stage

    def _startup_timed_out(self, placed: Placed) -> None:
        attempt = placed.attempt
        if self._slots.by_key.get(attempt.key) is not placed or placed.has_begun or placed.phase is Phase.ENDING:
            return
        stage = placed.stage or "unpacking its runtime_env and modules"
        if placed.phase is Phase.STARTING:
            stage = _what_it_waits_for(attempt.environment.layer)
        placed.fault = placed.fault or faults.slow_start(
            attempt.label, self._settings.machine_id, stage, attempt.startup_timeout_s
        )
        if placed.executor is not None:
            self._kill(placed.executor)
            return
        self._leave_waiting(placed)
        following = self._finish(placed, 0)
        if following is not None:
            self._start(following)

    def _exit_fault(self, placed: Placed, executor: Executor, event: ev.ExecutorExited) -> ev.Fault:
        if placed.stop is not None:
            return self._stopped_fault(placed)
        return faults.exited(
            placed.attempt.label, executor.pid, self._settings.machine_id, event.cause, was_oom=event.was_oom
        )

    def _stopped_fault(self, placed: Placed) -> ev.Fault:
        attempt = placed.attempt
        reason = placed.stop or StopReason.CANCELLED
        return faults.stopped(attempt.label, self._settings.machine_id, reason, timeout_s=attempt.timeout_s)

    # ---- look-ups ----
    @property
    def _may_start(self) -> bool:
        return self._lease_state is LeaseState.HELD

    def _on(self, number: int, serial: int) -> Placed | None:
        """The attempt on an executor, if it is still the one that `serial` names and not over."""
        executor = self._pool.by_number.get(number)
        if executor is None or executor.key is None:
            return None
        placed = self._slots.by_key[executor.key]
        return placed if placed.serial == serial and placed.phase is not Phase.ENDING else None

    def _with_serial(self, subject: tuple[Key, int]) -> Placed | None:
        """The attempt that a timer was set for, if that run of it is not over."""
        placed = self._slots.by_key.get(subject[0])
        if placed is None or placed.serial != subject[1] or placed.phase is Phase.ENDING:
            return None
        return placed

    def _leave_waiting(self, placed: Placed) -> None:
        environment = placed.attempt.environment
        waiting = self._waiting.get(environment)
        if waiting is not None and placed in waiting:
            waiting.remove(placed)
            if not waiting:
                del self._waiting[environment]


def _what_it_waits_for(needed: Modules) -> str:
    templates = user_part(needed)
    modules = ", ".join(sorted(needed - templates))
    imported = f" that has imported {modules}" if modules else ""
    return f"waiting for a worker process{imported}{', made from its template' if templates else ''}"
