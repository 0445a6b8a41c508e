"""A coordinator that ends in the middle of a turn: what was decided and what readers see still tell one story."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from runner.rpc.gen import client_pb2
from tests.integration.coordinator.harness import (
    WAIT_S,
    Harness,
    function,
    metrics,
    running,
    started,
    submit,
    succeeded,
)

STANDING: dict[str, Any] = {"embedded": False, "cluster_id": f"crashes-{os.getpid()}"}
STATE, METRICS = client_pb2.EVENT_KIND_STATE, client_pb2.EVENT_KIND_METRICS


def crash(*_: object) -> None:
    raise sqlite3.OperationalError("the process ends here")


async def end_in_a_crash(tmp_path: Path, where: str) -> None:
    """Run t-1 up to its end; the turn that ends it gets no further than `where`."""
    async with running(tmp_path, **STANDING) as cluster, cluster.agent() as agent, cluster.client() as client:
        await client.send(function(), submit("t-1", name="r", is_run=True))
        await agent.next_start("t-1")
        await agent.report(started("t-1"), metrics("t-1", 1, step=1))
        await agent.until_acked()
        if where == "commit":
            cluster.coordinator._journal.commit = crash  # type: ignore[method-assign,assignment]
        else:
            cluster.coordinator.engine._performer.perform = crash  # type: ignore[method-assign]
        await agent.report(metrics("t-1", 2, step=2), succeeded("t-1"))
        async with asyncio.timeout(WAIT_S):
            await cluster.coordinator.wait_stopped()
        assert cluster.coordinator.failure
        client.break_stream()


async def told(cluster: Harness, client: Any) -> list[tuple[int, str | int]]:
    events = await client.watch(task_ids=["t-1"], until_done=True)
    return [
        (event.attempt, event.step if event.kind == METRICS else event.state)
        for event in events
        if event.kind == METRICS or (event.kind == STATE and event.state == "succeeded")
    ]


async def test_the_end_of_a_run_is_told_when_only_its_commit_was_done(tmp_path: Path) -> None:
    await end_in_a_crash(tmp_path, "perform")
    async with running(tmp_path, **STANDING) as cluster, cluster.client() as client:
        assert await told(cluster, client) == [(1, 1), (1, 2), (1, "succeeded")]


async def test_the_end_of_a_run_that_was_not_committed_is_not_told(tmp_path: Path) -> None:
    await end_in_a_crash(tmp_path, "commit")
    async with running(tmp_path, **STANDING) as cluster, cluster.agent() as agent, cluster.client() as client:
        await agent.next_start("t-1")
        await agent.report(started("t-1", 2), metrics("t-1", 1, step=2, attempt=2), succeeded("t-1", 2))
        assert await told(cluster, client) == [(1, 1), (2, 2), (2, "succeeded")]


async def test_one_callback_that_fails_does_not_keep_the_others_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as cluster:
        engine = cluster.coordinator.engine
        engine.after_commit(crash)
        async with asyncio.timeout(WAIT_S):
            await engine.committed()
    assert "callback" in caplog.text
