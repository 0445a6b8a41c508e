"""A client: the shipped session machine on simulated calls, and a user who submits, cancels and drops refs by plan."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from runner.client.session_machine import Outcome, SessionMachine
from runner.ids import ObjectId, TaskId, return_id
from runner.rpc.gen import client_pb2, types_pb2
from runner.rpc.version import local_peer
from runner.testing import FakeClock, FaultPlan
from tests.properties.simulation.coordinator import SimCoordinator
from tests.properties.simulation.network import Call, Cut, Network

FUNCTION_ID = "f-1"
CPU_UNITS = 10_000


@dataclass(slots=True)
class Submitted:
    """What the user knows about one task."""

    task_id: TaskId
    is_run: bool
    refs: tuple[ObjectId, ...]
    is_cancelled: bool = False
    is_dropped: bool = False
    deliveries: dict[str, int] = field(default_factory=dict)  # callbacks by ref
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        return self.is_dropped or len(self.outcomes) == len(self.refs)


class SimClient:
    """One session from its first hello to its end."""

    def __init__(
        self, client_id: str, clock: FakeClock, plan: FaultPlan, network: Network, coordinator: SimCoordinator
    ) -> None:
        self.client_id = client_id
        self.machine = SessionMachine(subscribed=True)
        self.tasks: dict[TaskId, Submitted] = {}
        self.connections = 0
        self._clock = clock
        self._numbers = plan.stream(f"client {client_id}")
        self._network = network
        self._coordinator = coordinator
        self._work = asyncio.Event()
        self._done = asyncio.Event()
        function = types_pb2.Function(function_id=FUNCTION_ID, name="simulated.train", blob=b"code")
        self._operate(client_pb2.Operation(register_function=function))

    # ---- the user ----
    def submit(self, *, is_run: bool, num_returns: int = 1, depends_on: Sequence[str] = ()) -> Submitted:
        task_id = TaskId(f"t-{self.client_id}-{len(self.tasks)}")
        refs = tuple(return_id(task_id, index) for index in range(num_returns))
        spec = types_pb2.TaskSpec(
            task_id=task_id,
            function_id=FUNCTION_ID,
            name=f"run {task_id}" if is_run else "",
            is_run=is_run,
            num_returns=num_returns,
            max_retries=-1,
            dependencies=depends_on,
            resources=types_pb2.Resources(amounts={"CPU": CPU_UNITS}),
        )
        task = self.tasks[task_id] = Submitted(task_id, is_run, refs)
        self.machine.created(refs)
        self._operate(client_pb2.Operation(submit=spec))
        for ref in refs:
            assert self.machine.when_ready(ref, partial(self._ready, task, ref))
        return task

    def cancel(self, task: Submitted, *, force: bool) -> None:
        task.is_cancelled = True
        self._operate(client_pb2.Operation(cancel=client_pb2.Cancel(task_id=task.task_id, force=force)))

    def drop(self, task: Submitted) -> None:
        """The user forgets the refs; nobody will ask for the results."""
        task.is_dropped = True
        self.machine.dropped.extend(task.refs)
        self._wake()

    async def finished(self) -> None:
        """Return when every result that the user still wants has been delivered."""
        while not all(task.is_done for task in self.tasks.values()):
            self._done.clear()
            await self._done.wait()

    # ---- the session ----
    async def run(self) -> None:
        while True:
            try:
                call = self._network.open(f"session {self.client_id}", self._coordinator.session_handler)
            except Cut:
                await self._clock.sleep(0.05 + self._numbers.random() * 0.3)
                continue
            try:
                await self._converse(call)
            except Cut:
                self.machine.disconnected()
                await self._clock.sleep(self._numbers.random() * 0.5)
            finally:
                self._network.cut(call)

    async def _converse(self, call: Call) -> None:
        call.send(client_pb2.SessionRequest(hello=client_pb2.Hello(peer=local_peer(), client_id=self.client_id)))
        welcome = await call.receive()
        if welcome is None:
            raise Cut("the server ended the call")
        self.connections += 1
        for payload in self.machine.connected(welcome.welcome.acked_seq):
            call.send(client_pb2.SessionRequest.FromString(payload))
        writer = asyncio.ensure_future(self._write(call))
        try:
            while (reply := await call.receive()) is not None:
                self.machine.received(reply.frame)
                self._wake()
            raise Cut("the server ended the call")
        finally:
            writer.cancel()

    async def _write(self, call: Call) -> None:
        while True:
            while (payload := self.machine.take_frame()) is not None:
                call.send(client_pb2.SessionRequest.FromString(payload))
            self._work.clear()
            await self._work.wait()

    def _operate(self, operation: client_pb2.Operation) -> None:
        self.machine.operate(operation.SerializeToString())
        self._wake()

    def _wake(self) -> None:
        self._work.set()

    def _ready(self, task: Submitted, ref: str) -> None:
        task.deliveries[ref] = task.deliveries.get(ref, 0) + 1
        if not task.is_dropped:
            task.outcomes[ref] = self.machine.outcomes[ref]
        self._done.set()
