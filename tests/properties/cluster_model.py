"""A model of the core for random histories: what clients hold, what agents were told, what they may still say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from runner.core import commands as c
from runner.core import events as e
from runner.core.cluster import Cluster
from runner.core.facts import Fact
from runner.core.stream_events import ItemsYielded
from runner.core.values import (
    CPU,
    GPU,
    MEMORY,
    UNIT,
    ActorRecord,
    CheckpointRecord,
    CoreConfig,
    FailureKind,
    FailureRecord,
    GroupRecord,
    PoolRecord,
    SegmentRecord,
    Shape,
    TaskRecord,
    ValueRecord,
    WishRecord,
    make_shape,
)
from runner.ids import ClientId, ExecutorId, FunctionId, MachineId, ObjectId, TaskId, item_id

F = FunctionId("f")
CLIENTS = [ClientId("c-0"), ClientId("c-1")]
# The session of an executor: it holds refs and submits children.
SESSION, EXECUTOR = ClientId("x-0"), ExecutorId("x-0")
MACHINES = [MachineId(f"x-{i}") for i in range(4)]
NOWHERE = MachineId("")
BIG = make_shape({CPU: 4 * UNIT, GPU: 2 * UNIT, MEMORY: 8})
SMALL = make_shape({CPU: 2 * UNIT})
ONE = make_shape({CPU: UNIT})
SHAPES = [
    ONE,
    ONE,
    ONE,
    SMALL,
    make_shape({CPU: UNIT, GPU: UNIT // 2}),
    make_shape({GPU: 2 * UNIT}),
    make_shape({}),
    make_shape({CPU: UNIT, MEMORY: 3}),
]
CRASH = FailureKind.WORKER_CRASHED
KINDS = [FailureKind.USER, FailureKind.CANCELLED, FailureKind.TIMEOUT]
REPORTS = [
    *["start", "crash", "succeed", "come_up"] * 3,
    *["block", "unblock", "give_back"] * 2,
    "oom",
    "fail",
    "save",
    "forge",
    *["yield_items"] * 4,
]
LABELS = [(), (("disk", "fast"),)]
STRATEGIES = ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
SETTLED = {"succeeded", "failed", "cancelled"}
Fence = tuple[MachineId, int, TaskId, int]


class ClusterModel(RuleBasedStateMachine):
    """The outsider's view, and what it may say."""

    def __init__(self) -> None:
        super().__init__()
        self.config = CoreConfig(lost_after_s=10.0, boot_deadline_s=20.0, client_lost_after_s=15.0)
        self.cluster = Cluster(self.config)
        self.now_s = 0.0
        self.facts: list[Fact] = []
        self.fences: list[Fence] = []  # every attempt ever sent, in order
        self.running: dict[Fence, None] = {}  # what agents believe they have
        self.tasks: list[TaskRecord] = []
        self.objects: list[ObjectId] = [ObjectId("never.0")]
        self.last: dict[TaskId, Fence] = {}  # its newest attempt
        self.crashes: Counter[TaskId] = Counter()
        self.blocked: set[Fence] = set()  # wait for ResumeAttempt, and cannot end well before
        self.instances: dict[MachineId, str] = {}
        self.has_silent = False
        self.ended: dict[TaskId, str] = {}
        self.cancelled: set[TaskId] = set()
        self.groups: list[str] = []
        self.written: set[str] = set()  # segments, each by a path of its own
        self.freed: set[str] = set()
        self.puts = 0
        self.bringing: dict[ObjectId, str] = {}  # what machines were told to hand over: the path it has
        self.promised: dict[ObjectId, ClientId] = {}
        # Items that the attempt's generator has made, those that it was told to skip included.
        self.made: dict[Fence, int] = {}
        self.seen: dict[TaskId, int] = {}  # items that the reader was told of
        self.over: set[TaskId] = set()  # streams whose end was told
        self.dark: set[MachineId] = set()  # draining or worse: must get nothing new
        self.asked: dict[MachineId, Shape] = {}  # what pools have asked for
        self.served: dict[MachineId, str] = {}  # of machines for single use: which task or placement group
        self.pools: tuple[PoolRecord, ...] = ()

    # ---- feeding and obeying ----
    def feed(self, event: e.Event) -> list[c.Command]:
        decision = self.cluster.handle(event, self.now_s)
        self.facts += decision.facts
        for command in decision.commands:
            self.obey(command)
        return decision.commands

    def obey(self, command: c.Command) -> None:
        match command:
            case c.StartAttempt(machine_id, generation, task_id, attempt):
                fence = (machine_id, generation, task_id, attempt)
                assert all(known[2:] != fence[2:] for known in self.fences), "an attempt number is used once"
                assert task_id not in self.ended, "a settled task never runs again"
                assert task_id not in self.cancelled, "a cancelled task is never tried again"
                assert machine_id not in self.dark, "a drained machine gets nothing new"
                if self.cluster._state.machines[machine_id].is_single_use:
                    user = self.group_of(task_id)
                    assert machine_id not in self.served or self.served[machine_id] == user != "", (
                        "one task or one group"
                    )
                    self.served[machine_id] = user
                limit = next(task.max_retries for task in self.tasks if task.task_id == task_id)
                assert self.crashes[task_id] <= limit or limit < 0, "retries are charged"
                is_poison = self.crashes[task_id] >= self.config.poison_after
                assert not is_poison or self.is_actor(task_id), "a poisonous task is not tried again"
                assert self.cluster.generation_of(machine_id) == generation
                for object_id, value in command.dependencies:
                    assert value is not None, f"{object_id} is not ready"
                self.fences.append(fence)
                self.running[fence] = None
                self.last[task_id] = fence
                self.made[fence] = command.items_done
                assert command.items_done >= self.seen.get(task_id, 0), "nothing that was told is made again"
            case c.NotifyItems():
                self.read_items(command)
            case c.StopAttempt(machine_id, generation, task_id, attempt, "fenced"):
                self.running.pop((machine_id, generation, task_id, attempt), None)
            case c.StopAttempt(_, _, task_id, _, "cancelled" | "released"):
                self.cancelled.add(task_id)
            case c.ResumeAttempt(machine_id, generation, task_id, attempt):
                self.blocked.discard((machine_id, generation, task_id, attempt))
            case c.FenceAgent(machine_id, generation):
                self.running = {f: None for f in self.running if f[:2] != (machine_id, generation)}
            case c.CreateMachine(machine_id, shape, pool) if pool:
                assert machine_id not in self.asked, "asked for once"
                self.asked[machine_id] = shape
            case c.NoteMachineState(machine_id, state):
                (self.dark.discard if state == "ready" else self.dark.add)(machine_id)
            case c.NoteTaskState(task_id, state=state) if state in SETTLED:
                assert task_id not in self.ended, "a task settles once"
                self.ended[task_id] = state
            case c.FreeSegment(_, segment):
                assert segment.path not in self.freed, "freed once"
                self.freed.add(segment.path)
            case c.BringObjects(machine_id, generation, object_ids):
                assert self.cluster.is_machine_live(machine_id, generation)
                for object_id in object_ids:
                    there = self.cluster.object_outcome(object_id)
                    if isinstance(there, ValueRecord) and there.segment is not None:
                        self.bringing[object_id] = there.segment.path
            case _:
                pass

    def read_items(self, told: c.NotifyItems) -> None:
        seen = self.seen.get(told.task_id, 0)
        assert told.first_index <= seen, "no gap"
        numbers = [int(value.payload) for value in told.values]
        assert numbers == list(range(told.first_index, told.first_index + len(numbers))), "in order, each in its place"
        now = max(seen, told.first_index + len(numbers))
        assert now == seen or told.task_id not in self.over, "nothing comes after the end"
        self.seen[told.task_id] = now
        if told.is_over:
            assert told.first_index + len(numbers) == now, "the end is told where it is"
            self.over.add(told.task_id)

    def report(self, fence: Fence, event: Any) -> list[c.Command]:
        """Feed a report; if its fence is stale, nothing may change."""
        if self.cluster.is_current(*fence):
            machine_id, generation, task_id, _ = fence
            assert self.last[task_id] == fence, "only the newest attempt is current"
            assert task_id not in self.ended, "a settled task has no current attempt"
            assert self.cluster.is_machine_live(machine_id, generation), "a machine that is gone has none"
            return self.feed(event)
        before = self.cluster.snapshot()
        commands = self.feed(event)
        assert not [x for x in commands if not isinstance(x, c.ReplyCheckpoint | c.FreeSegment)]
        assert self.cluster.snapshot() == before, "a stale report changes nothing"
        return commands

    def connect(self, client_id: ClientId) -> None:
        self.feed(e.ClientConnected(client_id, EXECUTOR if client_id == SESSION else None))
        self.feed(e.FunctionRegistered(client_id, F, "f", b"f"))

    def draw_record(self, data: st.DataObject, plain: TaskRecord) -> TaskRecord:
        ids = self.living()
        flags = [data.draw(st.booleans()) for _ in range(3)]
        record = replace(
            plain,
            shape=data.draw(st.sampled_from(SHAPES)),
            dependencies=tuple(data.draw(st.lists(ids, max_size=2))),
            contained=tuple(data.draw(st.lists(ids, max_size=1))),
            num_returns=data.draw(st.integers(0, 2)),
            backpressure=data.draw(st.integers(0, 2)),
            max_retries=data.draw(st.sampled_from([0, 1, 3, -1])),
            retry_user_errors=flags[0],
            is_run=flags[1],
            detached=flags[2],
            priority=data.draw(st.sampled_from([0, 0, 1])),
            wishes=self.draw_wishes(data),
            parent=data.draw(st.sampled_from([None, None, *(fence[2:] for fence in self.fences[-4:])])),
        )
        if record.wishes is not None and record.wishes.group_id and data.draw(st.booleans()):
            return replace(record, shape=ONE, dependencies=())
        return record

    def draw_actor(self, data: st.DataObject, plain: TaskRecord) -> TaskRecord:
        actor = ActorRecord(data.draw(st.sampled_from(["", "", "a", "b"])), "", data.draw(st.booleans()))
        record = self.draw_record(data, plain)
        return replace(record, actor=actor, num_returns=1, is_run=False, retry_user_errors=False)

    def is_actor(self, task_id: TaskId) -> bool:
        return any(task.actor is not None for task in self.tasks if task.task_id == task_id)

    def draw_wishes(self, data: st.DataObject) -> WishRecord | None:
        kind = data.draw(st.integers(0, 9))
        if kind <= 3:
            return None
        if kind <= 6 and self.groups:
            return WishRecord(
                group_id=data.draw(st.sampled_from(self.groups[-2:])), bundle=data.draw(st.integers(-1, 1))
            )
        return WishRecord(
            labels=data.draw(st.sampled_from([(), (("disk", "fast"),), (("disk", "!fast"),)])),
            affinity_key=data.draw(st.sampled_from(["", "a"])),
            grow_on_oom=data.draw(st.booleans()),
            spread=data.draw(st.booleans()),
            machine_id=data.draw(st.sampled_from(["", "", *MACHINES])),
            is_machine_soft=data.draw(st.booleans()),
        )

    def draw_group(self, data: st.DataObject, client_id: ClientId) -> GroupRecord:
        self.groups.append(f"g-{len(self.groups)}")
        return GroupRecord(
            self.groups[-1],
            client_id,
            tuple(data.draw(st.lists(st.sampled_from([ONE, *SHAPES]), min_size=1, max_size=3))),
            data.draw(st.sampled_from(STRATEGIES)),
            deadline_s=data.draw(st.sampled_from([0.0, 0.0, 5.0])),
            detached=data.draw(st.booleans()),
            parent=data.draw(st.sampled_from([None, None, *(fence[2:] for fence in self.fences[-4:])])),
        )

    def group_of(self, task_id: TaskId) -> str:
        """Its placement group; empty: none."""
        wishes = next(task.wishes for task in self.tasks if task.task_id == task_id)
        return "" if wishes is None else wishes.group_id

    def living(self) -> Any:
        """Objects that exist, and for a change one that never did."""
        known = [i for i in self.objects if self.cluster.story(i).startswith("object")]
        return st.sampled_from([*known[-6:], *known[-6:], ObjectId("never.0")])

    def draw_value(self, data: st.DataObject, name: str, machine_id: MachineId = NOWHERE) -> ValueRecord:
        """`machine_id`: who alone may have it."""
        # Only older objects, as in life: a value cannot hold the ref to itself.
        born = self.objects.index(ObjectId(name)) if name in self.objects else len(self.objects)
        older = self.living().filter(lambda object_id: object_id in self.objects[:born])
        contained = tuple(data.draw(st.lists(older, max_size=2)))
        if not data.draw(st.booleans()):
            return ValueRecord(b"v", contained, None)
        path = f"/{name}-{len(self.written)}"
        self.written.add(path)
        is_there = machine_id and data.draw(st.sampled_from([True, True, False]))
        return ValueRecord(b"v", contained, SegmentRecord("h", path, 1, machine_id if is_there else NOWHERE))

    def draw_fence(self, data: st.DataObject) -> Fence:
        is_late = data.draw(st.sampled_from([False, False, False, True]))
        return data.draw(st.sampled_from(self.fences if is_late or not self.running else list(self.running)))

    # ---- what agents say ----
    def start(self, data: st.DataObject, fence: Fence) -> None:
        self.report(fence, e.AttemptStarted(*fence, EXECUTOR))

    def come_up(self, data: st.DataObject, fence: Fence) -> None:
        if self.is_actor(fence[2]):
            self.report(fence, e.ActorCameUp(*fence, f"address-{fence[3]}", b"secret"))

    def block(self, data: st.DataObject, fence: Fence) -> None:
        if self.cluster.is_current(*fence):
            self.blocked.add(fence)
        self.report(fence, e.AttemptBlocked(*fence))

    def unblock(self, data: st.DataObject, fence: Fence) -> None:
        self.report(fence, e.AttemptUnblocked(*fence))

    def forge(self, data: st.DataObject, fence: Fence) -> None:
        """The right attempt in the wrong name."""
        machine_id, generation, task_id, attempt = fence
        other = data.draw(st.sampled_from([machine_id, MachineId("m-other")]))
        forged = (other, generation + (other == machine_id), task_id, attempt)
        assert not self.cluster.is_current(*forged)
        self.report(forged, e.AttemptSucceeded(*forged, (), 0.0))

    def save(self, data: st.DataObject, fence: Fence) -> None:
        step = data.draw(st.integers(0, 3))
        self.report(fence, e.CheckpointSaved(*fence, CheckpointRecord(step, "u", "s", 1, fence[3])))

    def yield_items(self, data: st.DataObject, fence: Fence) -> None:
        """The next items; now and then with some that were told before. A slow attempt may say it when it is over."""
        task_id = fence[2]
        if not next(task.is_streaming for task in self.tasks if task.task_id == task_id):
            return
        first = max(0, self.made[fence] - data.draw(st.sampled_from([0, 0, 1])))
        values = []
        for index in range(first, self.made[fence] + data.draw(st.integers(1, 3))):
            name = item_id(task_id, index)
            values.append(self.draw_value(data, name)._replace(payload=str(index).encode()))
            if name not in self.objects:
                self.objects.append(name)
        self.made[fence] = first + len(values)
        self.report(fence, ItemsYielded(*fence, first, tuple(values)))

    def give_back(self, data: st.DataObject, fence: Fence) -> None:
        self.running.pop(fence, None)
        self.report(fence, e.AttemptReturned(*fence))

    def crash(self, data: st.DataObject, fence: Fence) -> None:
        if self.cluster.is_current(*fence):
            self.crashes[fence[2]] += 1
        self.fail(data, fence, CRASH)

    def oom(self, data: st.DataObject, fence: Fence) -> None:
        if self.cluster.is_current(*fence):
            self.crashes[fence[2]] += 1
        self.fail(data, fence, FailureKind.OUT_OF_MEMORY)

    def fail(self, data: st.DataObject, fence: Fence, kind: FailureKind | None = None) -> None:
        self.running.pop(fence, None)
        failure = FailureRecord(kind or data.draw(st.sampled_from(KINDS)), "it failed")
        retryable = data.draw(st.booleans())
        self.report(fence, e.AttemptFailed(*fence, failure, retryable))

    def succeed(self, data: st.DataObject, fence: Fence) -> None:
        self.running.pop(fence, None)
        count = next(0 if task.actor else task.num_returns for task in self.tasks if task.task_id == fence[2])
        values = tuple(self.draw_value(data, f"{fence[2]}.{index}", fence[0]) for index in range(count))
        duration_s = data.draw(st.sampled_from([0.001, 0.001, 5.0]))
        self.report(fence, e.AttemptSucceeded(*fence, values, duration_s))
