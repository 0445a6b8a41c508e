"""Random histories against the core. The model: what clients hold, what agents were told, what they may still say.

After each step: the core's own invariants, and what only an outsider can see (an
attempt number is used once, a drained machine gets nothing new, a stale report
changes nothing). At the end: every task settles, nothing leaks, and a replay of
the journal gives the same state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize, invariant, precondition, rule

from runner.core import events as e
from runner.core.cluster import Cluster
from runner.core.group_events import GroupRemovalRequested, GroupRequested
from runner.core.journal_form import decode, encode
from runner.core.objects import Object
from runner.core.stream_events import StreamDropped, StreamRead
from runner.core.values import (
    CoreConfig,
    FailureKind,
    FailureRecord,
    PoolRecord,
    TaskRecord,
    ValueRecord,
    WishRecord,
)
from runner.ids import ClientId, MachineId, ObjectId, TaskId, item_id, return_id
from tests.properties.cluster_model import (
    BIG,
    CLIENTS,
    LABELS,
    MACHINES,
    NOWHERE,
    ONE,
    REPORTS,
    SESSION,
    SETTLED,
    SMALL,
    F,
)
from tests.properties.value_rules import ValueRules
from tests.unit.core.script import as_lists

# Some 10 s of CPU; more in the soak profile.
EXAMPLES = max(150, settings.default.max_examples)


class ClusterMachine(ValueRules):
    # ---- clients ----
    @initialize(
        use_leases=st.booleans(),
        least=st.integers(0, 2),
        most=st.integers(0, 3),
        is_single_use=st.booleans(),
        poison_after=st.integers(1, 6),
        shape=st.sampled_from([BIG, SMALL, ONE]),
    )
    def begin(
        self, use_leases: bool, least: int, most: int, is_single_use: bool, poison_after: int, shape: Any
    ) -> None:
        self.config = CoreConfig(
            lost_after_s=10.0,
            boot_deadline_s=20.0,
            client_lost_after_s=15.0,
            use_leases=use_leases,
            poison_after=poison_after,
            chain_depth_max=3,
        )
        self.cluster = Cluster(self.config)
        most = max(least, most)
        self.pools = (
            PoolRecord("small", ONE, least, most, 1, 5.0, is_single_use),
            PoolRecord("big", BIG, 0, 1, 0, 2.0),
        )
        self.configure()
        self.connect(CLIENTS[0])
        self.connect(CLIENTS[1])
        self.boot(MACHINES[0], shape, "agent-0")

    @rule(client_id=st.sampled_from([*CLIENTS, SESSION, SESSION]), kind=st.integers(0, 5))
    def session(self, client_id: ClientId, kind: int) -> None:
        if kind == 0:
            self.feed(e.ClientClosed(client_id))
        elif kind == 1:
            self.feed(e.ClientDisconnected(client_id))
        else:
            self.connect(client_id)

    @rule(data=st.data(), count=st.integers(1, 5))
    def submit(self, data: st.DataObject, count: int) -> None:
        """A burst, so that there is a queue."""
        client_id = data.draw(st.sampled_from([*CLIENTS, SESSION]))
        if data.draw(st.integers(0, 9)):
            self.connect(client_id)
        is_plain, is_generator = data.draw(st.booleans()), not data.draw(st.integers(0, 3))
        for _ in range(count):
            record = TaskRecord(TaskId(f"t-{len(self.tasks)}"), client_id, F, b"spec", max_retries=1)
            if is_generator:
                record = replace(self.draw_record(data, record), num_returns=1, is_streaming=True)
            elif not is_plain:
                draw = self.draw_record if data.draw(st.integers(0, 2)) else self.draw_actor
                record = draw(data, record)
            self.tasks.append(record)
            self.objects += [return_id(record.task_id, index) for index in range(record.num_returns)]
            self.feed(e.TaskSubmitted(client_id, record, True))
        if self.cluster.task(record.task_id):
            again = self.feed(e.TaskSubmitted(client_id, record, True))
            assert again == [], "a repeat is a no-op"

    @rule(data=st.data(), client_id=st.sampled_from([*CLIENTS, SESSION]))
    def put(self, data: st.DataObject, client_id: ClientId) -> None:
        machine_id = data.draw(st.sampled_from([NOWHERE, *MACHINES])) if client_id == SESSION else NOWHERE
        value = self.draw_value(data, f"put-{self.puts}", machine_id)
        object_id = ObjectId(f"put-{self.puts}")
        self.puts += 1
        self.objects.append(object_id)
        self.feed(e.ObjectPut(client_id, object_id, value))

    @rule(data=st.data(), client_id=st.sampled_from([*CLIENTS, SESSION]), kind=st.integers(0, 3))
    def refs(self, data: st.DataObject, client_id: ClientId, kind: int) -> None:
        ids = tuple(data.draw(st.lists(self.living(), min_size=1, max_size=3)))
        event = (e.RefsAdded, e.RefsReleased, e.RefsReleased, e.ObjectsResolved)[kind]
        self.feed(event(client_id, ids))

    @rule(data=st.data(), client_id=st.sampled_from([*CLIENTS, SESSION]), kind=st.integers(0, 3))
    def promise(self, data: st.DataObject, client_id: ClientId, kind: int) -> None:
        """A value that a session makes itself: announced, and made (also by others, and twice)."""
        if kind <= 1 or not self.promised:
            object_id = ObjectId(f"promise-{len(self.promised)}")
            self.promised[object_id] = client_id
            self.objects.append(object_id)
            self.feed(e.ObjectsPromised(client_id, (object_id,)))
            return
        object_id = data.draw(st.sampled_from(list(self.promised)))
        if kind == 2:
            value = self.draw_value(data, object_id, data.draw(st.sampled_from([NOWHERE, *MACHINES])))
            self.feed(e.PromiseFulfilled(client_id, object_id, value, None))
        else:
            failure = FailureRecord(FailureKind.USER, "it failed")
            self.feed(e.PromiseFulfilled(client_id, object_id, None, failure))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), client_id=st.sampled_from([*CLIENTS, SESSION]), kind=st.integers(0, 3))
    def actors(self, data: st.DataObject, client_id: ClientId, kind: int) -> None:
        actor_id = data.draw(st.sampled_from(self.tasks)).task_id
        if kind == 0:
            self.feed(e.ActorsWatched(client_id, (actor_id,)))
        elif kind == 1:
            self.feed(e.ActorSought(client_id, "r-1", data.draw(st.sampled_from(["a", "b"])), ""))
        else:
            self.feed(e.ActorKillRequested(actor_id, no_restart=kind == 2))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), force=st.booleans(), recursive=st.booleans())
    def cancel(self, data: st.DataObject, force: bool, recursive: bool) -> None:
        record = data.draw(st.sampled_from(self.tasks))
        self.feed(e.CancelRequested(record.task_id, force, recursive))

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), client_id=st.sampled_from([*CLIENTS, SESSION]), kind=st.integers(0, 5))
    def reader(self, data: st.DataObject, client_id: ClientId, kind: int) -> None:
        """The reader of a generator, or somebody else who says to be it, and who may have lost what it was told."""
        task_id = data.draw(st.sampled_from(list(self.seen)))
        count = data.draw(st.integers(0, self.seen[task_id]))
        if kind == 0:
            self.feed(StreamDropped(client_id, task_id, count, data.draw(st.booleans())))
        elif kind <= 2:
            self.feed(StreamRead(client_id, task_id, count))
        else:
            self.feed(e.ObjectsResolved(client_id, (item_id(task_id, count),)))

    @rule(data=st.data(), client_id=st.sampled_from([*CLIENTS, SESSION]), kind=st.integers(0, 5))
    def group(self, data: st.DataObject, client_id: ClientId, kind: int) -> None:
        newest = self.cluster._state.groups.by_id.get(self.groups[-1]) if self.groups else None
        if kind and (kind == 1 or newest is None or newest.is_over()):
            self.connect(client_id)
            record = self.draw_group(data, client_id)
            self.feed(GroupRequested(record))
            assert self.feed(GroupRequested(record)) == [], "a repeat is a no-op"
        elif not kind and self.groups:
            self.feed(GroupRemovalRequested(data.draw(st.sampled_from(self.groups))))
        elif self.groups:
            for _ in range(3):
                self.feed_task(client_id, WishRecord(group_id=self.groups[-1], bundle=kind - 3))

    def feed_task(self, client_id: ClientId, wishes: WishRecord) -> None:
        record = TaskRecord(TaskId(f"t-{len(self.tasks)}"), client_id, F, b"spec", max_retries=1, wishes=wishes)
        self.tasks.append(record)
        self.objects.append(return_id(record.task_id, 0))
        self.feed(e.TaskSubmitted(client_id, record, True))

    # ---- agents: draw from every attempt ever sent, so late and repeated reports occur ----
    @precondition(lambda self: self.fences)
    @rule(data=st.data(), reports=st.lists(st.sampled_from(REPORTS), min_size=1, max_size=6))
    def agents(self, data: st.DataObject, reports: list[str]) -> None:
        for name in reports:
            getattr(self, name)(data, self.draw_fence(data))
            self.cluster.check()

    # ---- machines: mostly they come whole and stay, or histories would be about nothing else ----
    @rule(index=st.integers(0, 3), shape=st.sampled_from([BIG, SMALL, ONE]), kind=st.integers(0, 12))
    def fleet(self, index: int, shape: Any, kind: int) -> None:
        machine_id = MACHINES[index]
        if kind == 0:
            self.feed(e.MachinesRequested((machine_id,), shape, "fake"))
        elif kind == 1:
            self.feed(e.MachineCreated(machine_id, f"pid-{index}"))
        elif kind == 2:
            self.feed(e.MachineBootFailed(machine_id, "no capacity"))
        elif kind == 3:
            self.feed(e.MachineDestroyed(machine_id))
        elif kind == 4:
            self.feed(e.MachineExited(machine_id, "killed"))
        elif kind <= 7:
            self.feed(e.MachineRemovalRequested(machine_id, force=kind == 5, by_itself=kind == 7))
        else:
            self.boot(machine_id, shape, f"agent-{kind % 2}")

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), kind=st.integers(0, 14))
    def pool_machine(self, data: st.DataObject, kind: int) -> None:
        """What the provider and the agents say of machines that the pools asked for."""
        machine_id, shape = data.draw(st.sampled_from(list(self.asked.items())))
        if kind <= 2:
            self.feed(e.MachineBootFailed(machine_id, "no", is_permanent=kind == 0, is_capacity=kind == 1))
        elif kind == 3:
            self.feed(e.MachineExited(machine_id, "killed"))
        elif kind <= 6:
            self.feed(e.MachineDestroyed(machine_id))
        elif kind == 7:
            self.feed(e.MachineRemovalRequested(machine_id, force=False, by_itself=data.draw(st.booleans())))
        elif kind == 8:
            self.feed(e.MachineCreated(machine_id, f"pid-{machine_id}"))
        else:
            self.feed(e.MachineRegistered(machine_id, "agent", shape, "h"))

    @rule(kind=st.integers(0, 3), count=st.integers(1, 2))
    def owner(self, kind: int, count: int) -> None:
        if kind <= 1:
            self.feed(e.BudgetChanged(is_spent=bool(kind)))
        elif sum(pool.record.max for pool in self.cluster.pools()) < 6:
            self.feed(e.MachinesWanted("small", count))

    def configure(self) -> None:
        self.feed(e.PoolsConfigured(self.pools, {"small": 1}, "fake"))

    def boot(self, machine_id: MachineId, shape: Any, instance: str) -> None:
        view = self.cluster.machine(machine_id)
        self.feed(e.MachinesRequested((machine_id,), shape, "fake"))
        self.feed(
            e.MachineRegistered(
                machine_id,
                instance,
                shape,
                "h",
                {"registered": 1.0},
                LABELS[MACHINES.index(machine_id) % 2 if machine_id in MACHINES else 0],
            )
        )
        if view is not None and view.state == "ready":
            raised = self.instances[machine_id] != instance
            assert self.cluster.generation_of(machine_id) == view.generation + raised, "a new agent, a new generation"
        if self.cluster.is_machine_live(machine_id, self.cluster.generation_of(machine_id)):
            self.instances[machine_id] = instance

    # ---- time ----
    @rule(step_s=st.sampled_from([0.1, 1.0, 9.0, 30.0]), silent=st.sampled_from([None, None, *MACHINES]))
    def advance(self, step_s: float, silent: MachineId | None) -> None:
        self.now_s += step_s
        self.has_silent = True  # also those that this loop leaves out
        for machine_id in MACHINES:
            generation = self.cluster.generation_of(machine_id)
            if machine_id != silent and self.cluster.is_machine_live(machine_id, generation):
                self.feed(e.MachineHeard(machine_id, generation))
        self.feed(e.ClockAdvanced())
        wakeup_s = self.cluster.next_wakeup_s()
        assert wakeup_s is None or wakeup_s > self.now_s

    @rule(kind=st.integers(0, 5), index=st.integers(0, 3), generation=st.integers(0, 3))
    def disturb(self, kind: int, index: int, generation: int) -> None:
        if kind == 0:
            self.restart()
        elif kind <= 2:
            self.stall()
        elif not self.cluster.is_machine_live(MACHINES[index], generation):
            before = self.cluster.snapshot()
            assert self.feed(e.MachineHeard(MACHINES[index], generation)), "who speaks for the past is fenced"
            assert self.cluster.snapshot() == before

    def stall(self) -> None:
        """A loop that did not run must not take it out on the machines."""
        self.now_s += 100.0
        lost = self.cluster.machine_counts().get("lost", 0)
        self.feed(e.LoopStalled(100.0))
        self.feed(e.ClockAdvanced())
        if not self.has_silent:
            assert self.cluster.machine_counts().get("lost", 0) == lost

    def restart(self) -> None:
        self.cluster = self.replayed()
        self.feed(e.CoordinatorRestarted())
        self.running.clear()
        self.configure()
        self.boot(MachineId(f"x-again-{len(self.facts)}"), BIG, "agent")

    # ---- always ----
    @invariant()
    def core_is_consistent(self) -> None:
        self.cluster.check()
        for view in self.cluster.pools():
            assert view.ready + view.coming <= view.record.max, "the fleet never exceeds its maximum"
        by_id = self.cluster._state.objects.by_id
        for obj in by_id.values():
            inner = () if obj.value is None else obj.value.contained
            assert all(object_id in obj.contained for object_id in inner if object_id in by_id), "contents are pinned"

    def replayed(self) -> Cluster:
        cluster = Cluster(self.config)
        cluster.replay(decode(as_lists(encode(fact))) for fact in self.facts)
        assert cluster.snapshot() == self.cluster.snapshot(), "replay equals live state"
        return cluster

    def teardown(self) -> None:
        self.replayed()
        self.settle_all()
        self.replayed()
        for client_id in [*CLIENTS, SESSION]:
            self.feed(e.ClientClosed(client_id))
        self.cluster.check()
        kept = self.kept_by_runs()
        assert set(self.cluster._state.objects.by_id) == set(kept), "no object is left but what runs came to"
        segments = {obj.value.segment.path for obj in kept.values() if obj.value is not None and obj.value.segment}
        assert self.freed == self.written - segments, "no other segment is left"
        left = self.cluster.tasks(limit=1000)[0]
        makers = {obj.maker.task_id for obj in kept.values() if obj.maker is not None}
        assert all(view.is_run or view.task_id in makers for view in left), "only runs, and what they hold, are kept"

    def kept_by_runs(self) -> dict[ObjectId, Object]:
        """What the records of runs hold, and what that contains."""
        by_id = self.cluster._state.objects.by_id
        kept: dict[ObjectId, Object] = {}
        pending = [object_id for task in self.cluster._state.tasks.values() for object_id in task.pinned]
        while pending:
            object_id = pending.pop()
            kept[object_id] = by_id[object_id]
            pending.extend(by_id[object_id].contained)
        return kept

    def settle_all(self) -> None:
        """Liveness: with a healthy machine and time, every task settles."""
        healthy = MachineId("x-last")
        self.feed(e.MachinesRequested((healthy,), BIG, "fake"))
        self.feed(e.MachineRegistered(healthy, "agent", BIG, "h"))
        for object_id, client_id in self.promised.items():
            self.feed(e.PromiseFulfilled(client_id, object_id, ValueRecord(b"v"), None))
        for group_id in self.groups[:-1]:  # two groups may want the same machine, for ever
            self.feed(GroupRemovalRequested(group_id))
        for step in range(300):
            if step == 100 and self.groups:  # what stands may keep the only machine from everybody else
                self.feed(GroupRemovalRequested(self.groups[-1]))
            if not self.cluster.unfinished_tasks():
                return
            self.now_s += 6.0
            # With leases the others fall silent: their work must move. Without, they work on.
            reporting = {healthy} if self.config.use_leases else {fence[0] for fence in self.running}
            for machine_id in reporting:
                self.feed(e.MachineHeard(machine_id, self.cluster.generation_of(machine_id)))
            for client_id in CLIENTS:
                self.feed(e.ClientConnected(client_id))
            self.feed(e.ClockAdvanced())
            for fence in [fence for fence in self.running if fence[0] in reporting]:
                self.feed(e.AttemptUnblocked(*fence))
            for fence in [f for f in self.running if f[0] in reporting and f not in self.blocked]:
                self.running.pop(fence, None)
                values = (ValueRecord(b"v"), ValueRecord(b"v"))
                self.feed(e.AttemptSucceeded(*fence, values, 0.001))
        stuck = [self.cluster.story(v.task_id) for v in self.cluster.tasks(limit=1000)[0] if v.state not in SETTLED]
        raise AssertionError(f"stuck: {stuck}")


TestCluster = ClusterMachine.TestCase
TestCluster.settings = settings(max_examples=EXAMPLES, stateful_step_count=50)
