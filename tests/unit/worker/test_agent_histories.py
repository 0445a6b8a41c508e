"""Random histories of one agent: executors that do anything at any time, and a coordinator that asks for anything.

Suspends among them, at any moment: those that take place, that are called off, refused, or repeated by late words.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runner.worker.agent import events as ev
from runner.worker.agent import suspend_words as words
from runner.worker.agent.events import Attempt, Environment, ExitCause, Key, Signal, StopReason
from runner.worker.agent.machine import AgentMachine, AgentSettings
from runner.worker.agent.templates import user_part
from tests.unit.worker.template_world import ENVIRONMENTS, TemplateWorld

RANK = {None: 0, Signal.TERM: 1, Signal.KILL: 2}


@dataclass
class Process:
    """What the world knows about one executor."""

    template: frozenset[str]
    environment: Environment | None = None
    is_ready: bool = False
    is_doomed: bool = False  # told to exit, or killed
    serial: int = 0
    attempt: Attempt | None = None
    is_blocked: bool = False
    is_awake: bool = False
    is_parked: bool = False
    hooks: deque[tuple[int, bool]] = field(default_factory=deque)  # (snapshot, is_after): to be run, in order
    signals: list[Signal | None] = field(default_factory=list)  # None: the interrupt


class AgentHistory(RuleBasedStateMachine):
    moves_cuda = False

    def __init__(self) -> None:
        super().__init__()
        self.machine = AgentMachine(
            AgentSettings("m-1", cpus=2, lost_after_s=60, destroy_after_s=1e9, moves_cuda=self.moves_cuda)
        )
        self.now_s = 0.0
        self.processes: dict[int, Process] = {}
        self.assigned: dict[Key, Attempt] = {}
        self.fenced: set[Key] = set()
        self.finals: Counter[Key] = Counter()
        self.started: Counter[Key] = Counter()
        self.templates = TemplateWorld()
        self.is_over = False
        self.snapshot = 0
        self.suspended = ""  # how far the suspend has come, as the coordinator knows
        self.is_away = False  # the agent has hung up, or is to
        self.send(ev.Registered())

    # ---- the world ----
    def send(self, event: ev.Event) -> None:
        for command in self.machine.handle(event, self.now_s):
            self.obey(command)

    def obey(self, command: ev.Command) -> None:
        match command:
            case ev.SpawnExecutor(number, template):
                assert template in self.templates.ready, "it is not ready, or has been told to end"
                self.processes[number] = Process(template)
            case ev.RunAttempt(number, serial, attempt):
                process = self.processes[number]
                assert not self.suspended, "something starts while the machine is suspended"
                assert process.is_ready and not process.is_doomed and process.attempt is None
                assert process.environment in (None, attempt.environment)
                assert user_part(process.template) <= attempt.environment.layer, "somebody else's code is in it"
                process.environment = attempt.environment
                others = [each.attempt.slot for each in self.processes.values() if each.attempt is not None]
                assert attempt.slot not in others, "two attempts of one slot at once"
                process.attempt, process.serial, process.signals = attempt, serial, []
                process.is_blocked = process.is_awake = process.is_parked = False
            case words.ReportQuiet(snapshot):
                assert snapshot == self.snapshot and self.suspended == "asked"
                assert self.is_quiet
                self.suspended = "quiet"
            case words.RunHooks(number, snapshot, is_after):
                assert snapshot == self.snapshot
                assert is_after or self.is_quiet, "hooks run beside user code"
                self.processes[number].hooks.append((snapshot, is_after))
            case words.HangUp(snapshot):
                assert snapshot == self.snapshot and self.suspended == "preparing"
                assert not any(each.hooks for each in self.processes.values()), "hooks have not run"
                self.suspended, self.is_away = "prepared", True
            case words.ReportRefused(snapshot) | words.ReportAwake(snapshot, ""):
                assert snapshot == self.snapshot and not self.is_away
                self.suspended = ""
            case words.ReportAwake(snapshot):
                assert snapshot == self.snapshot
                self.suspended = "failed"
            case words.TellGoOn(snapshot):
                assert snapshot == self.snapshot and not self.suspended
                for process in self.processes.values():
                    process.is_parked = False
            case ev.InterruptExecutor(number, serial):
                assert self.processes[number].serial == serial
                self.processes[number].signals.append(None)
            case ev.SignalGroup(number, signal):
                process = self.processes[number]
                assert RANK[signal] >= max([RANK[each] for each in process.signals], default=0), "de-escalation"
                process.signals.append(signal)
                process.is_doomed |= signal is Signal.KILL
            case ev.RetireExecutor(number):
                self.processes[number].is_doomed = True
            case ev.ResumeExecutor(number, serial):
                process = self.processes[number]
                assert process.serial == serial and process.is_awake
                process.is_awake = False
            case ev.ReportStarted(key, _, _):
                self.started[key] += 1
                assert not self.finals[key]
            case ev.ReportEnded(key, _, outcome, fault, _):
                assert (outcome is None) != (fault is None)
                assert key not in self.fenced, "nobody wants this report"
                self.finals[key] += 1
            case ev.ReportReturned(key, _):
                assert key not in self.fenced, "nobody wants this report"
                self.finals[key] += 1
            case ev.ExitAgent():
                self.is_over = True
            case _:
                self.templates.obey(command)

    @property
    def is_quiet(self) -> bool:
        return all(
            each.is_ready and not each.is_doomed and (each.attempt is None or each.is_parked)
            for each in self.processes.values()
        )

    def pick(self, data: Any, condition: Any) -> tuple[int, Process] | None:
        able = [(number, process) for number, process in sorted(self.processes.items()) if condition(process)]
        return data.draw(st.sampled_from(able)) if able else None

    # ---- from the coordinator ----
    @rule(
        slot=st.integers(1, 3),
        environment=st.sampled_from(ENVIRONMENTS),
        timeout_s=st.sampled_from([0.0, 3.0]),
        max_calls=st.sampled_from([0, 0, 1, 2]),
        startup_timeout_s=st.sampled_from([0.0, 0.0, 2.0]),
    )
    def assign(
        self, slot: int, environment: Environment, timeout_s: float, max_calls: int, startup_timeout_s: float
    ) -> None:
        key = (f"t-{len(self.assigned)}", 1)
        self.assigned[key] = Attempt(
            key,
            slot,
            environment,
            "f",
            f"task {key[0]}",
            timeout_s,
            max_calls,
            startup_timeout_s=startup_timeout_s,
        )
        self.send(ev.AttemptAssigned(self.assigned[key]))

    @precondition(lambda self: self.assigned)
    @rule(
        data=st.data(),
        reason=st.sampled_from([StopReason.CANCELLED, StopReason.FENCED, StopReason.DRAIN]),
        force=st.booleans(),
    )
    def stop(self, data: Any, reason: StopReason, force: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.assigned)))
        if self.finals[key]:
            return  # the coordinator has its report, or will have it and make this one void
        if reason is StopReason.FENCED:
            self.fenced.add(key)
        elif key in self.fenced:
            return
        self.send(ev.StopRequested(key, reason, force))

    @rule(data=st.data())
    def resume(self, data: Any) -> None:
        found = self.pick(data, lambda process: process.is_awake)
        if found is not None:
            assert found[1].attempt is not None
            self.send(ev.AttemptResumed(found[1].attempt.key))

    @rule()
    def acknowledge(self) -> None:
        self.send(ev.HeartbeatAcked(self.now_s))

    @rule()
    def gap(self) -> None:
        self.send(ev.ClockGapSeen())

    # ---- suspends ----
    @rule(interrupts=st.booleans())
    def suspend(self, interrupts: bool) -> None:
        if not self.suspended:
            self.snapshot += 1
            self.suspended = "asked"
        self.send(words.SuspendAsked(self.snapshot, interrupts))

    @rule(late=st.booleans())
    def prepare(self, late: bool) -> None:
        if late or self.suspended != "quiet":
            self.send(words.PrepareAsked(self.snapshot - 1, 5.0))
            return
        self.suspended = "preparing"
        self.send(words.PrepareAsked(self.snapshot, 5.0))

    @precondition(lambda self: self.suspended in ("asked", "quiet"))
    @rule()
    def call_off(self) -> None:
        self.suspended = ""
        self.send(words.SuspendCalledOff(self.snapshot))

    @rule(data=st.data())
    def park(self, data: Any) -> None:
        found = self.pick(data, lambda process: process.attempt is not None and not process.is_blocked)
        if found is not None and self.suspended in ("asked", "quiet") and not found[1].is_awake:
            found[1].is_parked = True
            self.send(words.ExecutorParked(found[0], found[1].serial, self.snapshot))

    @rule(data=st.data(), is_well=st.booleans())
    def run_hooks(self, data: Any, is_well: bool) -> None:
        found = self.pick(data, lambda process: process.hooks)
        if found is not None:
            self.send(words.HooksRun(found[0], *found[1].hooks.popleft(), "" if is_well else "it burns"))

    @precondition(lambda self: self.is_away)
    @rule(asleep_s=st.sampled_from([0.0, 0.5, 1e6]), ends_executors=st.sampled_from([False, False, True]))
    def wake(self, asleep_s: float, ends_executors: bool) -> None:
        self.send(words.HungUp())
        self.now_s += asleep_s
        self.send(ev.Ticked())
        self.is_away = False
        if ends_executors:
            self.fenced.update(key for key in self.assigned if not self.finals[key])
        self.send(words.Awoke(asleep_s, 5.0, ends_executors))

    # ---- from the machine ----
    @rule(data=st.data())
    def become_ready(self, data: Any) -> None:
        found = self.pick(data, lambda process: not process.is_ready)
        if found is not None:
            found[1].is_ready = True
            self.send(ev.ExecutorReady(found[0], 100 + found[0]))

    @rule(data=st.data(), left_children=st.booleans())
    def end(self, data: Any, left_children: bool) -> None:
        found = self.pick(data, lambda each: each.attempt is not None and not each.is_blocked and not each.is_parked)
        if found is not None:
            number, process = found
            process.attempt, process.is_awake = None, False
            self.send(ev.ExecutorEnded(number, process.serial, b"result", bool(process.signals), left_children))

    @rule(data=st.data())
    def block(self, data: Any) -> None:
        found = self.pick(data, lambda each: each.attempt is not None and not each.is_blocked and not each.is_parked)
        if found is not None:
            found[1].is_blocked = True
            self.send(ev.ExecutorBlocked(found[0], found[1].serial))

    @rule(data=st.data())
    def unblock(self, data: Any) -> None:
        found = self.pick(data, lambda process: process.is_blocked)
        if found is not None:
            found[1].is_blocked, found[1].is_awake = False, True
            self.send(ev.ExecutorUnblocked(found[0], found[1].serial))

    @rule(data=st.data(), was_oom=st.booleans())
    def exit(self, data: Any, was_oom: bool) -> None:
        found = self.pick(data, lambda process: True)
        if found is not None:
            self.die(found[0], was_oom=was_oom)

    def die(self, number: int, *, was_oom: bool = False) -> None:
        del self.processes[number]
        self.send(ev.ExecutorExited(number, ExitCause(signal_number=9, signal_name="SIGKILL"), was_oom))

    @rule(data=st.data())
    def exceed_memory(self, data: Any) -> None:
        found = self.pick(data, lambda process: process.attempt is not None)
        if found is not None:
            self.send(ev.MemoryExceeded(found[0], found[1].serial, 1 << 30))

    @precondition(lambda self: self.templates.loading)
    @rule(is_ready=st.booleans())
    def settle_layer(self, is_ready: bool) -> None:
        modules = self.templates.loading.pop()
        if is_ready:
            self.templates.ready.add(modules)
        self.send(ev.LayerReady(modules) if is_ready else ev.LayerFailed(modules))

    @precondition(lambda self: self.templates.making)
    @rule(data=st.data(), how=st.sampled_from(["ready", "ready", "raised", "unfit", "died"]), was_oom=st.booleans())
    def settle_template(self, data: Any, how: str, was_oom: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.templates.making)))
        names = self.templates.making[number]
        is_ready = names in self.templates.ready
        if how == "died" or number in self.templates.doomed:
            self.lose_template(number, was_oom=was_oom)
        elif how == "ready" and not is_ready:
            self.templates.ready.add(names)
            self.send(ev.LayerReady(names))
        elif not is_ready:
            del self.templates.making[number]
            self.send(
                ev.TemplateFailed(names, "it raised", "") if how == "raised" else ev.TemplateUnfit(names, "threads")
            )

    def lose_template(self, number: int, *, was_oom: bool = False) -> None:
        self.templates.doomed.discard(number)
        names = self.templates.making.pop(number)
        self.templates.ready.discard(names)
        self.send(ev.TemplateExited(number, "template", ExitCause(signal_number=9, signal_name="SIGKILL"), was_oom))
        for executor in [each for each, process in self.processes.items() if process.template == names]:
            if executor in self.processes:
                self.die(executor)

    @rule()
    def run_low_on_memory(self) -> None:
        self.send(ev.MemoryLow(95, 100, "", {}))

    @rule(after_s=st.sampled_from([0.001, 0.05, 0.2, 2.0, 6.0, 70.0]))
    def pass_time(self, after_s: float) -> None:
        self.now_s += after_s
        self.send(ev.Ticked())

    # ---- what must hold ----
    @invariant()
    def is_consistent(self) -> None:
        self.machine.check()

    @invariant()
    def reports_are_single(self) -> None:
        assert all(count <= 1 for count in self.finals.values()), self.finals
        assert all(count <= 1 for count in self.started.values()), self.started

    def teardown(self) -> None:
        """With a live connection and executors that do their part, everything assigned ends with one report."""
        for _ in range(200):
            self.send(ev.HeartbeatAcked(self.now_s))
            self.end_suspend()
            while self.templates.loading:
                self.settle_layer(is_ready=True)
            for number, names in list(self.templates.making.items()):
                if number in self.templates.doomed:
                    self.lose_template(number)
                elif number in self.templates.making and names not in self.templates.ready:
                    self.templates.ready.add(names)
                    self.send(ev.LayerReady(names))
            for number, process in list(self.processes.items()):
                if number not in self.processes:
                    continue
                if process.is_doomed:
                    self.die(number)
                elif not process.is_ready:
                    process.is_ready = True
                    self.send(ev.ExecutorReady(number, 100 + number))
                elif process.attempt is not None:
                    process.attempt = None
                    self.send(ev.ExecutorEnded(number, process.serial, b"result"))
            self.now_s += 0.01
        self.is_consistent()
        for key in self.assigned:
            assert self.finals[key] == 1 or (key in self.fenced and self.finals[key] == 0), key

    def end_suspend(self) -> None:
        """The coordinator and all hooks do their part."""
        if self.suspended in ("asked", "quiet"):
            self.call_off()
        for number, process in list(self.processes.items()):
            while process.hooks and not process.is_doomed:
                self.send(words.HooksRun(number, *process.hooks.popleft(), ""))
        if self.is_away:
            self.wake(0.0, False)
        if self.suspended == "failed":  # its coordinator has the machine end
            self.fenced.update(key for key in self.assigned if not self.finals[key])


AgentHistory.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestAgentHistory = AgentHistory.TestCase
