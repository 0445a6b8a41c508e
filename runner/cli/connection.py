"""Calls to a coordinator: found, authenticated, with a deadline, and errors as typed ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from runner.config import Settings
from runner.rpc import clusters

T = TypeVar("T")

CALL_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Connection:
    """An open connection; `stub` is the Client service's."""

    address: str
    stub: Any

    async def pages(self, method: str, request: Any, field: str, limit: int | None = None) -> list[Any]:
        """All items of a paged listing, or the first `limit`."""
        items: list[Any] = []
        while True:
            reply = await getattr(self.stub, method)(request, timeout=CALL_TIMEOUT_S)
            items += getattr(reply, field)
            if not reply.next_page_token or (limit is not None and len(items) >= limit):
                return items[:limit]
            request.page_token = reply.next_page_token


def call(target: clusters.Target, use: Callable[[Connection], Awaitable[T]]) -> T:
    """Run `use` with a connection to `target`.

    Raises:
        RunnerError: what the coordinator answered, or that nobody did.
    """

    async def connected() -> T:
        async with connect(target) as connection:
            return await use(connection)

    return asyncio.run(connected())


def find(settings: Settings, address: str | None) -> clusters.Target:
    """Which coordinator the command means, see `clusters.resolve`."""
    return clusters.resolve(settings, address)


@asynccontextmanager
async def connect(target: clusters.Target) -> AsyncIterator[Connection]:
    """A connection for the length of a block; failed calls in it raise typed errors."""
    # Imported here: commands that read files only need no gRPC.
    from runner.rpc.channels import client_channel
    from runner.rpc.gen import client_pb2_grpc
    from runner.rpc.status import from_rpc_error

    import grpc  # isort: skip  after runner.rpc, which quietens it

    channel = client_channel(target.address, target.ca_pem, target.token)
    try:
        yield Connection(target.address, client_pb2_grpc.ClientStub(channel))  # type: ignore[no-untyped-call]
    except grpc.RpcError as error:
        raise from_rpc_error(error, target.address, ca_pem=target.ca_pem) from None
    finally:
        await channel.close(None)
