"""Machines, listings, large values, executors' sessions and restarts, over real gRPC."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from runner.client import transfer
from runner.core.values import UNIT
from runner.errors import ObjectLostError, ProtocolViolationError, RunnerError, StoreFullError, UsageError
from runner.objects.serialization import Serialized, serialize
from runner.rpc.channels import UPLOAD_START
from runner.rpc.gen import client_pb2, fleet_pb2, types_pb2
from runner.rpc.status import from_rpc_error
from runner.rpc.version import host_id, local_peer
from tests.integration.coordinator.harness import (
    WAIT_S,
    function,
    inline,
    key,
    lines,
    metrics,
    running,
    started,
    submit,
    succeeded,
)

UPLOAD = "/runner.v1.Client/Upload"
STANDING: dict[str, Any] = {"embedded": False, "cluster_id": "standing"}


async def test_status_and_listings(tmp_path: Path) -> None:
    async with running(tmp_path, num_cpus=2) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("t-1", name="one", is_run=True), submit("t-2"))
        await agent.next_start("t-1")
        await agent.report(started("t-1"))
        await agent.until_acked()
        status = await client.stub.GetStatus(client_pb2.GetStatusRequest())
        assert status.total.amounts["CPU"] == 2 * UNIT
        assert dict(status.machines_by_state) == {"ready": 1}
        assert sum(status.tasks_by_state.values()) == 2
        assert status.clients == 1
        assert status.pid == os.getpid()
        tasks = (await client.stub.ListTasks(client_pb2.ListTasksRequest(runs_only=True))).tasks
        assert [(task.name, task.function_name, task.state) for task in tasks] == [("one", "mod.noop", "running")]
        machines = (await client.stub.ListMachines(client_pb2.ListMachinesRequest())).machines
        assert machines[0].machine_id == "m-1"
        assert machines[0].host_id == host_id()
        assert {"requested", "agent_up", "registered"} <= set(machines[0].phases)


async def test_more_machines_and_fewer(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client:
        await cluster.next_boot()
        request = client_pb2.AddMachinesRequest(count=2, request_id="r-1")
        ids = list((await client.stub.AddMachines(request)).machine_ids)
        assert ids == ["m-2", "m-3"]
        assert list((await client.stub.AddMachines(request)).machine_ids) == ids
        assert {(await cluster.next_boot()).machine_id for _ in ids} == set(ids)
        await client.stub.RemoveMachine(client_pb2.RemoveMachineRequest(machine_id="m-2"))
        watch = client.stub.Watch(client_pb2.WatchRequest(kinds=[client_pb2.EVENT_KIND_MACHINE], follow=True))
        async with asyncio.timeout(WAIT_S):
            async for reply in watch:
                if any(event.machine_id == "m-2" and event.state == "destroyed" for event in reply.events):
                    break
        watch.cancel()


async def test_fetch_of_small_and_large_values(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client:
        value = serialize(os.urandom(3 << 20))
        data = value.to_bytes()
        async with cluster.channel() as channel:
            segment = await transfer.upload(channel, UPLOAD, "o-1", value)
        assert Path(segment.path).read_bytes() == data
        large = client_pb2.Put(object_id="o-1")
        large.value.segment.CopyFrom(segment)
        small = client_pb2.Put(object_id="o-2")
        small.value.inline = b"small"
        await client.send(client_pb2.Operation(put=large), client_pb2.Operation(put=small))
        await client.until_acked()

        async def fetch(object_id: str, offset: int = 0) -> bytes:
            request = client_pb2.FetchRequest(object_id=object_id, offset=offset)
            chunks = [chunk async for chunk in client.stub.Fetch(request)]
            assert all(zlib.crc32(chunk.data) == chunk.crc32 for chunk in chunks)
            return b"".join(chunk.data for chunk in chunks)

        assert await fetch("o-1") == data
        assert await fetch("o-1", offset=1_500_000) == data[1_500_000:]
        assert await fetch("o-2") == b"small"
        with pytest.raises(grpc.aio.AioRpcError) as info:
            await fetch("o-3")
        assert isinstance(from_rpc_error(info.value, "here"), ObjectLostError)
        # Released: the segment goes.
        await client.send(client_pb2.Operation(release_refs=client_pb2.RefList(object_ids=["o-1"])))
        await client.until_acked()
        assert not Path(segment.path).exists()


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client:

        async def upload() -> AsyncIterator[client_pb2.UploadRequest]:
            yield client_pb2.UploadRequest(data=b"half", crc32=zlib.crc32(b"half"))

        start = client_pb2.UploadStart(object_id="o-1", total_bytes=100)
        with pytest.raises(grpc.aio.AioRpcError, match="ended after 4 of 100 bytes"):
            await client.stub.Upload(upload(), metadata=((UPLOAD_START, start.SerializeToString()),))
        assert os.listdir(client.welcome.store_path) == [".lock"]


class Huge(Serialized):
    """More than any store has room for."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(bytes(1 << 22), [], [], [])
        self.total_bytes = 1 << 50


@pytest.mark.parametrize(
    ("object_id", "value", "refused"),
    [("../o-1", serialize(bytes(1 << 22)), ProtocolViolationError), ("o-1", Huge(), StoreFullError)],
)
async def test_a_refused_upload_is_told_why_before_it_sends_anything(
    tmp_path: Path, object_id: str, value: Serialized, refused: type[RunnerError]
) -> None:
    """Else the refusal would meet a write, and gRPC would lose it now and then."""
    async with running(tmp_path) as cluster, cluster.client() as client, cluster.channel() as channel:
        for _ in range(20):
            with pytest.raises(grpc.aio.AioRpcError) as info:
                await transfer.upload(channel, UPLOAD, object_id, value)
            assert type(from_rpc_error(info.value, "here")) is refused
        assert os.listdir(client.welcome.store_path) == [".lock"]


@pytest.mark.parametrize("metadata", [(), ((UPLOAD_START, b"\xff"),)])
async def test_an_upload_that_does_not_say_what_it_is_is_refused(tmp_path: Path, metadata: Any) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client:
        with pytest.raises(grpc.aio.AioRpcError) as info:
            await client.stub.Upload(metadata=metadata)
        assert isinstance(from_rpc_error(info.value, "here"), ProtocolViolationError)


async def test_a_value_that_is_not_ready_cannot_be_fetched(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client:
        await client.send(function(), submit("t-1"))
        await client.until_acked()
        with pytest.raises(grpc.aio.AioRpcError) as info:
            await client.stub.Fetch(client_pb2.FetchRequest(object_id="t-1.0")).read()
        assert isinstance(from_rpc_error(info.value, "here"), UsageError)


def relay(executor_id: str, task_id: str, request: client_pb2.SessionRequest) -> fleet_pb2.ReportItem:
    item = fleet_pb2.RelayFromExecutor(executor_id=executor_id, key=key(task_id), request=request)
    return fleet_pb2.ReportItem(relay=item)


async def test_a_task_submits_a_child_through_its_agent(tmp_path: Path) -> None:
    async with running(tmp_path, num_cpus=2) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("parent"))
        await agent.next_start("parent")
        hello = client_pb2.SessionRequest(hello=client_pb2.Hello(peer=local_peer(), client_id="e-1"))
        frame = client_pb2.ClientFrame(
            seq=1,
            operations=[
                submit("child"),
                client_pb2.Operation(resolve=client_pb2.RefList(object_ids=["child.0"])),
            ],
        )
        await agent.report(
            started("parent"),
            relay("e-1", "parent", hello),
            relay("e-1", "parent", client_pb2.SessionRequest(frame=frame)),
        )
        start = await agent.next_start("child")
        assert start.client_id == "c-1"  # for whom the whole tree of tasks runs
        await agent.report(started("child", executor_id="e-2"), lines("child", 1, "from below"), succeeded("child"))

        def replies() -> list[client_pb2.SessionReply]:
            return [command.relay.reply for command in agent.commands if command.HasField("relay")]

        await agent.until(lambda: any(reply.frame.ready for reply in replies()))
        assert replies()[0].HasField("welcome")
        assert next(reply.frame.ready[0].object_id for reply in replies() if reply.frame.ready) == "child.0"
        await agent.until(lambda: any(reply.frame.acked_seq == 1 for reply in replies()))
        # What a child prints belongs to the client that started it all.
        events = await client.watch(client_id="c-1", kinds=[client_pb2.EVENT_KIND_LOG])
        assert [(event.task_id, event.text) for event in events] == [("child", "from below")]


async def test_submits_of_an_attempt_that_is_over_are_ignored(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("parent"))
        await agent.next_start("parent")
        hello = client_pb2.SessionRequest(hello=client_pb2.Hello(peer=local_peer(), client_id="e-1"))
        await agent.report(started("parent"), relay("e-1", "parent", hello), succeeded("parent"))
        await agent.until_acked()
        frame = client_pb2.ClientFrame(seq=1, operations=[submit("orphan")])
        await agent.report(relay("e-1", "parent", client_pb2.SessionRequest(frame=frame)))
        await agent.until_acked()
        tasks = (await client.stub.ListTasks(client_pb2.ListTasksRequest())).tasks
        assert "orphan" not in {task.task_id for task in tasks}


async def test_a_restart_keeps_results_and_runs_what_was_queued(tmp_path: Path) -> None:
    async with running(tmp_path, **STANDING) as cluster, cluster.client() as client:
        async with cluster.agent() as agent:
            await client.send(function(), submit("done", name="r", is_run=True), submit("queued"))
            await agent.next_start("done")
            await agent.report(started("done"), metrics("done", 1, step=3), succeeded("done"))
            await client.until_ready("done.0")
            await agent.next_start("queued")
        newest = client.welcome.event_seq
        token, first_machine = cluster.ready.token, agent.boot.machine_id
        client.break_stream()
    async with running(tmp_path, **STANDING) as cluster:
        assert cluster.ready.token == token
        async with cluster.client() as client:
            assert client.welcome.acked_seq == 1
            assert client.welcome.event_seq > newest
            resolve = client_pb2.RefList(object_ids=["done.0", "queued.0"])
            await client.send(client_pb2.Operation(resolve=resolve))
            assert inline(await client.until_ready("done.0")) == b"result"
            events = await client.watch(task_ids=["done"], until_done=True)
            assert [event.step for event in events if event.kind == client_pb2.EVENT_KIND_METRICS] == [3]
            async with cluster.agent() as agent:
                assert agent.boot.machine_id != first_machine
                start = await agent.next_start("queued")
                await agent.report(
                    started("queued", start.key.attempt), succeeded("queued", start.key.attempt, b"again")
                )
                assert inline(await client.until_ready("queued.0")) == b"again"


async def test_what_an_embedded_cluster_leaves(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        plain = Path(cluster.ready.state_dir)
        assert (plain / "cluster.json").stat().st_mode & 0o777 == 0o600
    assert not plain.exists()
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("t-1", name="r", is_run=True))
        await agent.next_start("t-1")
        await agent.report(started("t-1"), succeeded("t-1"))
        await client.until_ready("t-1.0")
        state_dir, store = Path(cluster.ready.state_dir), Path(client.welcome.store_path)
    assert (state_dir / "journal.db").exists()
    assert not store.exists()


async def test_a_machine_that_cannot_be_created_says_why(tmp_path: Path) -> None:
    async with running(tmp_path, machines=0) as cluster, cluster.client() as client:
        cluster.provider.machines_max = 0
        await client.stub.AddMachines(client_pb2.AddMachinesRequest(count=1))
        watch = client.stub.Watch(client_pb2.WatchRequest(kinds=[client_pb2.EVENT_KIND_MACHINE], follow=True))
        async with asyncio.timeout(WAIT_S):
            states: list[client_pb2.Event] = []
            async for reply in watch:
                states.extend(reply.events)
                if any(event.state == "boot_failed" for event in states):
                    break
        watch.cancel()
        failed = next(event for event in states if event.state == "boot_failed")
        assert "m-1" in failed.text


async def test_what_no_machine_can_hold_fails_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client:
        gpu = types_pb2.Resources(amounts={"GPU": UNIT})
        await client.send(function(), submit("t-1", resources=gpu))
        ready = await client.until_ready("t-1.0")
        failure = types_pb2.Failure.FromString(ready.failure)
        assert failure.kind == types_pb2.FAILURE_KIND_UNSCHEDULABLE
        assert "GPU" in failure.message


async def test_a_full_disk_refuses_submits_and_keeps_the_rest_going(tmp_path: Path) -> None:
    async with running(tmp_path, disk_reserve_bytes=1 << 62) as cluster, cluster.client() as client:
        await client.send(function(), submit("t-1"))
        ready = await client.until_ready("t-1.0")
        failure = types_pb2.Failure.FromString(ready.failure)
        assert failure.kind == types_pb2.FAILURE_KIND_STORE_FULL
        assert "disk is full" in failure.message
        await client.until_acked()


async def test_a_journal_that_cannot_be_written_ends_the_coordinator(tmp_path: Path) -> None:
    import sqlite3

    async with running(tmp_path) as cluster, cluster.client() as client:

        def fail(*_: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        cluster.coordinator._journal.commit = fail  # type: ignore[method-assign,assignment]
        await client.send(function(), submit("t-1"))
        async with asyncio.timeout(WAIT_S):
            await cluster.coordinator.wait_stopped()
        assert "disk is full" in cluster.coordinator.failure
        assert client.acked_seq == 0
        client.break_stream()
