"""A server with the coordinator's credentials and guard, in a process of its own. Prints its port, ends when stdin does."""

from __future__ import annotations

import asyncio
import sys

import grpc.aio

from runner.rpc.channels import client_port_credentials, server_options
from runner.rpc.gen import client_pb2, client_pb2_grpc
from runner.rpc.guard import Guard
from runner.rpc.security import Authority


class Status(client_pb2_grpc.ClientServicer):
    async def GetStatus(self, request, context):
        return client_pb2.GetStatusReply(cluster_id="c-1")


async def main(token: str) -> None:
    server = grpc.aio.server(options=server_options(), interceptors=[Guard(token)])
    client_pb2_grpc.add_ClientServicer_to_server(Status(), server)
    port = server.add_secure_port("127.0.0.1:0", client_port_credentials(Authority.create()))
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
