"""A message holds 4 MiB: what agents and clients of any kind send must not make a larger one for somebody else."""

from __future__ import annotations

from pathlib import Path

from runner.rpc.gen import client_pb2, fleet_pb2, types_pb2
from tests.integration.coordinator.harness import function, key, running, started, submit, succeeded

TASKS = 8


def failed(task_id: str, size_bytes: int) -> fleet_pb2.ReportItem:
    failure = types_pb2.Failure(
        kind=types_pb2.FAILURE_KIND_USER, message="it is large", exception=b"x" * size_bytes, exception_type="Large"
    )
    return fleet_pb2.ReportItem(ended=fleet_pb2.AttemptEnded(key=key(task_id), failure=failure, executor_id="e-1"))


async def test_a_task_that_no_assignment_holds_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        refs = [f"t-none-{index:05}.0" for index in range(100_000)]
        await client.send(function(), submit("t-1", dependencies=refs), submit("t-2"))
        ready = await client.until_ready("t-1.0")
        failure = types_pb2.Failure.FromString(ready.failure)
        assert failure.kind == types_pb2.FAILURE_KIND_SETUP
        assert "the limit is" in failure.message and failure.task_id == "t-1"
        await agent.next_start("t-2")
        await agent.report(started("t-2"), succeeded("t-2"))
        assert (await client.until_ready("t-2.0")).value


async def test_a_failure_that_no_message_holds_is_told_without_its_exception(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("t-1"))
        await agent.next_start("t-1")
        await agent.report(started("t-1"), failed("t-1", 4_000_000))
        failure = types_pb2.Failure.FromString((await client.until_ready("t-1.0")).failure)
        assert failure.message.startswith("it is large [")
        assert (failure.task_id, failure.exception) == ("t-1", b"")


async def test_many_large_failures_travel_in_several_messages(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent, cluster.client() as client:
        names = [f"t-{index}" for index in range(TASKS)]
        await client.send(function(), *(submit(name) for name in names))
        for name in names:
            await agent.next_start(name)
            await agent.report(started(name), failed(name, 900_000))
        for name in names:
            assert (await client.until_ready(f"{name}.0")).failure
        # Ends of plain tasks are told from the core's record, all at the end of a watch.
        events = await client.watch(task_ids=names, until_done=True)
        assert sorted(event.task_id for event in events if event.HasField("failure")) == sorted(names)
        page = await client.stub.ListTasks(client_pb2.ListTasksRequest())
        assert [task.failure.message for task in page.tasks] == ["it is large"] * TASKS
