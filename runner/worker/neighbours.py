"""Values from machine to machine, over mutual TLS: what an agent serves to others, and how it asks them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from runner.errors import ObjectLostError, ProtocolViolationError
from runner.objects.file_chunks import IncomingFile, OutgoingFile
from runner.rpc.channels import fleet_channel, peer_machine, peer_port_credentials, server_options
from runner.rpc.gen import fleet_pb2, fleet_pb2_grpc
from runner.rpc.guard import Guard
from runner.rpc.security import MachineIdentity
from runner.rpc.status import from_rpc_error
from runner.worker.local_store import LocalStore

log = logging.getLogger(__name__)

Context = Any  # grpc.aio.ServicerContext, which the stubs make generic in ways that generated code is not

CONNECT_S = 5.0
# A machine that could not be reached is not tried again for so long.
SHUNNED_S = 60.0
_PULLS_MAX = 4  # at the same time, to this machine


class Neighbour(fleet_pb2_grpc.NeighbourServicer):
    """Serves the machine's own values, and nothing else of it. Whoever gets here has a certificate of the cluster."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.pulls = 0  # served to their end

    async def Pull(self, request: fleet_pb2.PullRequest, context: Context) -> None:  # noqa: N802
        """One value from `offset` on; at the end the digest of what was sent."""
        peer_machine(context.auth_context())
        size_bytes = self._store.own_bytes(request.path)
        if size_bytes is None:
            raise ObjectLostError(f"object {request.object_id} is not, or no longer, at {request.path}")
        async with contextlib.AsyncExitStack() as stack:
            try:
                file = await stack.enter_async_context(OutgoingFile(request.path))
            except OSError as error:
                raise ObjectLostError(f"object {request.object_id} is gone: {error.strerror}") from error
            async for data, crc32 in file.chunks(request.offset, size_bytes):
                await context.write(fleet_pb2.DownloadPart(data=data, crc32=crc32, total_bytes=size_bytes))
            await context.write(fleet_pb2.DownloadPart(total_bytes=size_bytes, sha256=file.sha256))
        self.pulls += 1


class Neighbours:
    """The machine's credentials among machines: `serve` once, `pull` as often as needed."""

    def __init__(self, ca_pem: bytes, key_pem: bytes, cert_pem: bytes, peer_cert_pem: bytes) -> None:
        self._ca_pem = ca_pem
        self._key_pem = key_pem
        self._cert_pem = cert_pem
        self._peer_cert_pem = peer_cert_pem
        self._server: Any = None
        self._shunned: dict[str, float] = {}  # address: until when
        self._room = asyncio.Semaphore(_PULLS_MAX)

    async def serve(self, store: LocalStore, host: str) -> str:
        """Serve at a free port of `host`; returns the address, empty when nothing can be bound there."""
        server = grpc.aio.server(options=server_options(), interceptors=[Guard(None)])
        fleet_pb2_grpc.add_NeighbourServicer_to_server(Neighbour(store), server)
        credentials = peer_port_credentials(self._ca_pem, self._key_pem, self._peer_cert_pem)
        name = f"[{host}]" if ":" in host else host
        try:
            port = server.add_secure_port(f"{name}:0", credentials)
        except RuntimeError as error:
            log.warning("values of this machine cannot be pulled: %s cannot be bound (%s)", host, error)
            return ""
        self._server = server  # it lives as long as we
        await server.start()
        return f"{name}:{port}"

    async def close(self) -> None:
        """Serve no more."""
        if self._server is not None:
            await self._server.stop(None)

    def can_reach(self, place: fleet_pb2.LocateReply) -> bool:
        """Whether it is worth a try."""
        return bool(place.address) and self._shunned.get(place.address, 0.0) <= time.monotonic()

    async def pull(self, place: fleet_pb2.LocateReply, object_id: str, path: str) -> None:
        """Bring a value from its machine to `path`, or nothing.

        Raises:
            RunnerError: it cannot be reached, or has it no longer.
            StoreFullError: no room here.
        """
        identity = MachineIdentity(place.machine_id, place.generation)
        async with (
            self._room,
            IncomingFile(path, place.total_bytes, what=object_id, is_hashed=True) as file,
            fleet_channel(
                place.address, self._ca_pem, self._key_pem, self._cert_pem, server_name=identity.peer_name()
            ) as channel,
        ):
            try:
                async with asyncio.timeout(CONNECT_S):
                    await channel.channel_ready()
            except TimeoutError:
                self._shunned[place.address] = time.monotonic() + SHUNNED_S
                text = f"machine {place.machine_id} cannot be reached at {place.address} within {CONNECT_S:g} s"
                raise ObjectLostError(text) from None
            await file.finish(await _receive(channel, place, object_id, file))
            file.publish()


async def _receive(channel: Any, place: fleet_pb2.LocateReply, object_id: str, file: IncomingFile) -> str:
    request = fleet_pb2.PullRequest(object_id=object_id, path=place.path)
    sha256 = ""
    parts: AsyncIterator[fleet_pb2.DownloadPart] = fleet_pb2_grpc.NeighbourStub(channel).Pull(request)
    try:
        async for part in parts:
            if part.data:
                await file.add(part.data, part.crc32)
            sha256 = part.sha256 or sha256
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, place.address) from None
    except asyncio.InvalidStateError:
        raise ProtocolViolationError(f"the connection to {place.address} broke") from None
    return sha256


def own_address(coordinator_address: str) -> str:
    """The address of this machine towards its coordinator: other machines are likely to reach it there. Empty: unknown."""
    host, _, port = coordinator_address.rpartition(":")
    try:
        family, kind, _, _, target = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as sock:
            sock.connect(target)  # of a datagram socket: nothing is sent
            return str(sock.getsockname()[0])
    except (OSError, ValueError):
        return ""
