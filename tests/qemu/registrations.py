"""Where machines ask to be registered, without a coordinator."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from runner.ids import ClusterId
from runner.providers.base import MachineSpec
from runner.rpc.channels import client_port_credentials, server_options
from runner.rpc.gen import fleet_pb2, fleet_pb2_grpc
from runner.rpc.security import Authority
from tests.contract.providers.harness import make_spec
from tests.integration.helpers import until


class Registrations(fleet_pb2_grpc.JoinServicer):
    """Where machines ask to be registered, and are told to ask again: nothing but the provider acts on them.

    Each request shows which life of the guest it comes from: the agent's id is made when the agent starts.
    """

    def __init__(self) -> None:
        self.seen: list[fleet_pb2.RegisterRequest] = []
        self.address = ""
        self.authority = Authority.create()

    async def Register(self, request: fleet_pb2.RegisterRequest, context: Any) -> None:
        self.seen.append(request)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "ask again")

    async def next(self, limit_s: float = 60) -> fleet_pb2.RegisterRequest:
        """The next request, from now on."""
        known = len(self.seen)
        await until(lambda: len(self.seen) > known, limit_s, "a machine asks to be registered")
        return self.seen[-1]

    def spec(self, cluster_id: ClusterId, name: str) -> MachineSpec:
        """A machine that asks here, and goes on asking."""
        spec = make_spec(cluster_id, name)
        boot = replace(
            spec.boot,
            coordinator_address=self.address,
            ca_pem=self.authority.ca_pem,
            lost_after_s=600.0,
            destroy_after_s=600.0,
        )
        return replace(spec, boot=boot)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Registrations]:
    """Registrations on a port of this host's loopback."""
    made = Registrations()
    server = grpc.aio.server(options=server_options())
    port = server.add_secure_port("127.0.0.1:0", client_port_credentials(made.authority))
    fleet_pb2_grpc.add_JoinServicer_to_server(made, server)
    made.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield made
    finally:
        await server.stop(None)
