"""The service for clients: sessions, watches, large values, listings and machine calls."""

# ruff: noqa: N802  method names are the protocol's

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from runner.clock import Clock
from runner.coordinator import listings, transfer
from runner.coordinator.bulk import Bulk
from runner.coordinator.cost_keeper import CostKeeper
from runner.coordinator.engine import CoreClock, Engine
from runner.coordinator.event_log import EventLog
from runner.coordinator.fleet import Fleet
from runner.coordinator.lanes import Lanes
from runner.coordinator.sessions import Session as Channel
from runner.coordinator.sessions import Sessions
from runner.coordinator.sleep_calls import SleepCalls
from runner.coordinator.watches import Watches
from runner.core import events
from runner.core.values import make_shape
from runner.errors import BadOptionsError, ProtocolViolationError
from runner.ids import ClientId, ClusterId, MachineId
from runner.rpc.channels import UPLOAD_ACCEPTED
from runner.rpc.gen import client_pb2, client_pb2_grpc, types_pb2
from runner.rpc.version import check_peer, host_id, local_peer

Context = Any  # grpc.aio.ServicerContext, which the stubs make generic in ways that generated code is not

_MACHINES_PER_CALL_MAX = 1000
# Answers that are kept for repeats of a request.
_REQUESTS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What clients are told about the cluster itself; fixed for the life of the process."""

    cluster_id: ClusterId
    embedded: bool
    state_dir: str
    store_path: str
    client_lost_after_s: float
    started_s: float  # core time


class ClientService(client_pb2_grpc.ClientServicer):
    """Implements runner.v1.Client. Whoever gets here has shown the token."""

    def __init__(
        self,
        *,
        engine: Engine,
        core_clock: CoreClock,
        clock: Clock,
        sessions: Sessions,
        lanes: Lanes,
        event_log: EventLog,
        fleet: Fleet,
        costs: CostKeeper,
        bulk: Bulk,
        facts: ClusterFacts,
        shut_down: Callable[[str], None],
        take_numbers: Callable[[str, int], range],
    ) -> None:
        self._engine = engine
        self._core_clock = core_clock
        self._clock = clock
        self._sessions = sessions
        self._lanes = lanes
        self._event_log = event_log
        self._fleet = fleet
        self._costs = costs
        self._bulk = bulk
        self._facts = facts
        self._shut_down = shut_down
        self._take_numbers = take_numbers
        self._sleep_calls = SleepCalls(engine, fleet)
        self._added: dict[str, tuple[str, ...]] = {}
        self._watches = Watches(event_log, engine.cluster, clock)

    def close(self) -> None:
        """End all watches. Idempotent."""
        self._watches.close()

    # ---- the session ----
    async def Session(self, request_iterator: AsyncIterator[client_pb2.SessionRequest], context: Context) -> None:
        """Frames in, replies out, until the client half-closes (its work ends) or the stream breaks (its lease runs)."""
        hello = await anext(aiter(request_iterator), None)
        if hello is None:
            return
        if hello.WhichOneof("body") != "hello" or not hello.hello.client_id:
            raise ProtocolViolationError("a session must begin with a hello that names its client")
        warning = check_peer(hello.hello.peer, who="the client")
        session, stream = await self._sessions.connect(ClientId(hello.hello.client_id))
        on_purpose = False
        try:
            welcome = self.welcome(session)
            lane = self._lanes.offer(hello.hello.peer.host_id) if hello.hello.wants_lane else None
            if lane is not None:
                welcome.lane.CopyFrom(lane)
            await context.write(client_pb2.SessionReply(welcome=welcome))
            if warning:
                frame = client_pb2.ServerFrame(warnings=[client_pb2.Warning(message=warning)])
                await context.write(client_pb2.SessionReply(frame=frame))
            if lane is None:
                await self._converse(session, stream, request_iterator, context)
            elif not await self._converse_by_lane(session, stream, request_iterator, lane):
                return
            on_purpose = await self._say_goodbye(session, context)
        finally:
            self._sessions.disconnect(session, stream, on_purpose=on_purpose)

    def welcome(self, session: Channel) -> client_pb2.Welcome:
        """What a session learns when it begins."""
        facts = self._facts
        return client_pb2.Welcome(
            peer=local_peer(),
            cluster_id=facts.cluster_id,
            acked_seq=session.acked_seq,
            embedded=facts.embedded,
            store_path=facts.store_path,
            event_seq=self._event_log.newest_seq,
            client_lost_after_s=facts.client_lost_after_s,
        )

    async def _converse(
        self, session: Channel, stream: int, requests: AsyncIterator[client_pb2.SessionRequest], context: Context
    ) -> None:
        writer = asyncio.ensure_future(self._write_replies(session, stream, context))
        try:
            async for request in requests:
                if session.stream != stream:
                    return  # the client has a newer stream
                self._sessions.apply(session, request.frame)
        finally:
            writer.cancel()
            await asyncio.wait([writer])

    async def _converse_by_lane(
        self,
        session: Channel,
        stream: int,
        requests: AsyncIterator[client_pb2.SessionRequest],
        offer: types_pb2.Lane,
    ) -> bool:
        """As `_converse`, with the stream kept for its end only. Whether the stream ended before the lane did."""

        def take_in(message: bytes) -> None:
            if session.stream == stream:
                self._sessions.apply(session, client_pb2.SessionRequest.FromString(message).frame)

        lane = await self._lanes.open(offer, session.outbox, session.take_frame, take_in)
        over = asyncio.ensure_future(anext(aiter(requests), None))
        try:
            ends: list[asyncio.Future[Any]] = [over, lane.ended]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                lane.read_rest()  # what was said before the end
            if lane.ended.done():
                lane.ended.result()
            return over.done()
        finally:
            lane.close()
            over.cancel()
            await asyncio.wait([over])

    async def _say_goodbye(self, session: Channel, context: Context) -> bool:
        """Whether the client has half-closed: a dead connection also ends the requests, but takes no more replies."""
        await self._engine.committed()
        try:
            await context.write(client_pb2.SessionReply(frame=client_pb2.ServerFrame(acked_seq=session.acked_seq)))
        except Exception:  # gRPC raises several kinds for a call that is over
            return False
        return not context.cancelled()

    async def _write_replies(self, session: Channel, stream: int, context: Context) -> None:
        outbox = session.outbox
        while session.stream == stream:
            reply = session.take_frame()
            if reply is not None:
                await context.write(reply)
            elif not await outbox.wait():
                return

    # ---- reading ----
    async def Watch(self, request: client_pb2.WatchRequest, context: Context) -> None:
        """Stored events from a sequence number on."""
        await self._watches.serve(request, context.write)

    async def watch_page(self, request: client_pb2.WatchRequest) -> client_pb2.WatchReply:
        """A page of a watch, for those who have no stream."""
        return await self._watches.page(request)

    async def Fetch(self, request: client_pb2.FetchRequest, context: Context) -> None:
        """The encoded bytes of one ready value, in chunks."""
        outcome = await self._bulk.at_hand(transfer.object_id_of(request.object_id))
        async for chunk in transfer.read_chunks(
            outcome, request.object_id, request.offset, host_id(), self._facts.store_path
        ):
            await context.write(chunk)

    async def Upload(
        self, request_iterator: AsyncIterator[client_pb2.UploadRequest], context: Context
    ) -> types_pb2.Segment:
        """Store one large value from a client on another host."""
        start = transfer.upload_start(context.invocation_metadata())
        # Before the client has heard this it sends nothing, so that it hears every refusal.
        accepted = ((UPLOAD_ACCEPTED, "1"),)
        path = await transfer.receive(
            start, request_iterator, self._facts.store_path, lambda: context.send_initial_metadata(accepted)
        )
        return types_pb2.Segment(host_id=host_id(), path=path, size_bytes=start.total_bytes)

    async def ListMachines(
        self, request: client_pb2.ListMachinesRequest, context: Context
    ) -> client_pb2.ListMachinesReply:
        """One page of machines."""
        return listings.machines(self._engine.cluster, self._core_clock, self._fleet, self._costs, request)

    async def ListTasks(self, request: client_pb2.ListTasksRequest, context: Context) -> client_pb2.ListTasksReply:
        """One page of tasks in order of submission."""
        return listings.tasks(self._engine.cluster, self._core_clock, request)

    async def ListGroups(self, request: client_pb2.ListGroupsRequest, context: Context) -> client_pb2.ListGroupsReply:
        """Placement groups."""
        return listings.groups(self._engine.cluster, request)

    async def GetStatus(self, request: client_pb2.GetStatusRequest, context: Context) -> client_pb2.GetStatusReply:
        """The cluster in numbers."""
        cluster = self._engine.cluster
        total, available = cluster.resources()
        return client_pb2.GetStatusReply(
            cluster_id=self._facts.cluster_id,
            peer=local_peer(),
            embedded=self._facts.embedded,
            uptime_s=self._core_clock.now_s() - self._facts.started_s,
            total=types_pb2.Resources(amounts=total),
            available=types_pb2.Resources(amounts=available),
            tasks_by_state=cluster.task_counts(),
            machines_by_state=cluster.machine_counts(),
            objects=cluster.object_count(),
            clients=cluster.client_count(),
            pid=os.getpid(),
            state_dir=self._facts.state_dir,
            pools=listings.pools(cluster),
            cost=self._costs.message(),
        )

    # ---- changing ----
    async def AddMachines(
        self, request: client_pb2.AddMachinesRequest, context: Context
    ) -> client_pb2.AddMachinesReply:
        """Ask for more machines; returns when the request is durable, not when they are ready."""
        if not 0 < request.count <= _MACHINES_PER_CALL_MAX:
            raise BadOptionsError(f"count is {request.count}; it must be between 1 and {_MACHINES_PER_CALL_MAX}")
        known = self._added.get(request.request_id)
        if known is None:
            known = await self._add(request)
            if request.request_id:
                self._added[request.request_id] = known
                if len(self._added) > _REQUESTS_MAX:
                    del self._added[next(iter(self._added))]
        return client_pb2.AddMachinesReply(machine_ids=known)

    async def _add(self, request: client_pb2.AddMachinesRequest) -> tuple[str, ...]:
        cluster = self._engine.cluster
        if request.resources.amounts:
            ids = tuple(MachineId(f"x-{number}") for number in self._take_numbers("machine", request.count))
            shape = make_shape(request.resources.amounts)
            self._engine.post(events.MachinesRequested(ids, shape, self._fleet.provider_name))
            await self._engine.committed()
            return ids
        pool = request.pool or cluster.pools()[0].record.name
        if pool not in {each.record.name for each in cluster.pools()}:
            names = ", ".join(each.record.name for each in cluster.pools())
            raise BadOptionsError(f"there is no pool {pool!r}; this cluster has: {names}")
        newest = cluster.newest_machine()
        self._engine.post(events.MachinesWanted(pool, request.count))
        await self._engine.committed()
        return tuple(cluster.machines_since(newest, pool))

    async def RemoveMachine(
        self, request: client_pb2.RemoveMachineRequest, context: Context
    ) -> client_pb2.RemoveMachineReply:
        """Drain a machine and destroy it, or destroy it at once with `force`."""
        machine_id = MachineId(request.machine_id)
        if self._engine.cluster.machine(machine_id) is None:
            raise BadOptionsError(f"there is no machine {machine_id!r}; `runner machines` lists them")
        self._engine.post(events.MachineRemovalRequested(machine_id, request.force))
        await self._engine.committed()
        return client_pb2.RemoveMachineReply()

    async def SuspendMachines(
        self, request: client_pb2.SuspendMachinesRequest, context: Context
    ) -> client_pb2.SuspendMachinesReply:
        """Have machines go to sleep; returns when that is durable, not when they do."""
        return await self._sleep_calls.suspend(request)

    async def ResumeMachines(
        self, request: client_pb2.ResumeMachinesRequest, context: Context
    ) -> client_pb2.ResumeMachinesReply:
        """Have machines back, or call their suspend off; returns when that is durable."""
        return await self._sleep_calls.resume(request)

    async def SetMachineConfig(
        self, request: client_pb2.SetMachineConfigRequest, context: Context
    ) -> client_pb2.SetMachineConfigReply:
        """What hooks of machines that wake from now on are handed."""
        return self._sleep_calls.set_config(request)

    async def Shutdown(self, request: client_pb2.ShutdownRequest, context: Context) -> client_pb2.ShutdownReply:
        """End the cluster: machines first, then this process."""
        self._shut_down(request.reason or "a client asked for it")
        return client_pb2.ShutdownReply()
