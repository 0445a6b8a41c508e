"""The whole path over real gRPC and TLS, with an agent driven by hand."""

from __future__ import annotations

from pathlib import Path

from runner.rpc.gen import client_pb2, types_pb2
from runner.rpc.version import host_id
from tests.integration.coordinator.harness import (
    function,
    inline,
    lines,
    metrics,
    running,
    started,
    submit,
    succeeded,
)


async def test_submit_assign_report_ready(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("t-1"))
        start = await agent.next_start("t-1")
        assert start.key.attempt == 1
        kinds = [command.WhichOneof("command") for command in agent.commands]
        assert kinds == ["function", "start"]
        await agent.report(started("t-1"), succeeded("t-1"))
        assert inline(await client.until_ready("t-1.0")) == b"result"
        await agent.until_acked()
        await client.until_acked()


async def test_resent_frames_are_no_ops(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("t-1"))
        await client.until_acked()
        client.break_stream()
        await client.connect()
        assert client.welcome.acked_seq == 1
        await client.send(function(), submit("t-1"), seq=1)
        await client.send(submit("t-2"), seq=2)
        await agent.next_start("t-1")
        await agent.report(started("t-1"), succeeded("t-1"))
        await agent.next_start("t-2")
        starts = [command.start.key.task_id for command in agent.commands if command.HasField("start")]
        assert starts == ["t-1", "t-2"]


async def test_repeated_report_items_count_once(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("t-1", name="run", is_run=True))
        await agent.next_start("t-1")
        await agent.report(started("t-1"), metrics("t-1", 1, step=0))
        await agent.report(started("t-1"), metrics("t-1", 1, step=0), metrics("t-1", 2, step=1), first_seq=1)
        await agent.report(succeeded("t-1"))
        events = await client.watch(task_ids=["t-1"], until_done=True)
        steps = [event.step for event in events if event.kind == client_pb2.EVENT_KIND_METRICS]
        assert steps == [0, 1]


async def test_commands_lost_in_a_broken_stream_are_sent_again(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("t-1"))
        # As if the frame had been lost on the way: it is read, but never confirmed.
        await agent.until(lambda: any(command.HasField("start") for command in agent.commands), confirm=False)
        await agent.close_streams()
        agent.commands.clear()
        await agent.open_streams()
        start = await agent.next_start("t-1")
        assert start.key.attempt == 1
        # Confirmed: it does not come a third time.
        await agent.report(started("t-1"))
        await agent.until_acked()
        await agent.close_streams()
        agent.commands.clear()
        await agent.open_streams()
        await agent.report(succeeded("t-1"))
        await client.until_ready("t-1.0")
        await agent.until_acked()
        assert not any(command.HasField("start") for command in agent.commands)


async def test_a_put_value_reaches_another_client_and_the_task(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        value = client_pb2.Put(object_id="o-1")
        value.value.inline = b"data"
        spec = submit("t-1", dependencies=["o-1"])
        await client.send(function(), client_pb2.Operation(put=value), spec)
        start = await agent.next_start("t-1")
        assert inline(start.dependencies[0]) == b"data"
        async with cluster.client("c-2") as other:
            await other.send(client_pb2.Operation(resolve=client_pb2.RefList(object_ids=["o-1"])))
            assert inline(await other.until_ready("o-1")) == b"data"


async def test_events_of_a_run_in_order(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("t-1", name="lr=1", is_run=True))
        await agent.next_start("t-1")
        await agent.report(
            started("t-1"),
            metrics("t-1", 1, step=0),
            lines("t-1", 2, "hello"),
            metrics("t-1", 3, step=1),
            succeeded("t-1"),
        )
        events = await client.watch(task_ids=["t-1"], until_done=True)
        assert [event.seq for event in events] == sorted({event.seq for event in events})
        assert {event.name for event in events} == {"lr=1"}
        shown = [
            event.state or event.text or (client_pb2.EventKind.Name(event.kind)[11:], event.step)
            for event in events
            if event.state not in {"waiting", "queued", "assigned"}
        ]
        assert shown == ["running", ("ATTEMPT", -1), ("METRICS", 0), "hello", ("METRICS", 1), "succeeded"]
        # A late reader goes on from any number.
        rest = await client.watch(task_ids=["t-1"], from_seq=events[-2].seq, until_done=True)
        assert [event.seq for event in rest] == [event.seq for event in events[-2:]]


async def test_events_of_a_plain_task_are_announced_with_its_first_item(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("t-1"))
        await agent.next_start("t-1")
        await agent.report(started("t-1"), lines("t-1", 1, "out"), succeeded("t-1"))
        await client.until_ready("t-1.0")
        events = await client.watch(task_ids=["t-1"], until_done=True)
        kinds = [client_pb2.EventKind.Name(event.kind)[11:] for event in events]
        assert kinds == ["ATTEMPT", "LOG", "STATE"]
        assert events[-1].state == "succeeded"


async def test_a_watch_that_overtakes_its_submit_waits_for_it(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        call = client.stub.Watch(client_pb2.WatchRequest(task_ids=["t-1"], until_done=True))
        await client.send(function(), submit("t-1"))
        await agent.next_start("t-1")
        await agent.report(started("t-1"), metrics("t-1", 1, step=7), succeeded("t-1"))
        seen = [event async for reply in call for event in reply.events]
        assert [event.step for event in seen if event.kind == client_pb2.EVENT_KIND_METRICS] == [7]
        assert seen[-1].state == "succeeded"


async def test_a_put_that_is_refused_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client:
        cluster.coordinator._journal.has_room = lambda: False  # type: ignore[method-assign]
        segment = Path(client.welcome.store_path) / "o-1-ab"
        segment.touch()
        value = types_pb2.Value(segment=types_pb2.Segment(host_id=host_id(), path=str(segment), size_bytes=1))
        await client.send(client_pb2.Operation(put=client_pb2.Put(object_id="o-1", value=value)))
        ready = await client.until_ready("o-1")
        assert types_pb2.Failure.FromString(ready.failure).kind == types_pb2.FAILURE_KIND_STORE_FULL
        assert not segment.exists()
