"""The services for machines: Join (server TLS and a join token) and Fleet (mutual TLS)."""

# ruff: noqa: N802  method names are the protocol's

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from runner.coordinator.admission import Boot
from runner.coordinator.bulk import Bulk
from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.engine import Engine
from runner.coordinator.fleet import Fleet
from runner.coordinator.lanes import Lanes
from runner.coordinator.machine_links import MachineLink, MachineLinks
from runner.coordinator.reports import Reports
from runner.core import events, suspend_events
from runner.core.values import Labels, make_shape
from runner.errors import AuthenticationError, ClusterError, ProtocolViolationError
from runner.ids import ClusterId, MachineId
from runner.pools import REGION_LABEL
from runner.rpc.channels import UPLOAD_ACCEPTED, peer_machine
from runner.rpc.gen import fleet_pb2, fleet_pb2_grpc, types_pb2
from runner.rpc.security import Authority, MachineIdentity
from runner.rpc.version import check_peer, host_id, local_peer

log = logging.getLogger(__name__)

# What an agent has sent before its machine was suspended may come that much later.
_UNDER_WAY_S = 5.0
_WAKE_KINDS = {
    "resumed": fleet_pb2.WAKE_KIND_RESUMED,
    "cold": fleet_pb2.WAKE_KIND_COLD,
    "cancelled": fleet_pb2.WAKE_KIND_CANCELLED,
}

Context = Any  # grpc.aio.ServicerContext, which the stubs make generic in ways that generated code is not


class JoinService(fleet_pb2_grpc.JoinServicer):
    """Exchanges one-machine join tokens for machine certificates."""

    def __init__(
        self,
        engine: Engine,
        fleet: Fleet,
        links: MachineLinks,
        authority: Authority,
        config: CoordinatorConfig,
        cluster_id: ClusterId,
        *,
        store_path: str,
        artefact_path: str,
        suspend_hooks_s: float,
    ) -> None:
        self._suspend_hooks_s = suspend_hooks_s
        self._engine = engine
        self._fleet = fleet
        self._links = links
        self._authority = authority
        self._config = config
        self._cluster_id = cluster_id
        self._store_path = store_path
        self._artefact_path = artefact_path

    async def Register(self, request: fleet_pb2.RegisterRequest, context: Context) -> fleet_pb2.RegisterReply:
        """Admit one agent. The same key gets the same answer while its generation lasts."""
        machine_id = MachineId(request.machine_id)
        key_pem = _public_key(request.csr_pem, machine_id)
        boot = self._fleet.admit(machine_id, request.join_token, key_pem)
        if warning := check_peer(request.peer, who=f"machine {machine_id}"):
            log.warning("%s", warning)
        self._fleet.set_clock(machine_id, request.sent_unix_s)
        for name, time_s in request.phases.items():
            self._fleet.note_machine_phase(machine_id, name, time_s)
        self._fleet.note_phase(machine_id, "registered", time.time())
        boot.host_id = request.peer.host_id
        boot.pid = request.pid
        snapshot = request.snapshot if request.resumed else 0
        if snapshot:
            self._has_hung_up(boot, snapshot)
        # A new key is a new agent, whatever it calls itself: the old certificate must not pass any more.
        agent_id = f"{request.agent_instance_id}/{boot.key_hash[:16]}"
        self._engine.post(
            events.MachineRegistered(
                machine_id,
                agent_id,
                make_shape(request.total.amounts),
                request.peer.host_id,
                dict(boot.phases),
                _labels(request, boot),
                snapshot,
            )
        )
        had_past = self._links.newest(machine_id) is not None  # before a link of the new generation is made
        await self._engine.committed()
        cluster = self._engine.cluster
        if snapshot and cluster.must_ask_again(machine_id):
            boot.asked_s = asyncio.get_running_loop().time()
            raise _ask_again(machine_id)
        if not cluster.is_admitted(machine_id, agent_id):
            raise AuthenticationError(f"machine {machine_id} is not wanted any more; destroy it")
        generation = cluster.generation_of(machine_id)
        return self._reply(boot, generation, request, sessions_over=bool(snapshot) and not had_past)

    def _has_hung_up(self, boot: Boot, snapshot: int) -> None:
        """An agent that asks has closed its connections, whether we have seen that or not.

        Raises:
            ClusterError: the machine has just been suspended, and this was under way when it was.
        """
        machine_id, cluster = boot.machine_id, self._engine.cluster
        link, view = self._links.newest(machine_id), cluster.machine(machine_id)
        self._engine.post(suspend_events.AgentPrepared(machine_id, cluster.generation_of(machine_id), snapshot))
        heard_s = max(boot.asked_s, link.prepared_s if link is not None else 0.0)
        is_late = asyncio.get_running_loop().time() - heard_s > _UNDER_WAY_S
        if view is not None and view.state == "suspended" and not is_late:
            raise _ask_again(machine_id)

    def _reply(
        self, boot: Boot, generation: int, request: fleet_pb2.RegisterRequest, *, sessions_over: bool
    ) -> fleet_pb2.RegisterReply:
        if boot.reply is not None and boot.generation == generation:
            if boot.reply.HasField("wake"):
                boot.reply.wake.now_unix_s = time.time()
            return boot.reply
        csr_pem = request.csr_pem
        boot.generation = generation
        boot.reply = fleet_pb2.RegisterReply(
            peer=local_peer(),
            cluster_id=self._cluster_id,
            generation=generation,
            certificate_pem=self._authority.sign_csr(csr_pem, boot.machine_id, generation=generation),
            peer_certificate_pem=self._authority.sign_peer(csr_pem, MachineIdentity(boot.machine_id, generation)),
            fleet_address=self._fleet.fleet_address,
            store_path=self._store_path,
            artefact_path=self._artefact_path,
            heartbeat_s=self._config.heartbeat_s,
            lost_after_s=self._config.lost_after_s,
            destroy_after_s=self._config.destroy_after_s,
            wake=self._wake(boot.machine_id, sessions_over=sessions_over, is_cold=not request.resumed),
        )
        return boot.reply

    def _wake(self, machine_id: MachineId, *, sessions_over: bool, is_cold: bool) -> fleet_pb2.Wake | None:
        """What the agent comes back from; None: from nothing. What the machine woke of before its agent started anew is the past."""
        found = self._engine.cluster.wake_of(machine_id)
        if found is None or (found[0] == "cold") != is_cold:
            return None
        kind, snapshot, slept_s = found
        return fleet_pb2.Wake(
            kind=_WAKE_KINDS[kind],
            snapshot=snapshot,
            slept_s=slept_s,
            now_unix_s=time.time(),
            config=self._fleet.machine_config,
            hooks_s=self._suspend_hooks_s,
            sessions_over=sessions_over,
        )


class FleetService(fleet_pb2_grpc.FleetServicer):
    """The two streams of each machine, and the files of those on other hosts."""

    def __init__(self, engine: Engine, links: MachineLinks, reports: Reports, bulk: Bulk, lanes: Lanes) -> None:
        self._engine = engine
        self._links = links
        self._lanes = lanes
        self._reports = reports
        self._bulk = bulk

    async def Assignments(self, request: fleet_pb2.AssignmentsRequest, context: Context) -> None:
        """Drain the machine's outbox. A newer stream of the same machine ends this one."""
        link = self._admit(context, MachineId(request.machine_id), request.generation)
        stream = link.attach(request.received_seq)
        # An agent asks only on the host that its coordinator named.
        lane = self._lanes.offer(host_id()) if request.wants_lane else None
        try:
            if lane is None:
                await self._serve_stream(link, stream, context)
                return
            await context.write(fleet_pb2.AgentCommands(lane=lane))
            await self._serve_lane(link, stream, lane)
        finally:
            if link.stream == stream:
                self._reports.hung_up(link)

    async def _serve_stream(self, link: MachineLink, stream: int, context: Context) -> None:
        while link.stream == stream:
            frame = link.take_frame()
            if frame is not None:
                await context.write(frame)
            elif link.exit_reason and not len(link.outbox):
                return  # it has been told
            elif not await link.outbox.wait():
                return

    async def _serve_lane(self, link: MachineLink, stream: int, offer: types_pb2.Lane) -> None:
        """Commands and reports by a lane, until either end of it closes."""

        def take() -> fleet_pb2.AgentCommands | None:
            frame = link.take_frame() if link.stream == stream else None
            if frame is None and (link.exit_reason or link.stream != stream):
                told.set()
            return frame

        def take_in(message: bytes) -> None:
            if link.stream != stream:
                return
            report = fleet_pb2.AgentReport.FromString(message)
            if link.exit_reason or report.generation != link.generation or report.machine_id != link.machine_id:
                raise AuthenticationError(
                    f"generation {link.generation} of machine {link.machine_id} is over: {link.exit_reason}; it must exit"
                )
            self._reports.take(link, report)

        told = asyncio.Event()
        lane = await self._lanes.open(offer, link.outbox, take, take_in)
        ending = asyncio.ensure_future(told.wait())
        try:
            ends: list[asyncio.Future[Any]] = [lane.ended, ending]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if lane.ended.done():
                lane.ended.result()
        finally:
            lane.close()
            ending.cancel()

    async def Report(
        self, request_iterator: AsyncIterator[fleet_pb2.AgentReport], context: Context
    ) -> fleet_pb2.ReportReply:
        """Take in what the agent says until the stream ends. Frames of an older generation end it with an error."""
        link: MachineLink | None = None
        async for report in request_iterator:
            if link is None or link.exit_reason or report.generation != link.generation:
                link = self._admit(context, MachineId(report.machine_id), report.generation)
            elif report.machine_id != link.machine_id:
                raise ProtocolViolationError(f"machine {link.machine_id} reported as {report.machine_id}")
            self._reports.take(link, report)
        return fleet_pb2.ReportReply()

    async def Upload(
        self, request_iterator: AsyncIterator[fleet_pb2.UploadPart], context: Context
    ) -> fleet_pb2.UploadReply:
        """Take in one file of a machine on another host."""
        parts = aiter(request_iterator)
        first = await anext(parts, None)
        if first is None or not first.HasField("header"):
            raise ProtocolViolationError("an upload must say first what it is")
        self._admit(context, MachineId(first.header.machine_id), first.header.generation)
        # Before the sender has heard this it sends nothing more, so that it hears every refusal.
        accepted = ((UPLOAD_ACCEPTED, "1"),)
        return await self._bulk.receive(first.header, parts, lambda: context.send_initial_metadata(accepted))

    async def Download(self, request: fleet_pb2.DownloadRequest, context: Context) -> None:
        """Send one file to a machine on another host."""
        self._admit(context, MachineId(request.machine_id), request.generation)
        async with contextlib.aclosing(self._bulk.send(request)) as parts:
            async for part in parts:
                await context.write(part)

    async def Locate(self, request: fleet_pb2.DownloadRequest, context: Context) -> fleet_pb2.LocateReply:
        """Tell a machine on another host where a value is."""
        self._admit(context, MachineId(request.machine_id), request.generation)
        return await self._bulk.locate(request)

    def _admit(self, context: Context, machine_id: MachineId, generation: int) -> MachineLink:
        """The link that this connection may speak for.

        Raises:
            AuthenticationError: the certificate is another machine's, or its generation is over.
        """
        identity = peer_machine(context.auth_context())
        if identity.machine_id != machine_id or identity.generation != generation:
            raise AuthenticationError(
                f"the certificate of machine {identity.machine_id} generation {identity.generation} cannot speak for "
                f"machine {machine_id} generation {generation}"
            )
        link = None
        if self._engine.cluster.is_machine_live(machine_id, generation):
            link = self._links.of(machine_id, generation)
        if link is None or link.exit_reason:
            reason = link.exit_reason if link is not None else "the cluster has given it up or knows a newer one"
            raise AuthenticationError(
                f"generation {generation} of machine {machine_id} is over: {reason}; it must exit"
            )
        return link


def _ask_again(machine_id: MachineId) -> ClusterError:
    return ClusterError(f"machine {machine_id} is being suspended; ask again")


def _public_key(csr_pem: bytes, machine_id: MachineId) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        key = x509.load_pem_x509_csr(csr_pem).public_key()
    except ValueError:
        raise AuthenticationError(f"machine {machine_id} sent a certificate request that cannot be read") from None
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _labels(request: fleet_pb2.RegisterRequest, boot: Boot) -> Labels:
    """What the machine says of itself, and where its provider has put it."""
    labels = dict(request.labels)
    if boot.region:
        labels[REGION_LABEL] = boot.region
    return tuple(sorted(labels.items()))
