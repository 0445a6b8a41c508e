"""The agent's connection: registration, and the two streams, opened again whenever they break."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from runner.clock import Clock
from runner.errors import (
    AuthenticationError,
    ClusterError,
    CoordinatorUnreachableError,
    ProtocolViolationError,
    RunnerError,
)
from runner.ids import random_id
from runner.rpc import lanes
from runner.rpc.channels import client_channel, fleet_channel
from runner.rpc.gen import fleet_pb2, fleet_pb2_grpc, types_pb2
from runner.rpc.security import make_csr
from runner.rpc.status import from_rpc_error
from runner.rpc.version import check_peer, local_peer
from runner.worker.backoff import Backoff
from runner.worker.bulk import BulkClient, Identity
from runner.worker.neighbours import Neighbours
from runner.worker.report_buffer import ReportBuffer
from runner.worker.report_lane import ReportLane

if TYPE_CHECKING:
    from runner.providers.base import BootConfig

REGISTER_S = 10.0  # one try
GATHER_S = 0.001
LATER_S = 0.005
# Reports follow each other at least this far apart: under load a frame then carries many items instead of one or two,
# which halves the CPU time that a no-op costs; one alone never waits.
FRAME_PAUSE_S = 0.001
REASON_S = 1.0


class AgentStream:
    """Registers once, then keeps both streams open until the coordinator refuses this machine."""

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
        self._instance_id = random_id("a")
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
        self._registration: fleet_pb2.RegisterReply | None = None
        self._key_pem = b""

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
        """Wait until nothing is left to report."""
        while len(self._reports):
            self._acked.clear()
            await self._acked.wait()

    async def register(self, phases: Mapping[str, float]) -> fleet_pb2.RegisterReply:
        """Exchange the join token for a certificate; keeps trying while nobody answers, up to `destroy_after_s`.

        Raises:
            RunnerError: refused, or nobody answered in time.
        """
        boot = self._boot
        self._key_pem, csr_pem = make_csr(boot.machine_id)
        request = fleet_pb2.RegisterRequest(
            peer=self._peer(),
            machine_id=boot.machine_id,
            join_token=boot.join_token,
            csr_pem=csr_pem,
            agent_instance_id=self._instance_id,
            total=types_pb2.Resources(amounts=dict(boot.shape())),
            provider_machine_id=boot.provider_machine_id,
            pid=os.getpid(),
            phases=phases,
            labels=boot.labels,
        )
        deadline_s = self._clock.boottime_s() + boot.destroy_after_s
        backoff = Backoff()
        async with client_channel(boot.coordinator_address, boot.ca_pem) as channel:
            stub: Any = fleet_pb2_grpc.JoinStub(channel)
            while True:
                try:
                    request.sent_unix_s = self._clock.unix_s()
                    reply = await stub.Register(request, timeout=REGISTER_S)
                except grpc.aio.AioRpcError as exc:
                    error = from_rpc_error(exc, boot.coordinator_address, ca_pem=boot.ca_pem)
                    if not _is_passing(error) or self._clock.boottime_s() > deadline_s:
                        raise error from None
                    await backoff.pause()
                else:
                    check_peer(reply.peer, who="the coordinator")
                    self._registration = reply
                    return reply  # type: ignore[no-any-return]

    def _peer(self) -> types_pb2.Peer:
        peer = local_peer()
        peer.host_id = self._boot.host_id or peer.host_id
        return peer

    def bulk_client(self) -> BulkClient:
        """For files, over a connection beside the streams'; after `register`."""
        assert self._registration is not None, "register first"
        reply = self._registration
        channel = fleet_channel(reply.fleet_address, self._boot.ca_pem, self._key_pem, reply.certificate_pem)
        return BulkClient(channel, reply.fleet_address, Identity(self._boot.machine_id, reply.generation))

    def neighbours(self) -> Neighbours:
        """For values from machine to machine; after `register`."""
        assert self._registration is not None, "register first"
        reply = self._registration
        return Neighbours(self._boot.ca_pem, self._key_pem, reply.certificate_pem, reply.peer_certificate_pem)

    async def run(self) -> RunnerError:
        """Serve until the coordinator refuses this machine; returns what it said."""
        assert self._registration is not None, "register first"
        reply = self._registration
        backoff = Backoff()
        async with fleet_channel(
            reply.fleet_address, self._boot.ca_pem, self._key_pem, reply.certificate_pem
        ) as channel:
            stub: Any = fleet_pb2_grpc.FleetStub(channel)
            while True:
                error = await self._connection(stub, backoff)
                if not _is_passing(error):
                    return error
                await backoff.pause()

    async def _connection(self, stub: Any, backoff: Backoff) -> RunnerError:
        """One life of the two streams; returns why it ended."""
        assert self._registration is not None
        may_have_lane, self._may_have_lane = self._may_have_lane, True
        request = fleet_pb2.AssignmentsRequest(
            machine_id=self._boot.machine_id,
            generation=self._registration.generation,
            agent_instance_id=self._instance_id,
            received_seq=self._received_seq,
            wants_lane=may_have_lane and self._registration.peer.host_id == self._peer().host_id,
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
            assert self._registration is not None
            return from_rpc_error(error, self._registration.fleet_address)
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
                assert self._registration is not None
                return from_rpc_error(error, self._registration.fleet_address)
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
            self._received_seq = commands.seq
        self._on_commands(commands)
        self._acked.set()

    def _next_report(self) -> fleet_pb2.AgentReport | None:
        """What is to be said now; None for nothing."""
        if not self._reports.has_work and not self._is_heartbeat_due:
            return None
        assert self._registration is not None
        self._is_heartbeat_due = False
        first_seq, items = self._reports.take()
        return fleet_pb2.AgentReport(
            machine_id=self._boot.machine_id,
            generation=self._registration.generation,
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


def _is_passing(error: RunnerError) -> bool:
    """Whether another try may succeed."""
    if isinstance(error, AuthenticationError):
        return False
    # A gap in the items is cured by sending them again.
    return isinstance(error, ClusterError | ProtocolViolationError)
