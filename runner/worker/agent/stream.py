"""The agent's connection: registration, and the two streams, opened again whenever they break."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from runner.clock import Clock
from runner.errors import (
    CoordinatorUnreachableError,
    RunnerError,
)
from runner.rpc import lanes
from runner.rpc.channels import fleet_channel
from runner.rpc.gen import fleet_pb2, fleet_pb2_grpc
from runner.rpc.status import from_rpc_error
from runner.worker.agent.backoff import Backoff
from runner.worker.agent.registration import Registration, is_passing
from runner.worker.agent.report_buffer import ReportBuffer
from runner.worker.agent.report_lane import ReportLane
from runner.worker.bulk import BulkClient, Identity
from runner.worker.neighbours import Neighbours

if TYPE_CHECKING:
    from runner.providers.base import BootConfig

GATHER_S = 0.001
LATER_S = 0.005
# Reports follow each other at least this far apart: under load a frame then carries many items instead of one or two,
# which halves the CPU time that a no-op costs; one alone never waits.
FRAME_PAUSE_S = 0.001
REASON_S = 1.0


class AgentStream:
    """Registers, then keeps both streams open until the coordinator refuses this machine; again after each suspend."""

    def __init__(
        self,
        boot: BootConfig,
        clock: Clock,
        reports: ReportBuffer[fleet_pb2.ReportItem],
        on_commands: Callable[[fleet_pb2.AgentCommands], None],
        on_open: Callable[[], None],
    ) -> None:
        """`on_open` is called for every connection but the first."""
        self._boot = boot
        self._clock = clock
        self._reports = reports
        self._on_commands = on_commands
        self._on_open = on_open
        self._wake = asyncio.Event()
        self._lane: ReportLane | None = None  # what carries commands and reports, where there is one
        self._may_have_lane = True
        self._acked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._wakes_soon = False
        self._written_s = 0.0
        self._is_heartbeat_due = False
        self._is_connected = False
        self._received_seq = 0  # newest frame of commands taken in
        self._registration = Registration(boot, clock)

    def wake(self) -> None:
        """There is something to report."""
        if self._lane is not None:
            self._lane.wake()
        else:
            self._wake.set()

    def wake_now(self) -> None:
        """As `wake`, when nothing more will be added in this callback."""
        if self._lane is not None:
            self._lane.send_now()
        else:
            self._wake.set()

    def wake_later(self) -> None:
        """There is something to report that can wait for company."""
        if not self._wakes_soon:
            self._wakes_soon = True
            self._loop.call_later(LATER_S, self._wake_soon)

    def _wake_soon(self) -> None:
        self._wakes_soon = False
        self.wake()

    def heartbeat(self) -> None:
        """Send a frame even when there is nothing to report."""
        self._is_heartbeat_due = True
        self.wake()

    async def all_acknowledged(self) -> None:
        """Wait until nothing of this generation is left to report."""
        while self._reports.has_owed:
            self._acked.clear()
            await self._acked.wait()

    async def register(self, phases: Mapping[str, float]) -> fleet_pb2.RegisterReply:
        """See `Registration.first`."""
        return await self._registration.first(phases)

    async def register_again(self, snapshot: int, *, is_leased: bool) -> fleet_pb2.RegisterReply:
        """See `Registration.again`. A new generation begins: what was not acknowledged goes again, everything else counts anew."""
        reply = await self._registration.again(snapshot, is_leased=is_leased)
        self._received_seq = 0
        self._may_have_lane = True
        self._reports.begin_generation()
        return reply

    def bulk_client(self) -> BulkClient:
        """For files, over a connection beside the streams'; after `register`."""
        reply = self._registration.reply
        channel = fleet_channel(
            reply.fleet_address, self._boot.ca_pem, self._registration.key_pem, reply.certificate_pem
        )
        return BulkClient(channel, reply.fleet_address, Identity(self._boot.machine_id, reply.generation))

    def neighbours(self) -> Neighbours:
        """For values from machine to machine; after `register`."""
        reply = self._registration.reply
        return Neighbours(
            self._boot.ca_pem, self._registration.key_pem, reply.certificate_pem, reply.peer_certificate_pem
        )

    async def run(self) -> RunnerError:
        """Serve until the coordinator refuses this machine; returns what it said."""
        reply = self._registration.reply
        backoff = Backoff()
        async with fleet_channel(
            reply.fleet_address, self._boot.ca_pem, self._registration.key_pem, reply.certificate_pem
        ) as channel:
            stub: Any = fleet_pb2_grpc.FleetStub(channel)
            while True:
                error = await self._connection(stub, backoff)
                if not is_passing(error):
                    return error
                await backoff.pause()

    async def _connection(self, stub: Any, backoff: Backoff) -> RunnerError:
        """One life of the two streams; returns why it ended."""
        may_have_lane, self._may_have_lane = self._may_have_lane, True
        request = fleet_pb2.AssignmentsRequest(
            machine_id=self._boot.machine_id,
            generation=self._registration.reply.generation,
            agent_instance_id=self._registration.instance_id,
            received_seq=self._received_seq,
            wants_lane=may_have_lane and self._registration.reply.peer.host_id == self._registration.peer().host_id,
        )
        assignments = stub.Assignments(request)
        if request.wants_lane:
            return await self._by_lane(assignments, backoff)
        report = stub.Report()
        self._opened()
        loops = [
            asyncio.create_task(self._read(assignments, backoff), name="assignments"),
            asyncio.create_task(self._write(report), name="reports"),
        ]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            return await self._reason(done)
        finally:
            for loop in loops:
                loop.cancel()
            assignments.cancel()
            report.cancel()
            await asyncio.gather(*loops, return_exceptions=True)

    async def _by_lane(self, assignments: Any, backoff: Backoff) -> RunnerError:
        """One life of a lane; the stream that it was offered on stays open and ends with it."""
        loop = asyncio.get_running_loop()
        try:
            first = await assignments.read()
            if first is grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in the stubs
                return CoordinatorUnreachableError("the coordinator closed the stream")
            sock = lanes.connect(first.lane)
            if sock is None:
                self._may_have_lane = False  # the next connection does without
                return CoordinatorUnreachableError(f"the lane {first.lane.address} cannot be reached")
            backoff.reset()
            lane = ReportLane(loop, sock, self._take_in, self._next_report)
            self._lane = lane
            self._opened()
            over = asyncio.create_task(assignments.read(), name="assignments")
            try:
                await asyncio.wait([over, lane.ended], return_when=asyncio.FIRST_COMPLETED)
                # Who closed the lane says why on the stream.
                await asyncio.wait([over], timeout=REASON_S)
                return await self._reason({over} if over.done() else set())
            finally:
                self._lane = None
                lane.close()
                over.cancel()
                await asyncio.wait([over])
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error, self._registration.reply.fleet_address)
        finally:
            assignments.cancel()

    def _opened(self) -> None:
        if self._is_connected:
            self._reports.reconnected()
            self._on_open()
        self._is_connected = True
        self.heartbeat()

    async def _reason(self, done: set[asyncio.Task[Any]]) -> RunnerError:
        for task in done:
            error = task.exception()
            if isinstance(error, grpc.aio.AioRpcError):
                return from_rpc_error(error, self._registration.reply.fleet_address)
            if error is not None and not isinstance(error, asyncio.InvalidStateError):
                raise error
        return CoordinatorUnreachableError("the coordinator closed the stream")

    async def _read(self, assignments: Any, backoff: Backoff) -> None:
        async for commands in assignments:
            backoff.reset()
            self._take_in(commands)

    def _take_in(self, commands: fleet_pb2.AgentCommands) -> None:
        if commands.seq:
            if commands.seq <= self._received_seq:
                return  # sent again, but the first one had not been lost
            if self._reports.is_sealed:
                # Nothing will say that it was received, so that the coordinator gives it to the next generation.
                acks = commands.acked_report_seq, commands.acked_sent_s
                commands = fleet_pb2.AgentCommands(acked_report_seq=acks[0], acked_sent_s=acks[1])
            else:
                self._received_seq = commands.seq
        self._on_commands(commands)
        self._acked.set()

    def _next_report(self) -> fleet_pb2.AgentReport | None:
        """What is to be said now; None for nothing."""
        if not self._reports.has_work and not self._is_heartbeat_due:
            return None
        self._is_heartbeat_due = False
        first_seq, items = self._reports.take()
        return fleet_pb2.AgentReport(
            machine_id=self._boot.machine_id,
            generation=self._registration.reply.generation,
            first_seq=first_seq,
            sent_s=self._clock.boottime_s(),
            items=items,
            received_seq=self._received_seq,
        )

    async def _write(self, report: Any) -> None:
        loop = asyncio.get_running_loop()
        sent_at_s = 0.0
        try:
            while True:
                if not self._reports.has_work and not self._is_heartbeat_due:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                pause_s = sent_at_s + FRAME_PAUSE_S - loop.time()
                if pause_s > 0:
                    await asyncio.sleep(pause_s)
                sent_at_s = loop.time()
                await self._gather()
                if (message := self._next_report()) is not None:
                    await report.write(message)
        except (asyncio.InvalidStateError, grpc.aio.UsageError):
            pass  # the stream is over
        with contextlib.suppress(asyncio.InvalidStateError):
            await report  # raises why

    async def _gather(self) -> None:
        """Under load let items gather: a frame costs 150 µs, whatever is in it. The first after a pause goes at once."""
        pause_s = self._written_s + GATHER_S - self._loop.time()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        self._written_s = self._loop.time()
