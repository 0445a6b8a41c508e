"""Words on a session's stream: the first ones, and those that may fail."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio

from runner.errors import CoordinatorUnreachableError, ProtocolViolationError
from runner.rpc.gen import client_pb2
from runner.rpc.version import check_peer, local_peer

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs

_log = logging.getLogger("runner")


async def greet(call: Any, client_id: str, address: str, *, wants_lane: bool) -> client_pb2.Welcome:
    """Say hello on a new stream; returns the coordinator's welcome.

    Raises:
        grpc.RpcError: the call failed.
        RunnerError: it ended without a welcome, or the other end is of another version.
    """
    hello = client_pb2.Hello(peer=local_peer(), client_id=client_id, wants_lane=wants_lane)
    try:
        await call.write(client_pb2.SessionRequest(hello=hello).SerializeToString())
        first = await call.read()
    except asyncio.InvalidStateError:  # it broke between two steps of ours
        first = EOF
    if first is EOF:
        raise CoordinatorUnreachableError(f"the coordinator at {address} ended the session at once")
    reply = client_pb2.SessionReply.FromString(first)
    if reply.WhichOneof("body") != "welcome":
        raise ProtocolViolationError(f"the coordinator at {address} did not begin with a welcome")
    if warning := check_peer(reply.welcome.peer, who="the coordinator"):
        _log.warning("%s", warning)
    return reply.welcome


async def quietly_write(call: Any, request: bytes) -> bool:
    """Whether it could be written: who reads the stream learns why not."""
    try:
        await call.write(request)
    except (grpc.RpcError, asyncio.InvalidStateError):
        return False
    return True
