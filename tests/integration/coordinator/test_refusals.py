"""Who is refused, and with which error."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from runner.coordinator.state_dir import StateDir, sweep_stores
from runner.errors import (
    AddressInUseError,
    AuthenticationError,
    BadOptionsError,
    ProtocolViolationError,
    RunnerError,
    UsageError,
    VersionMismatchError,
)
from runner.providers.base import BootConfig
from runner.rpc.gen import client_pb2, client_pb2_grpc, types_pb2
from runner.rpc.status import from_rpc_error
from runner.rpc.version import local_peer
from tests.integration.coordinator.harness import Agent, Client, function, metrics, running, submit


def typed(info: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> RunnerError:
    return from_rpc_error(info.value, "here")


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_every_method_of_clients_needs_the_token(tmp_path: Path, token: str) -> None:
    async with running(tmp_path) as cluster, cluster.channel(token) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as info:
            await Client(channel, "c-1").connect()
        assert isinstance(typed(info), AuthenticationError)
        stub = client_pb2_grpc.ClientStub(channel)
        for call in (
            stub.GetStatus(client_pb2.GetStatusRequest()),
            stub.ListTasks(client_pb2.ListTasksRequest()),
            stub.ListMachines(client_pb2.ListMachinesRequest()),
            stub.AddMachines(client_pb2.AddMachinesRequest(count=1)),
            stub.RemoveMachine(client_pb2.RemoveMachineRequest(machine_id="m-1")),
            stub.Shutdown(client_pb2.ShutdownRequest()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as info:
                await call
            assert isinstance(typed(info), AuthenticationError)
        for stream in (stub.Watch(client_pb2.WatchRequest()), stub.Fetch(client_pb2.FetchRequest(object_id="o"))):
            with pytest.raises(grpc.aio.AioRpcError) as info:
                await stream.read()
            assert isinstance(typed(info), AuthenticationError)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"protocol": 99}, "protocol 99"), ({"python_version": "3.8.1"}, "Python 3.8.1")],
)
async def test_a_peer_that_cannot_work_with_us(tmp_path: Path, change: dict[str, object], words: str) -> None:
    peer = local_peer()
    peer.MergeFrom(types_pb2.Peer(**change))  # type: ignore[arg-type]
    async with running(tmp_path) as cluster:
        async with cluster.channel() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as info:
                await Client(channel, "c-1").connect(peer)
            error = typed(info)
            assert isinstance(error, VersionMismatchError)
            assert words in str(error)
        agent = Agent(await cluster.next_boot())
        request = agent.registration()
        request.peer.CopyFrom(peer)
        agent.registration = lambda: request  # type: ignore[method-assign]
        with pytest.raises(grpc.aio.AioRpcError) as info:
            await agent.register()
        assert isinstance(typed(info), VersionMismatchError)


async def test_join_token_of_another_machine_or_made_up(tmp_path: Path) -> None:
    async with running(tmp_path, machines=2) as cluster:
        one, other = await cluster.next_boot(), await cluster.next_boot()
        for boot in (_with_token(one, other.join_token), _with_token(one, "made-up")):
            with pytest.raises(grpc.aio.AioRpcError) as info:
                await Agent(boot).register()
            assert isinstance(typed(info), AuthenticationError)


async def test_a_used_join_token_is_no_good_to_a_stranger(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent:
        # The same key gets the same answer.
        before = agent.reply
        assert await agent.register() == before
        stranger = Agent(agent.boot, "instance-2")
        with pytest.raises(grpc.aio.AioRpcError) as info:
            await stranger.register()
        assert isinstance(typed(info), AuthenticationError)
        assert "another key" in str(typed(info))


async def test_a_certificate_cannot_speak_for_another_generation(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent:
        await agent.report(metrics("t-1", 1, step=0), generation=agent.reply.generation + 1)
        assert "cannot speak for" in await agent.refusal()
        await agent.close_streams()
        await agent.open_streams(generation=agent.reply.generation + 1)
        assert "cannot speak for" in await agent.assignments_end()


async def test_a_machine_that_was_given_up_is_told_to_exit(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        await agent.report(metrics("t-1", 1, step=0))
        await agent.until_acked()
        request = client_pb2.RemoveMachineRequest(machine_id=agent.boot.machine_id, force=True)
        await client.stub.RemoveMachine(request)
        await agent.assignments_end()
        assert any(command.HasField("exit") for command in agent.commands)
        await agent.report(metrics("t-1", 2, step=1))
        assert "is over" in await agent.refusal()


async def test_report_items_must_not_be_missing(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent:
        await agent.report(metrics("t-1", 1, step=0), first_seq=5)
        assert "sent item 5 after item 0" in await agent.refusal()


async def test_frames_must_not_be_missing(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.channel() as channel:
        client = Client(channel, "c-1")
        await client.connect()
        await client.send(function())
        await client.until_acked()
        await client.send(submit("t-1"), seq=7)
        with pytest.raises(grpc.aio.AioRpcError) as info:
            await client.until(lambda: False)
        assert isinstance(typed(info), ProtocolViolationError)
        assert "sent frame 7 after frame 1" in str(typed(info))


async def test_a_port_in_use(tmp_path: Path) -> None:
    async with running(tmp_path / "one") as cluster:
        port = int(cluster.ready.address.rpartition(":")[2])
        with pytest.raises(AddressInUseError, match=f"port {port}"):
            async with running(tmp_path / "two", port=port):
                pass


async def test_a_state_directory_has_one_coordinator(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        with pytest.raises(UsageError, match="running already"):
            StateDir(str(tmp_path), cluster.ready.cluster_id, "")


async def test_machine_calls_with_bad_arguments(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client:
        for call in (
            client.stub.AddMachines(client_pb2.AddMachinesRequest(count=0)),
            client.stub.RemoveMachine(client_pb2.RemoveMachineRequest(machine_id="m-99")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as info:
                await call
            assert isinstance(typed(info), BadOptionsError)


def test_secrets_are_private(tmp_path: Path) -> None:
    state = StateDir(str(tmp_path), "", "")
    assert state.path.stat().st_mode & 0o777 == 0o700
    assert state.store.stat().st_mode & 0o777 == 0o700
    for name in ("token", "ca-key.pem", "ca.pem"):
        assert (state.path / name).stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{12}", state.cluster_id)
    state.close(keep=False, keep_store=False)
    assert not state.path.exists()


def _with_token(boot: BootConfig, token: str) -> BootConfig:
    return replace(boot, join_token=token)


def test_the_store_of_a_killed_embedded_coordinator_is_swept(tmp_path: Path) -> None:
    killed = StateDir(str(tmp_path), "", "")
    standing = StateDir(str(tmp_path), "", "", embedded=False)
    sweep_stores()
    assert killed.store.exists()  # it lives
    for state in (killed, standing):
        for fd in state._lock_fds:  # as the kernel does when a process is killed
            os.close(fd)
        state._lock_fds.clear()
    sweep_stores()
    assert not killed.store.exists()
    assert standing.store.exists()
    for state in (killed, standing):
        state.close(keep=False, keep_store=False)
