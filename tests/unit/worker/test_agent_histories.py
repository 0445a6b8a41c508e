"""Random histories of one agent: executors that do anything at any time, and a coordinator that asks for anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from runner.worker import agent_events as ev
from runner.worker.agent_events import Attempt, Environment, ExitCause, Key, Signal, StopReason
from runner.worker.agent_machine import AgentMachine, AgentSettings

LAYER = frozenset({"torch"})
ENVIRONMENTS = [Environment(), Environment(threads=2), Environment(layer=LAYER)]
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
    signals: list[Signal | None] = field(default_factory=list)  # None: the interrupt


class AgentHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.machine = AgentMachine(AgentSettings("m-1", cpus=2, lost_after_s=60, destroy_after_s=1e9))
        self.now_s = 0.0
        self.processes: dict[int, Process] = {}
        self.assigned: dict[Key, Attempt] = {}
        self.fenced: set[Key] = set()
        self.finals: Counter[Key] = Counter()
        self.started: Counter[Key] = Counter()
        self.loading: set[frozenset[str]] = set()
        self.is_over = False
        self.send(ev.Registered())

    # ---- the world ----
    def send(self, event: ev.Event) -> None:
        for command in self.machine.handle(event, self.now_s):
            self.obey(command)

    def obey(self, command: ev.Command) -> None:
        match command:
            case ev.SpawnExecutor(number, template):
                self.processes[number] = Process(template)
            case ev.RunAttempt(number, serial, attempt):
                process = self.processes[number]
                assert process.is_ready and not process.is_doomed and process.attempt is None
                assert process.environment in (None, attempt.environment)
                process.environment = attempt.environment
                others = [each.attempt.slot for each in self.processes.values() if each.attempt is not None]
                assert attempt.slot not in others, "two attempts of one slot at once"
                process.attempt, process.serial, process.signals = attempt, serial, []
                process.is_blocked = process.is_awake = False
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
            case ev.LoadLayer(modules):
                assert modules not in self.loading
                self.loading.add(modules)
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
                pass

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

    # ---- from the machine ----
    @rule(data=st.data())
    def become_ready(self, data: Any) -> None:
        found = self.pick(data, lambda process: not process.is_ready)
        if found is not None:
            found[1].is_ready = True
            self.send(ev.ExecutorReady(found[0], 100 + found[0]))

    @rule(data=st.data(), left_children=st.booleans())
    def end(self, data: Any, left_children: bool) -> None:
        found = self.pick(data, lambda process: process.attempt is not None and not process.is_blocked)
        if found is not None:
            number, process = found
            process.attempt, process.is_awake = None, False
            self.send(ev.ExecutorEnded(number, process.serial, b"result", bool(process.signals), left_children))

    @rule(data=st.data())
    def block(self, data: Any) -> None:
        found = self.pick(data, lambda process: process.attempt is not None and not process.is_blocked)
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

    @precondition(lambda self: self.loading)
    @rule(is_ready=st.booleans())
    def settle_layer(self, is_ready: bool) -> None:
        modules = self.loading.pop()
        self.send(ev.LayerReady(modules) if is_ready else ev.LayerFailed(modules))

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
            while self.loading:
                self.settle_layer(is_ready=True)
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


AgentHistory.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestAgentHistory = AgentHistory.TestCase
