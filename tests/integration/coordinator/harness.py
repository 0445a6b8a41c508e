"""A coordinator with real gRPC and TLS in this process, a hand-driven client and a hand-driven agent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # the stubs lack it

from runner.clock import SystemClock
from runner.coordinator.config import CoordinatorConfig, CoordinatorReady
from runner.coordinator.state_dir import StateDir
from runner.coordinator.wiring import Coordinator
from runner.pools import fixed_pool
from runner.providers.base import BootConfig
from runner.providers.fake import FakeProvider
from runner.rpc.channels import client_channel, fleet_channel
from runner.rpc.gen import client_pb2, client_pb2_grpc, fleet_pb2, fleet_pb2_grpc, types_pb2
from runner.rpc.security import make_csr
from runner.rpc.version import local_peer
from runner.testing import FakeClock

WAIT_S = 5.0
CPU = types_pb2.Resources(amounts={"CPU": 10_000})


class Harness:
    """A running coordinator, and what was booted by its provider."""

    def __init__(
        self,
        coordinator: Coordinator,
        ready: CoordinatorReady,
        boots: asyncio.Queue[BootConfig],
        provider: FakeProvider,
    ) -> None:
        self.coordinator = coordinator
        self.provider = provider
        self.ready = ready
        self.boots = boots

    def channel(self, token: str | None = None) -> grpc.aio.Channel:
        return client_channel(self.ready.address, self.ready.ca_pem, self.ready.token if token is None else token)

    async def next_boot(self) -> BootConfig:
        async with asyncio.timeout(WAIT_S):
            return await self.boots.get()

    @contextlib.asynccontextmanager
    async def client(self, client_id: str = "c-1") -> AsyncIterator[Client]:
        async with self.channel() as channel:
            client = Client(channel, client_id)
            await client.connect()
            try:
                yield client
            finally:
                await client.close()

    @contextlib.asynccontextmanager
    async def agent(self, boot: BootConfig | None = None) -> AsyncIterator[Agent]:
        agent = Agent(boot or await self.next_boot())
        await agent.register()
        await agent.open_streams()
        try:
            yield agent
        finally:
            await agent.close()


@contextlib.asynccontextmanager
async def running(
    home: Path,
    *,
    machines: int = 1,
    num_cpus: float = 1.0,
    room: int | None = None,
    prepare: Callable[[FakeProvider], None] = lambda _: None,
    **settings: Any,
) -> AsyncIterator[Harness]:
    """A coordinator whose fake machines are handed to the test instead of being booted. `prepare` is called before it starts."""
    settings.setdefault("pools", (fixed_pool(machines, num_cpus=num_cpus),))
    boots: asyncio.Queue[BootConfig] = asyncio.Queue()
    config = CoordinatorConfig(**{"home": str(home), "provider": "fake", "lost_after_s": 30.0, **settings})
    state = StateDir(config.home, config.cluster_id, config.token, embedded=config.embedded)
    provider = FakeProvider(FakeClock(), boot=boots.put_nowait, machines_max=room)
    prepare(provider)
    coordinator = Coordinator(config, state, lambda _cluster_id, _state: provider, SystemClock())
    async with coordinator.serve() as ready:
        yield Harness(coordinator, ready, boots, provider)


class Client:
    """One session stream, driven by hand."""

    def __init__(self, channel: grpc.aio.Channel, client_id: str) -> None:
        self.stub = client_pb2_grpc.ClientStub(channel)
        self.client_id = client_id
        self.welcome = client_pb2.Welcome()
        self.ready: dict[str, client_pb2.ObjectReady] = {}
        self.acked_seq = 0
        self._seq = 0
        self._call: Any = None

    async def connect(self, peer: types_pb2.Peer | None = None) -> None:
        self._call = self.stub.Session()
        hello = client_pb2.Hello(peer=peer or local_peer(), client_id=self.client_id)
        await self._call.write(client_pb2.SessionRequest(hello=hello))
        async with asyncio.timeout(WAIT_S):
            reply = await self._call.read()
        if reply is EOF:
            nothing: Any = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(await self._call.code(), nothing, nothing, await self._call.details(), None)
        self.welcome = reply.welcome
        self.acked_seq = self._seq = reply.welcome.acked_seq

    async def send(self, *operations: client_pb2.Operation, seq: int = 0) -> None:
        self._seq = seq or self._seq + 1
        frame = client_pb2.ClientFrame(seq=self._seq, operations=operations)
        await self._call.write(client_pb2.SessionRequest(frame=frame))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read replies until the condition holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                reply = await self._call.read()
                assert reply is not EOF, await self._call.details()
                self.acked_seq = max(self.acked_seq, reply.frame.acked_seq)
                for ready in reply.frame.ready:
                    self.ready[ready.object_id] = ready

    async def until_acked(self) -> None:
        await self.until(lambda: self.acked_seq >= self._seq)

    async def until_ready(self, object_id: str) -> client_pb2.ObjectReady:
        await self.until(lambda: object_id in self.ready)
        return self.ready[object_id]

    async def watch(self, **request: Any) -> list[client_pb2.Event]:
        events: list[client_pb2.Event] = []
        async with asyncio.timeout(WAIT_S):
            async for reply in self.stub.Watch(client_pb2.WatchRequest(**request)):
                events.extend(reply.events)
        return events

    def break_stream(self) -> None:
        self._call.cancel()

    async def close(self) -> None:
        if not self._call.done():
            await self._call.done_writing()
            async with asyncio.timeout(WAIT_S):
                while await self._call.read() is not EOF:
                    pass


class Agent:
    """A machine's two streams, driven by hand."""

    def __init__(self, boot: BootConfig, instance: str = "instance-1") -> None:
        self.boot = boot
        self.instance = instance
        self.key_pem, self.csr_pem = make_csr(boot.machine_id)
        self.reply = fleet_pb2.RegisterReply()
        self.commands: list[fleet_pb2.AgentCommand] = []
        self.acked_report_seq = 0
        self.received_seq = 0
        self._seq = 0
        self._channel: grpc.aio.Channel | None = None
        self._assignments: Any = None
        self._report: Any = None

    def registration(self) -> fleet_pb2.RegisterRequest:
        return fleet_pb2.RegisterRequest(
            peer=local_peer(),
            machine_id=self.boot.machine_id,
            join_token=self.boot.join_token,
            csr_pem=self.csr_pem,
            agent_instance_id=self.instance,
            total=types_pb2.Resources(amounts=dict(self.boot.shape())),
            pid=1,
            phases={"agent_up": time.time()},
        )

    async def register(self) -> fleet_pb2.RegisterReply:
        async with client_channel(self.boot.coordinator_address, self.boot.ca_pem) as channel:
            stub = fleet_pb2_grpc.JoinStub(channel)
            self.reply = await stub.Register(self.registration(), timeout=WAIT_S)
        return self.reply

    async def open_streams(self, generation: int = 0) -> None:
        reply = self.reply
        self._channel = fleet_channel(reply.fleet_address, self.boot.ca_pem, self.key_pem, reply.certificate_pem)
        stub = fleet_pb2_grpc.FleetStub(self._channel)
        self._assignments = stub.Assignments(
            fleet_pb2.AssignmentsRequest(
                machine_id=self.boot.machine_id,
                generation=generation or reply.generation,
                agent_instance_id=self.instance,
                received_seq=self.received_seq,
            )
        )
        self._report = stub.Report()

    async def until(self, condition: Callable[[], bool], *, confirm: bool = True) -> None:
        """Read command frames until the condition holds."""
        async with asyncio.timeout(WAIT_S):
            while not condition():
                frame = await self._assignments.read()
                assert frame is not EOF, await self._assignments.details()
                self.acked_report_seq = max(self.acked_report_seq, frame.acked_report_seq)
                if frame.seq > self.received_seq or not frame.seq:
                    self.commands.extend(frame.commands)
                    if confirm:
                        self.received_seq = max(self.received_seq, frame.seq)

    async def next_start(self, task_id: str) -> fleet_pb2.Assignment:
        def starts() -> list[fleet_pb2.Assignment]:
            return [c.start for c in self.commands if c.HasField("start") and c.start.key.task_id == task_id]

        await self.until(lambda: bool(starts()))
        return starts()[-1]

    async def report(self, *items: fleet_pb2.ReportItem, first_seq: int = 0, generation: int = 0) -> None:
        first = first_seq or self._seq + 1
        self._seq = max(self._seq, first + len(items) - 1)
        await self._report.write(
            fleet_pb2.AgentReport(
                machine_id=self.boot.machine_id,
                generation=generation or self.reply.generation,
                first_seq=first,
                sent_s=time.monotonic(),
                items=items,
                received_seq=self.received_seq,
            )
        )

    async def until_acked(self) -> None:
        await self.until(lambda: self.acked_report_seq >= self._seq)

    async def refusal(self) -> str:
        """Why the coordinator ended the report stream."""
        async with asyncio.timeout(WAIT_S):
            await self._report.code()
            return str(await self._report.details())

    async def assignments_end(self) -> str:
        """Read the command stream to its end; returns its details."""
        async with asyncio.timeout(WAIT_S):
            try:
                while (frame := await self._assignments.read()) is not EOF:
                    self.commands.extend(frame.commands)
            except grpc.aio.AioRpcError as error:
                return str(error.details())
            return ""

    async def close_streams(self) -> None:
        self._assignments.cancel()
        self._report.cancel()
        assert self._channel is not None
        await self._channel.close(None)

    async def close(self) -> None:
        await self.close_streams()


# ---- messages ----
def function(function_id: str = "f-1") -> client_pb2.Operation:
    body = types_pb2.Function(function_id=function_id, name="mod.noop", blob=b"opaque")
    return client_pb2.Operation(register_function=body)


def submit(task_id: str, **fields: Any) -> client_pb2.Operation:
    spec = types_pb2.TaskSpec(
        **{
            "task_id": task_id,
            "function_id": "f-1",
            "args": types_pb2.Value(inline=b"args"),
            "resources": CPU,
            "num_returns": 1,
            "max_retries": 3,
            **fields,
        }
    )
    return client_pb2.Operation(submit=spec)


def key(task_id: str, attempt: int = 1) -> fleet_pb2.AttemptKey:
    return fleet_pb2.AttemptKey(task_id=task_id, attempt=attempt)


def started(task_id: str, attempt: int = 1, executor_id: str = "e-1") -> fleet_pb2.ReportItem:
    return fleet_pb2.ReportItem(started=fleet_pb2.AttemptStarted(key=key(task_id, attempt), executor_id=executor_id))


def succeeded(task_id: str, attempt: int = 1, value: bytes = b"result") -> fleet_pb2.ReportItem:
    returns = fleet_pb2.Returns(values=[types_pb2.Value(inline=value)])
    ended = fleet_pb2.AttemptEnded(key=key(task_id, attempt), returns=returns, duration_s=0.01, executor_id="e-1")
    return fleet_pb2.ReportItem(ended=ended)


def metrics(task_id: str, index: int, step: int, attempt: int = 1) -> fleet_pb2.ReportItem:
    item = fleet_pb2.Metrics(key=key(task_id, attempt), index=index, step=step, values=b"\x80")
    return fleet_pb2.ReportItem(metrics=item)


def lines(task_id: str, first_index: int, *texts: str, attempt: int = 1) -> fleet_pb2.ReportItem:
    item = fleet_pb2.LogLines(key=key(task_id, attempt), first_index=first_index, stream="stdout", lines=texts)
    return fleet_pb2.ReportItem(logs=item)


def inline(ready: client_pb2.ObjectReady) -> bytes:
    assert ready.WhichOneof("outcome") == "value", types_pb2.Failure.FromString(ready.failure)
    return types_pb2.Value.FromString(ready.value).inline
