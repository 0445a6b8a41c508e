"""No history resumes a snapshot twice, runs a task on a memory from the past, or takes in what an older generation says.

The core with a small model of what is around it: agents as memories that can be saved, a provider that saves and restores
them, and crashes of coordinator, provider calls, agents and connections at any point.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from runner.core import commands as c
from runner.core import events as e
from runner.core import suspend_events as se
from runner.core.cluster import Cluster
from runner.core.facts import Fact
from runner.core.values import TaskRecord, ValueRecord
from runner.ids import ExecutorId, MachineId, TaskId
from tests.properties.suspension_model import CLIENT, CONFIG, ONE, POOL, SETTLED, F, Machine, Memory


class Suspension(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.config = CONFIG
        self.cluster = Cluster(self.config)
        self.now_s = 0.0
        self.facts: list[Fact] = []
        self.machines: dict[MachineId, Machine] = {}
        self.to_provider: list[c.Command] = []
        self.links: dict[tuple[MachineId, int], list[c.Command]] = {}  # what waits for an agent of that generation
        self.said: list[e.Event] = []  # by agents: may turn up again at any time
        self.agents = 0
        self.asked: Counter[tuple[MachineId, int]] = Counter()  # resumes, over all lives of the coordinator
        self.restored: Counter[tuple[MachineId, int]] = Counter()
        self.tasks: list[TaskId] = []

    # ---- feeding and obeying ----
    def feed(self, event: e.Event) -> None:
        decision = self.cluster.handle(event, self.now_s)
        self.facts += decision.facts
        self.cluster.check()
        for command in decision.commands:
            self.obey(command)

    def obey(self, command: c.Command) -> None:
        match command:
            case c.StartAttempt(machine_id, generation):
                memory = self.machines[machine_id].live
                assert self.cluster.is_machine_live(machine_id, generation)
                # The agent may have died since; one that is there is of this generation and has run its hooks.
                if memory is not None and memory.generation == generation:
                    assert not memory.asks_with, "nothing is sent to who has hung up"
                    assert not memory.wakes_with, "nothing runs before the hooks have"
                self.tell(machine_id, generation, command)
            case c.StopAttempt(machine_id, generation) | c.SuspendAgent(machine_id, generation):
                self.tell(machine_id, generation, command)
            case c.CreateMachine() | c.DestroyMachine() | c.SuspendMachine() | c.ColdStartMachine() | c.SurveyMachine():
                self.to_provider.append(command)
            case c.ResumeMachine():
                view = self.cluster.machine(command.machine_id)
                assert view is not None
                assert view.state == "resuming", "it is in the journal first"
                self.asked[command.machine_id, command.snapshot] += 1
                assert self.asked[command.machine_id, command.snapshot] == 1, "asked once, whoever crashes"
                self.to_provider.append(command)
            case c.FenceAgent(machine_id, generation):
                machine = self.machines.get(machine_id)
                if machine is not None and machine.live is not None and machine.live.generation == generation:
                    if not machine.live.asks_with:  # one that has hung up hears nothing
                        machine.live = None
            case _:
                pass

    def tell(self, machine_id: MachineId, generation: int, command: c.Command) -> None:
        self.links.setdefault((machine_id, generation), []).append(command)

    def inbox(self, machine_id: MachineId, memory: Memory) -> list[c.Command]:
        return self.links.setdefault((machine_id, memory.generation), []) if memory.generation else []

    def say(self, event: Any) -> None:
        self.said.append(event)
        self.hear(event)

    def hear(self, event: Any) -> None:
        """What a generation that is over says changes nothing."""
        if self.cluster.is_machine_live(event.machine_id, event.generation):
            self.feed(event)
            return
        before = self.cluster.snapshot()
        self.feed(event)
        assert self.cluster.snapshot() == before, "a memory from the past changes nothing"

    # ---- people ----
    @initialize()
    def begin(self) -> None:
        self.feed(e.PoolsConfigured((POOL,), {"default": 1}, "fake"))
        self.feed(e.ClientConnected(CLIENT))
        self.feed(e.FunctionRegistered(CLIENT, F, "f", b"f"))
        self.provider_acts("works")
        self.goes_on(*self.lives()[0])

    @rule()
    def submit(self) -> None:
        task_id = TaskId(f"t-{len(self.tasks)}")
        self.tasks.append(task_id)
        self.feed(e.TaskSubmitted(CLIENT, TaskRecord(task_id, CLIENT, F, b"", ONE, is_run=True, detached=True), False))

    @precondition(lambda self: self.cluster.machines()[0])
    @rule(data=st.data(), interrupts=st.booleans())
    def ask_to_sleep(self, data: st.DataObject, interrupts: bool) -> None:
        self.feed(se.SuspendRequested(self.some_machine(data), interrupts))

    @precondition(lambda self: self.lives())
    @rule(data=st.data(), steps=st.integers(3, 7))
    def sleep_through(self, data: st.DataObject, steps: int) -> None:
        """Far enough to be saved, most times."""
        machine_id, memory = data.draw(st.sampled_from(self.lives()))
        self.feed(se.SuspendRequested(machine_id))
        self.everybody_goes_on(2)
        self.park(machine_id, memory)
        self.everybody_goes_on(steps)

    @precondition(lambda self: self.cluster.machines()[0])
    @rule(data=st.data(), luck=st.integers(0, 3))
    def ask_to_wake(self, data: st.DataObject, luck: int) -> None:
        machine_id = self.some_machine(data)
        view = self.cluster.machine(machine_id)
        if luck == 0 or (view is not None and view.state == "suspended"):  # else few would ever sleep
            self.feed(se.ResumeRequested(machine_id))

    def some_machine(self, data: st.DataObject) -> MachineId:
        there = [
            view.machine_id for view in self.cluster.machines()[0] if view.state not in ("destroying", "destroyed")
        ]
        return data.draw(st.sampled_from(there or [MachineId("m-0")]))

    @rule(seconds=st.sampled_from([0.1, 0.1, 0.1, 1.0, 1.0, 1.0, 6.0, 25.0]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        for machine_id, machine in self.machines.items():
            if machine.live is not None and machine.live.generation and not machine.live.asks_with:
                self.feed(e.MachineHeard(machine_id, machine.live.generation))
        self.feed(e.ClockAdvanced())

    # ---- the provider ----
    @precondition(lambda self: self.to_provider)
    @rule(outcome=st.sampled_from([*["works"] * 6, "fails", "cold"]))
    def provider_acts(self, outcome: str) -> None:
        command: Any = self.to_provider.pop(0)
        _PROVIDER[type(command)](self, command, outcome)

    def create(self, command: c.CreateMachine, outcome: str) -> None:
        if outcome == "fails":
            self.feed(e.MachineBootFailed(command.machine_id, "no"))
            return
        self.machines[command.machine_id] = Machine(self.new_agent())
        self.feed(e.MachineCreated(command.machine_id, f"p-{command.machine_id}"))

    def destroy(self, command: c.DestroyMachine, _outcome: str) -> None:
        self.machines[command.machine_id] = Machine()
        self.feed(e.MachineDestroyed(command.machine_id))

    def suspend(self, command: c.SuspendMachine, outcome: str) -> None:
        machine = self.machines[command.machine_id]
        if outcome == "fails" or machine.live is None:
            self.feed(se.MachineSuspendFailed(command.machine_id, command.snapshot, "no"))
            return
        machine.saved, machine.live = machine.live.copy(), None
        self.feed(se.MachineSuspended(command.machine_id, command.snapshot))

    def resume(self, command: c.ResumeMachine, outcome: str) -> None:
        machine = self.machines[command.machine_id]
        if machine.saved is None or outcome == "fails":
            self.feed(se.MachineResumeFailed(command.machine_id, command.snapshot, "truncated, or not there"))
            return
        machine.live = self.new_agent() if outcome == "cold" else self.restore(command.machine_id, machine)
        machine.saved = None
        self.feed(se.MachineStarted(command.machine_id, command.snapshot))

    def restore(self, machine_id: MachineId, machine: Machine) -> Memory:
        assert machine.saved is not None
        number = machine.saved.asks_with
        self.restored[machine_id, number] += 1
        assert self.restored[machine_id, number] == 1, "a snapshot is used at most once"
        return machine.saved.copy()

    def start_cold(self, command: c.ColdStartMachine, outcome: str) -> None:
        if outcome == "fails":
            self.to_provider.append(command)  # the shell goes on trying
            return
        self.machines[command.machine_id] = Machine(self.new_agent())

    def look(self, command: c.SurveyMachine, _outcome: str) -> None:
        machine = self.machines.get(command.machine_id, Machine())
        found = "running" if machine.live else "suspended" if machine.saved else "gone"
        self.feed(se.MachineSurveyed(command.machine_id, found))

    @precondition(lambda self: any(machine.saved for machine in self.machines.values()))
    @rule()
    def provider_resumes_by_itself(self) -> None:
        """As one does that starts what is called. It restores what is there, whoever has not asked for it."""
        machine_id, machine = next((i, m) for i, m in self.machines.items() if m.saved)
        if machine.live is None:
            machine.live, machine.saved = self.restore(machine_id, machine), None

    def new_agent(self) -> Memory:
        self.agents += 1
        return Memory(f"a-{self.agents}")

    @rule(steps=st.integers(1, 6))
    def everybody_goes_on(self, steps: int) -> None:
        for _ in range(steps):
            if self.to_provider:
                self.provider_acts("works")
            for machine_id, memory in self.lives():
                self.goes_on(machine_id, memory)

    # ---- agents ----
    def lives(self) -> list[tuple[MachineId, Memory]]:
        return [(machine_id, machine.live) for machine_id, machine in self.machines.items() if machine.live is not None]

    @precondition(lambda self: self.lives())
    @rule(
        data=st.data(), what=st.sampled_from([*["go on"] * 8, "finish", "finish", "park", "fail hooks", "fail hooks"])
    )
    def agent_acts(self, data: st.DataObject, what: str) -> None:
        machine_id, memory = data.draw(st.sampled_from(self.lives()))
        _AGENT[what](self, machine_id, memory)

    def goes_on(self, machine_id: MachineId, memory: Memory) -> None:
        """Whatever is next to do."""
        inbox = self.inbox(machine_id, memory)
        if not memory.generation or memory.asks_with:
            self.register(machine_id, memory)
        elif memory.wakes_with or (inbox and getattr(inbox[0], "action", "") == "prepare"):
            self.run_hooks(machine_id, memory)
        else:
            self.take_command(machine_id, memory)

    def register(self, machine_id: MachineId, memory: Memory) -> None:
        if memory.generation and not memory.asks_with:
            return
        memory.keys += 1
        self.feed(e.MachineRegistered(machine_id, memory.full_id, ONE, f"h-{machine_id}", snapshot=memory.asks_with))
        if self.cluster.is_admitted(machine_id, memory.full_id):
            memory.generation = self.cluster.generation_of(machine_id)
            memory.wakes_with, memory.asks_with, memory.quieting = memory.asks_with, 0, 0
        elif not self.cluster.must_ask_again(machine_id):
            self.machines[machine_id].live = None  # refused: it ends

    def take_command(self, machine_id: MachineId, memory: Memory) -> None:
        inbox = self.inbox(machine_id, memory)
        if not inbox or memory.asks_with:
            return
        command: Any = inbox.pop(0)
        match command:
            case c.StartAttempt(_, generation, task_id, attempt):
                assert generation == memory.generation
                if memory.quieting:
                    self.say(e.AttemptReturned(machine_id, generation, task_id, attempt))
                else:
                    memory.running[task_id, attempt] = False
                    self.say(e.AttemptStarted(machine_id, generation, task_id, attempt, ExecutorId("x")))
            case c.StopAttempt(_, _, task_id, attempt):
                memory.running.pop((task_id, attempt), None)
            case c.SuspendAgent(_, generation, snapshot, "quiet", interrupts):
                memory.quieting = snapshot
                if interrupts:
                    for key in [key for key, is_parked in memory.running.items() if not is_parked]:
                        del memory.running[key]
                        self.say(e.AttemptReturned(machine_id, generation, *key))
            case c.SuspendAgent(_, _, _, "call off"):
                memory.quieting = 0
            case _:
                pass
        self.say_if_quiet(machine_id, memory)

    def say_if_quiet(self, machine_id: MachineId, memory: Memory) -> None:
        if memory.quieting and all(memory.running.values()):
            self.say(se.AgentIsQuiet(machine_id, memory.generation, memory.quieting))

    def run_hooks(self, machine_id: MachineId, memory: Memory, failure: str = "") -> None:
        if memory.wakes_with:
            number, memory.wakes_with = memory.wakes_with, 0
            self.say(se.AgentAwoke(machine_id, memory.generation, number, failure))
        elif (
            (inbox := self.inbox(machine_id, memory))
            and isinstance(first := inbox[0], c.SuspendAgent)
            and first.action == "prepare"
            and not memory.asks_with
        ):
            inbox.pop(0)
            if failure:
                memory.quieting = 0
                self.say(se.AgentRefused(machine_id, memory.generation, first.snapshot, failure))
            else:
                memory.asks_with = first.snapshot
                self.say(se.AgentPrepared(machine_id, memory.generation, first.snapshot))

    def finish(self, machine_id: MachineId, memory: Memory) -> None:
        if memory.running and not memory.asks_with and not memory.wakes_with:
            key = next(iter(memory.running))
            del memory.running[key]
            self.say(e.AttemptSucceeded(machine_id, memory.generation, *key, (ValueRecord(b""),), 1.0))
            self.say_if_quiet(machine_id, memory)

    def park(self, machine_id: MachineId, memory: Memory) -> None:
        if memory.quieting and not memory.asks_with:
            memory.running = dict.fromkeys(memory.running, True)
            self.say_if_quiet(machine_id, memory)

    @precondition(lambda self: self.lives())
    @rule(data=st.data(), luck=st.integers(0, 4))
    def agent_dies(self, data: st.DataObject, luck: int) -> None:
        if luck:
            return
        machine_id, _ = data.draw(st.sampled_from(self.lives()))
        self.machines[machine_id].live = None
        self.feed(e.MachineExited(machine_id, "killed"))

    @precondition(lambda self: self.said)
    @rule()
    def old_words_are_heard_again(self) -> None:
        """Streams do not repeat within a generation, but what was on its way of an older one may come at any time."""
        for event in self.said[-30:]:
            said: Any = event
            if not self.cluster.is_machine_live(said.machine_id, said.generation):
                self.hear(said)

    @rule()
    def who_has_hung_up_is_heard(self) -> None:
        for machine_id, machine in self.machines.items():
            memory = machine.saved or machine.live
            for key in list(memory.running if memory is not None and memory.asks_with else ()):
                assert memory is not None
                self.hear(e.AttemptSucceeded(machine_id, memory.generation, *key, (ValueRecord(b""),), 1.0))

    # ---- the coordinator ----
    @rule(luck=st.integers(0, 4))
    def coordinator_crashes(self, luck: int) -> None:
        """After a commit and before its commands: none of them is carried out."""
        if luck:
            return
        self.cluster = Cluster(self.config)
        self.cluster.replay(self.facts)
        self.to_provider.clear()
        self.links.clear()
        self.feed(e.CoordinatorRestarted())
        self.feed(e.PoolsConfigured((POOL,), {"default": 1}, "fake"))
        self.feed(e.ClientConnected(CLIENT))

    def teardown(self) -> None:
        """Once nothing fails any more, everything settles, and every sleeper is asleep, ready, or gone."""
        for _ in range(400):
            if self.is_settled():
                return
            while self.to_provider:
                self.provider_acts("works")
            for machine_id, memory in self.lives():
                for act in (self.goes_on, self.goes_on, self.park, self.finish):
                    if self.machines[machine_id].live is memory:
                        act(machine_id, memory)
            for machine_id, machine in self.machines.items():
                view = self.cluster.machine(machine_id)
                if machine.live is None and machine.saved is None and view is not None and view.state != "destroyed":
                    self.feed(e.MachineExited(machine_id, "nothing is there"))
            self.pass_time(1.0)
        raise AssertionError("\n".join(self.cluster.story(str(i)) for i in [*self.tasks, *self.machines]))

    def is_settled(self) -> bool:
        views = [self.cluster.task(task_id) for task_id in self.tasks]
        moving = {"suspending", "resuming", "booting", "creating", "requested", "stopping", "destroying"}
        states = {view.state for view in self.cluster.machines()[0]}
        return all(view is None or view.state in SETTLED for view in views) and not states & moving


_PROVIDER: dict[type[Any], Any] = {
    c.CreateMachine: Suspension.create,
    c.DestroyMachine: Suspension.destroy,
    c.SuspendMachine: Suspension.suspend,
    c.ResumeMachine: Suspension.resume,
    c.ColdStartMachine: Suspension.start_cold,
    c.SurveyMachine: Suspension.look,
}
_AGENT: dict[str, Any] = {
    "go on": Suspension.goes_on,
    "finish": Suspension.finish,
    "park": Suspension.park,
    "fail hooks": lambda model, machine_id, memory: model.run_hooks(machine_id, memory, "a hook raised"),
}

TestSuspension = Suspension.TestCase
TestSuspension.settings = settings(max_examples=200, stateful_step_count=60)
