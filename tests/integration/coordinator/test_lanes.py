"""Lanes of real agents' connections: taken up, broken, refused, and done without."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runner.clock import SystemClock
from runner.errors import AuthenticationError
from runner.providers.base import BootConfig
from runner.rpc import lanes
from runner.rpc.gen import client_pb2, fleet_pb2, fleet_pb2_grpc
from runner.rpc.version import local_peer
from runner.worker.agent.report_buffer import ReportBuffer
from runner.worker.agent.stream import AgentStream
from tests.integration.coordinator.harness import Client, function, inline, running, submit, succeeded
from tests.integration.helpers import until

pytestmark = pytest.mark.asyncio


class Machine:
    """A machine that does at once what it is told, over the agent's own connection."""

    def __init__(self, boot: BootConfig) -> None:
        self.reports: ReportBuffer[fleet_pb2.ReportItem] = ReportBuffer()
        self.stream = AgentStream(boot, SystemClock(), self.reports, self.obey, self.reopened)
        self.done: list[str] = []
        self.is_busy = False  # what comes is done later
        self.opened = 1

    def obey(self, commands: fleet_pb2.AgentCommands) -> None:
        self.reports.acknowledge(commands.acked_report_seq)
        for command in commands.commands:
            if command.HasField("start"):
                self.done.append(command.start.key.task_id)
                self.reports.add(succeeded(command.start.key.task_id), 100)
        if not self.is_busy:
            self.stream.wake()

    def reopened(self) -> None:
        self.opened += 1

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[asyncio.Task[object]]:
        await self.stream.register({})
        serving: asyncio.Task[object] = asyncio.create_task(self.stream.run())
        try:
            yield serving
        finally:
            serving.cancel()
            await asyncio.wait([serving])


async def test_a_machine_goes_on_where_its_lane_broke(tmp_path: Path) -> None:
    async with running(tmp_path) as harness, harness.client() as client:
        machine = Machine(await harness.next_boot())
        async with machine.serving():
            await client.send(function(), submit("t-1"))
            assert inline(await client.until_ready("t-1.0")) == b"result"
            first = machine.stream._lane
            assert first is not None
            machine.is_busy = True
            await client.send(submit("t-2"))
            await until(lambda: "t-2" in machine.done, 5, "the second task on the machine")
            first._link._end("")  # with a report that was not sent, and a frame that was not confirmed
            machine.is_busy = False
            assert inline(await client.until_ready("t-2.0")) == b"result"
            assert machine.opened == 2
            assert machine.stream._lane not in (None, first)
            assert machine.done == ["t-1", "t-2"]


async def test_a_machine_that_cannot_reach_the_lane_does_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "connect", lambda _offer: None)
    async with running(tmp_path) as harness, harness.client() as client:
        machine = Machine(await harness.next_boot())
        async with machine.serving():
            await client.send(function(), submit("t-1"))
            assert inline(await client.until_ready("t-1.0")) == b"result"
            assert machine.stream._lane is None


async def test_a_machine_on_another_host_has_no_lane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path) as harness, harness.client() as client:
        machine = Machine(await harness.next_boot())
        object.__setattr__(machine.stream._boot, "host_id", "elsewhere")
        monkeypatch.setattr(lanes, "connect", lambda _offer: pytest.fail("it asked for a lane"))
        async with machine.serving():
            await client.send(function(), submit("t-1"))
            assert inline(await client.until_ready("t-1.0")) == b"result"


async def test_reports_with_a_gap_end_the_lane_and_come_again(tmp_path: Path) -> None:
    async with running(tmp_path) as harness, harness.client() as client:
        machine = Machine(await harness.next_boot())
        async with machine.serving():
            await client.send(function(), submit("t-1"))
            await client.until_ready("t-1.0")
            lane = machine.stream._lane
            assert lane is not None
            gap = fleet_pb2.AgentReport(machine_id=machine.stream._boot.machine_id, generation=1, first_seq=99)
            gap.items.append(succeeded("t-9"))
            lane._link.send(lanes.pack(gap.SerializeToString()))
            await until(lambda: machine.opened == 2, 5, "a new connection")
            await client.send(submit("t-2"))
            assert inline(await client.until_ready("t-2.0")) == b"result"


async def test_a_machine_that_was_given_up_is_told_by_its_lane(tmp_path: Path) -> None:
    async with running(tmp_path) as harness, harness.client():
        machine = Machine(await harness.next_boot())
        told: list[str] = []
        machine.obey = lambda commands: told.extend(  # type: ignore[method-assign]
            each.exit.reason for each in commands.commands if each.HasField("exit")
        )
        machine.stream._on_commands = machine.obey
        async with machine.serving() as serving:
            await until(lambda: machine.stream._lane is not None, 5, "the lane")
            link = harness.coordinator._links.all()[0]
            harness.coordinator._links.fence(link.machine_id, link.generation, "given up in a test")
            await asyncio.wait([serving], timeout=10)
            assert told == ["given up in a test"]
            assert isinstance(serving.result(), AuthenticationError)


async def test_a_lane_that_is_offered_and_not_taken_up_ends_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "OFFER_S", 0.1)
    async with running(tmp_path) as harness, harness.agent() as agent:
        assert agent._channel is not None
        request = fleet_pb2.AssignmentsRequest(
            machine_id=agent.boot.machine_id,
            generation=agent.reply.generation,
            agent_instance_id=agent.instance,
            wants_lane=True,
        )
        agent._assignments = fleet_pb2_grpc.FleetStub(agent._channel).Assignments(request)
        assert "nobody took up the lane" in await agent.assignments_end()


async def test_what_a_client_said_before_it_left_counts(tmp_path: Path) -> None:
    """The half-close of the stream does not overtake what the lane carries."""
    async with running(tmp_path) as harness, harness.channel() as channel:
        call = Client(channel, "c-1").stub.Session()
        hello = client_pb2.Hello(peer=local_peer(), client_id="c-1", wants_lane=True)
        await call.write(client_pb2.SessionRequest(hello=hello))
        welcome = (await call.read()).welcome
        sock = lanes.connect(welcome.lane)
        assert sock is not None
        with sock:
            frame = client_pb2.ClientFrame(seq=1, operations=[function()])
            sock.sendall(lanes.pack(client_pb2.SessionRequest(frame=frame).SerializeToString()))
            await call.done_writing()
            assert (await call.read()).frame.acked_seq == 1
