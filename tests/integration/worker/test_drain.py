"""SIGTERM to a machine that is a process of its own: nothing is lost and nothing is charged."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import cloudpickle
import msgpack
import pytest

from runner.objects.serialization import serialize
from runner.providers.base import BootConfig
from runner.rpc.gen import client_pb2, types_pb2
from tests.integration.coordinator.harness import Client, inline, running, started, submit, succeeded

cloudpickle.register_pickle_by_value(sys.modules[__name__])

WAIT_S = 20.0


def work() -> None:
    print("begun", flush=True)
    threading.Event().wait()


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("begun", flush=True)
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            continue


def function(body: object) -> client_pb2.Operation:
    blob = serialize(body).to_bytes()
    return client_pb2.Operation(register_function=types_pb2.Function(function_id="f-1", name="work", blob=blob))


@asynccontextmanager
async def worker(boot: BootConfig) -> AsyncIterator[asyncio.subprocess.Process]:
    packed = base64.b64encode(msgpack.packb(boot.to_dict())).decode()
    command = [sys.executable, "-m", "runner.cli", "worker"]
    process = await asyncio.create_subprocess_exec(*command, env={**os.environ, "RUNNER_BOOT": packed})
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(client: Client, kind: int, wanted: str) -> list[client_pb2.Event]:
    """Follow events until one has this text or state; returns all up to it."""
    seen: list[client_pb2.Event] = []
    request = client_pb2.WatchRequest(kinds=[kind], follow=True)  # type: ignore[list-item]
    watch = client.stub.Watch(request)
    async with asyncio.timeout(WAIT_S):
        async for reply in watch:
            seen.extend(reply.events)
            if any(wanted in (event.text, event.state) for event in seen):
                break
    watch.cancel()
    return seen


async def goes_on_elsewhere(tmp_path: Path, body: object) -> None:
    arguments = types_pb2.Value(inline=serialize(((), {})).to_bytes())
    async with (
        running(tmp_path, embedded=False, cluster_id=f"drain-{os.getpid()}") as cluster,
        cluster.client() as client,
    ):
        async with worker(await cluster.next_boot()) as process:
            tasks = [submit(name, args=arguments, max_retries=0) for name in ("running", "queued")]
            await client.send(function(body), *tasks)
            await until(client, client_pb2.EVENT_KIND_LOG, "begun")
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(WAIT_S):
                assert await process.wait() == 0
        states = [event.state for event in await until(client, client_pb2.EVENT_KIND_MACHINE, "destroyed")]
        assert "draining" in states
        assert "lost" not in states
        async with cluster.agent() as agent:
            for name in ("running", "queued"):
                attempt = (await agent.next_start(name)).key.attempt
                await agent.report(started(name, attempt), succeeded(name, attempt))
                assert inline(await client.until_ready(f"{name}.0")) == b"result"


async def test_what_runs_is_interrupted_and_goes_on_elsewhere(tmp_path: Path) -> None:
    await goes_on_elsewhere(tmp_path, work)


@pytest.mark.long
async def test_what_does_not_heed_the_interrupt_is_killed_and_goes_on_elsewhere(tmp_path: Path) -> None:
    await goes_on_elsewhere(tmp_path, stubborn)
