"""Random histories of generators: attempts that crash and repeat, readers that lose replies, drop and end, restarts.

The model: what each reader was told. No gap, no repeat, nothing after the end; and nothing is left when all have gone.
"""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import initialize, invariant, precondition, rule

from runner.core import commands as c
from runner.core import events as e
from runner.core.cluster import Cluster
from runner.core.journal_form import decode, encode
from runner.core.stream_events import StreamDropped, StreamRead
from runner.core.values import TaskRecord
from runner.ids import ClientId, MachineId, ObjectId, TaskId, item_id, return_id
from tests.properties.cluster_model import BIG, CLIENTS, SESSION, ClusterModel, F
from tests.unit.core.script import as_lists

EXAMPLES = max(60, settings.default.max_examples // 2)
REPORTS = [*["yield_items"] * 5, "start", "crash", "crash", "succeed", "fail", "give_back"]


class GeneratorMachine(ClusterModel):
    @initialize()
    def begin(self) -> None:
        self.cluster = Cluster(self.config)
        self.dropped: set[TaskId] = set()
        self.connect(CLIENTS[0])
        self.connect(SESSION)
        self.boot("x-0")

    def boot(self, name: str) -> None:
        self.feed(e.MachinesRequested((MachineId(name),), BIG, "fake"))
        self.feed(e.MachineRegistered(MachineId(name), "agent", BIG, "h"))

    def obey(self, command: c.Command) -> None:
        if isinstance(command, c.NotifyItems):
            assert command.task_id not in self.dropped, "nothing is told to who does not read"
        super().obey(command)

    @rule(data=st.data(), client_id=st.sampled_from([CLIENTS[0], SESSION]))
    def submit(self, data: st.DataObject, client_id: ClientId) -> None:
        self.connect(client_id)
        record = TaskRecord(TaskId(f"t-{len(self.tasks)}"), client_id, F, b"spec", is_streaming=True)
        record = replace(
            record,
            max_retries=data.draw(st.sampled_from([3, -1])),
            detached=data.draw(st.booleans()),
            backpressure=data.draw(st.integers(0, 2)),
        )
        self.tasks.append(record)
        self.objects.append(return_id(record.task_id, 0))
        self.feed(e.TaskSubmitted(client_id, record, True))

    @precondition(lambda self: self.fences)
    @rule(data=st.data(), reports=st.lists(st.sampled_from(REPORTS), min_size=1, max_size=8))
    def agents(self, data: st.DataObject, reports: list[str]) -> None:
        for name in reports:
            getattr(self, name)(data, self.draw_fence(data))

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), kind=st.integers(0, 5), is_other=st.sampled_from([False, False, True]))
    def reader(self, data: st.DataObject, kind: int, is_other: bool) -> None:
        """The reader of a generator, or somebody else who says to be it."""
        task_id = data.draw(st.sampled_from(list(self.seen)))
        owner = next(task.client_id for task in self.tasks if task.task_id == task_id)
        client_id = ({CLIENTS[0], SESSION} - {owner}).pop() if is_other else owner
        count = data.draw(st.integers(0, self.seen[task_id]))
        if kind == 0:
            client = self.cluster._state.clients.get(client_id)
            reads = client is not None and task_id in client.streams
            self.feed(StreamDropped(client_id, task_id, count, data.draw(st.booleans())))
            if not is_other:
                self.dropped.add(task_id)
            unread = {item_id(task_id, index) for index in range(count, self.seen[task_id])}
            assert not (reads and client and unread & client.held), "what was not read is let go"
        elif kind == 1:
            self.feed(StreamRead(client_id, task_id, count))
        elif kind == 2:
            items = [item_id(task_id, index) for index in range(count)]
            self.feed(e.RefsReleased(client_id, tuple(items)))
        else:
            self.feed(e.ObjectsResolved(client_id, (item_id(task_id, count),)))

    @rule(client_id=st.sampled_from([CLIENTS[0], SESSION]), other=st.booleans(), items=st.data())
    def share(self, client_id: ClientId, other: bool, items: st.DataObject) -> None:
        """Somebody else holds an item, too."""
        ids: tuple[ObjectId, ...] = (items.draw(self.living()),)
        self.feed(e.RefsAdded(client_id, ids) if other else e.RefsReleased(client_id, ids))

    @rule(kind=st.integers(0, 7), client_id=st.sampled_from([CLIENTS[0], SESSION]))
    def disturb(self, kind: int, client_id: ClientId) -> None:
        if kind == 0:
            self.feed(e.ClientClosed(client_id))
            self.dropped.update(task.task_id for task in self.tasks if task.client_id == client_id)
        elif kind == 1:
            self.cluster = self.replayed()
            self.feed(e.CoordinatorRestarted())
            self.running.clear()
            self.boot(f"x-{len(self.facts)}")
        elif kind == 2:
            self.now_s += 40.0
            self.feed(e.LoopStalled(40.0))
            self.feed(e.ClockAdvanced())

    @invariant()
    def core_is_consistent(self) -> None:
        self.cluster.check()

    def replayed(self) -> Cluster:
        cluster = Cluster(self.config)
        cluster.replay(decode(as_lists(encode(fact))) for fact in self.facts)
        assert cluster.snapshot() == self.cluster.snapshot(), "replay equals live state"
        return cluster

    def teardown(self) -> None:
        self.replayed()
        for record in self.tasks:
            self.feed(e.CancelRequested(record.task_id, False, True))
        for fence in list(self.running):
            self.feed(e.AttemptReturned(*fence))
        for client_id in (CLIENTS[0], SESSION):
            self.feed(e.ClientClosed(client_id))
        self.cluster.check()
        assert self.cluster.object_count() == 0, "no item is left when nobody holds any"
        assert self.freed == self.written, "no segment is left"


TestGenerators = GeneratorMachine.TestCase
TestGenerators.settings = settings(max_examples=EXAMPLES, stateful_step_count=40)
