"""How an agent comes to a certificate: once at its boot, and again after each suspend."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping
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
from runner.rpc.addresses import seen_through
from runner.rpc.channels import client_channel
from runner.rpc.gen import fleet_pb2, fleet_pb2_grpc, types_pb2
from runner.rpc.security import make_csr
from runner.rpc.status import from_rpc_error
from runner.rpc.version import check_peer, local_peer
from runner.worker.agent.backoff import Backoff

if TYPE_CHECKING:
    from runner.providers.base import BootConfig

REGISTER_S = 10.0  # one try
# After a suspend a call that was under way when the machine was saved is answered by nobody: each try is short, and the next one comes soon.
ASK_S = 1.0
ASK_S_MAX = 5.0
ASK_PAUSE_S = (0.1, 0.3)


class Registration:
    """One agent process. `reply` and `key_pem` are of the newest generation."""

    def __init__(self, boot: BootConfig, clock: Clock) -> None:
        self._boot = boot
        self._clock = clock
        self.instance_id = random_id("a")
        self.reply = fleet_pb2.RegisterReply()
        self.key_pem = b""

    def peer(self) -> types_pb2.Peer:
        """Who we are."""
        peer = local_peer()
        peer.host_id = self._boot.host_id or peer.host_id
        return peer

    async def first(self, phases: Mapping[str, float]) -> fleet_pb2.RegisterReply:
        """Exchange the join token for a certificate; keeps trying while nobody answers, up to `destroy_after_s`.

        Raises:
            RunnerError: refused, or nobody answered in time.
        """
        request = self._request()
        for name, time_s in phases.items():
            request.phases[name] = time_s
        deadline_s = self._clock.boottime_s() + self._boot.destroy_after_s
        backoff = Backoff()
        async with client_channel(self._boot.coordinator_address, self._boot.ca_pem) as channel:
            stub: Any = fleet_pb2_grpc.JoinStub(channel)
            while True:
                try:
                    return await self._ask(stub, request, REGISTER_S)
                except RunnerError as error:
                    if not is_passing(error) or self._clock.boottime_s() > deadline_s:
                        raise
                    await backoff.pause()

    async def again(self, snapshot: int, *, is_leased: bool) -> fleet_pb2.RegisterReply:
        """Ask, with a new key, until the coordinator takes this machine back: it is prepared for `snapshot`, and may come from it.

        Each try has a connection of its own: one from before a snapshot leads nowhere and does not know it. With `is_leased` an
        agent of which nobody has heard for `destroy_after_s` gives up. Only time in which it could ask counts, not its sleep.

        Raises:
            RunnerError: refused, or nobody answered for too long.
        """
        request = self._request()
        request.resumed, request.snapshot = True, snapshot
        silent_s, limit_s = 0.0, ASK_S
        while True:
            # First of all: a machine that is saved right now is best saved with no call under way.
            await asyncio.sleep(random.uniform(*ASK_PAUSE_S))
            began_s = self._clock.boottime_s()
            try:
                async with client_channel(self._boot.coordinator_address, self._boot.ca_pem) as channel:
                    return await self._ask(fleet_pb2_grpc.JoinStub(channel), request, limit_s)
            except CoordinatorUnreachableError:
                silent_s += min(self._clock.boottime_s() - began_s, limit_s) + ASK_PAUSE_S[1]
                if is_leased and silent_s >= self._boot.destroy_after_s:
                    raise
                limit_s = min(limit_s * 1.5, ASK_S_MAX)  # it may be slow, not gone
            except RunnerError as error:
                if not is_passing(error):
                    raise
                silent_s, limit_s = 0.0, ASK_S

    def _request(self) -> fleet_pb2.RegisterRequest:
        boot = self._boot
        self.key_pem, csr_pem = make_csr(boot.machine_id)
        return fleet_pb2.RegisterRequest(
            peer=self.peer(),
            machine_id=boot.machine_id,
            join_token=boot.join_token,
            csr_pem=csr_pem,
            agent_instance_id=self.instance_id,
            total=types_pb2.Resources(amounts=dict(boot.shape())),
            provider_machine_id=boot.provider_machine_id,
            pid=os.getpid(),
            labels=boot.labels,
        )

    async def _ask(self, stub: Any, request: fleet_pb2.RegisterRequest, limit_s: float) -> fleet_pb2.RegisterReply:
        boot = self._boot
        try:
            request.sent_unix_s = self._clock.unix_s()
            reply: fleet_pb2.RegisterReply = await stub.Register(request, timeout=limit_s)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc_error(exc, boot.coordinator_address, ca_pem=boot.ca_pem) from None
        check_peer(reply.peer, who="the coordinator")
        reply.fleet_address = seen_through(reply.fleet_address, boot.coordinator_address)
        self.reply = reply
        return reply


def is_passing(error: RunnerError) -> bool:
    """Whether another try may succeed."""
    if isinstance(error, AuthenticationError):
        return False
    # A gap in the items is cured by sending them again.
    return isinstance(error, ClusterError | ProtocolViolationError)
