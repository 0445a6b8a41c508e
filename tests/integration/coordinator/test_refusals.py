"""Who is refused, and with which error."""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from runner.ids import ClientId, TaskId, return_id
from runner.providers.base import BootConfig
from runner.rpc.gen import client_pb2, client_pb2_grpc, fleet_pb2, types_pb2
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


def from_executor(executor_id: str, **body: Any) -> fleet_pb2.ReportItem:
    item = fleet_pb2.RelayFromExecutor(executor_id=executor_id, request=client_pb2.SessionRequest(**body))
    return fleet_pb2.ReportItem(relay=item)


def hello(client_id: str) -> client_pb2.Hello:
    return client_pb2.Hello(peer=local_peer(), client_id=client_id)


async def test_a_machine_cannot_act_on_a_session_that_is_not_of_its_executors(tmp_path: Path) -> None:
    async with running(tmp_path, machines=2) as cluster, cluster.agent() as mine, cluster.agent() as other:
        async with cluster.client("c-1") as client:
            await client.send(function(), submit("t-1"))
            await client.until_acked()
            await mine.report(from_executor("e-1", hello=hello("e-1")))
            await mine.until_acked()
            release = client_pb2.Operation(release_refs=client_pb2.RefList(object_ids=["t-1.0"]))
            frame = client_pb2.ClientFrame(seq=2, operations=[release])
            for victim in ("c-1", "e-1"):
                await other.report(
                    from_executor(victim, hello=hello(victim)),
                    from_executor("e-9", hello=hello(victim)),
                    from_executor(victim, frame=frame),
                    fleet_pb2.ReportItem(executor_gone=fleet_pb2.ExecutorGone(executor_id=victim)),
                )
            await other.until_acked()
            core = cluster.coordinator.cluster
            assert core.has_client(ClientId("c-1"))
            assert core.has_client(ClientId(f"{mine.boot.machine_id}.1/e-1"))
            assert not core.has_client(ClientId(f"{other.boot.machine_id}.1/e-9"))
            await client.send(submit("t-2"))
            await client.until_acked()
            assert core.unfinished_tasks(ClientId("c-1")) == 2
            assert return_id(TaskId("t-1"), 0) in core._state.clients[ClientId("c-1")].held


async def test_a_client_cannot_take_the_id_of_an_executors_session(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as info:
            await Client(channel, "m-1.1/e-1").connect()
        assert isinstance(typed(info), ProtocolViolationError)


async def test_two_hellos_in_one_turn_are_two_streams(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        sessions = cluster.coordinator._sessions
        connects = (sessions.connect(ClientId("c-1")), sessions.connect(ClientId("c-1")))
        (one, first), (two, second) = await asyncio.gather(*connects)
        assert one is two
        sessions.disconnect(one, first, on_purpose=False)
        assert not two.outbox.closed
        sessions.disconnect(two, second, on_purpose=False)
        assert two.outbox.closed
