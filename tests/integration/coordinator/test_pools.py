"""Pools through the whole coordinator: shortages, strict starts, machines that come with the work and go."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.pools import Pool
from runner.providers.fake import FakeProvider
from runner.rpc.gen import client_pb2
from tests.integration.coordinator import harness
from tests.integration.coordinator.harness import (
    WAIT_S,
    Agent,
    Client,
    Harness,
    function,
    running,
    started,
    submit,
    succeeded,
)


async def pool_of(client: Client) -> client_pb2.PoolInfo:
    status = await client.stub.GetStatus(client_pb2.GetStatusRequest())
    return status.pools[0]


async def until(client: Client, **wanted: int) -> client_pb2.PoolInfo:
    """Ask until the pool has these numbers."""
    async with asyncio.timeout(WAIT_S):
        while True:
            pool = await pool_of(client)
            if all(getattr(pool, name) == value for name, value in wanted.items()):
                return pool


async def names_at(cluster: Harness) -> list[str]:
    return [machine.name for machine in await cluster.provider.list(ClusterId(cluster.ready.cluster_id))]


async def test_fewer_places_than_machines_are_told_and_worked_with(tmp_path):
    async with (
        running(tmp_path, machines=3, room=2) as cluster,
        cluster.agent(),
        cluster.agent(),
        cluster.client() as client,
    ):
        pool = await until(client, ready=2, coming=0)
        assert "no capacity: all 2 machines exist" in pool.problem
        told: list[tuple[str, str]] = []
        async with asyncio.timeout(WAIT_S):
            while len(told) < 2:
                events = await client.watch(kinds=[client_pb2.EVENT_KIND_FLEET])
                told = [(event.name, event.text.partition(": ")[0]) for event in events]
        assert told == [
            ("", "3 machines are wanted; there is room for 2"),
            ("default", "3 machines are wanted, 2 can be had; going on with 2"),
        ]


async def test_a_strict_start_with_too_few_places_fails_and_destroys_what_there_was(tmp_path, monkeypatch):
    made: list[FakeProvider] = []

    def watched(*args: Any, **settings: Any) -> FakeProvider:
        made.append(FakeProvider(*args, **settings))
        return made[-1]

    monkeypatch.setattr(harness, "FakeProvider", watched)
    with pytest.raises(
        ProviderError, match=r"3 machines were asked for, and with strict=True all of them are needed; 0"
    ):
        async with running(tmp_path, machines=3, room=2, strict=True, boot_deadline_s=0.3):
            raise AssertionError("it must not serve")
    assert await made[0].logs(MachineId("m-1")), "there was one"
    assert made[0]._machines == {}


async def test_a_strict_start_does_not_wait_for_machines_that_were_removed(tmp_path, monkeypatch):
    settings: dict[str, Any] = {"cluster_id": "again", "embedded": False, "machines": 2}
    async with running(tmp_path, **settings) as cluster, cluster.client() as client:
        await client.stub.RemoveMachine(client_pb2.RemoveMachineRequest(machine_id="m-1"))
        assert (await pool_of(client)).max == 1
    agents: list[Agent] = []

    def coming_up(clock: Any, **_more: Any) -> FakeProvider:
        return FakeProvider(clock, boot=lambda boot: agents.append(Agent(boot)))

    async def register() -> None:
        while not agents:
            await asyncio.sleep(0)
        await agents[0].register()

    monkeypatch.setattr(harness, "FakeProvider", coming_up)
    registering = asyncio.ensure_future(register())
    async with running(tmp_path, **settings, strict=True, boot_deadline_s=WAIT_S):
        assert [agent.boot.machine_id for agent in agents] == ["m-3"]
    await registering


async def test_money_that_was_spent_before_a_restart_counts_from_its_first_machine_on(tmp_path, monkeypatch):
    prices = tmp_path / "prices.toml"
    prices.write_text('[fake]\nas_of = "2026-11-01"\nsizes.box = { hour = 1.0 }\n')
    monkeypatch.setenv("RUNNER_PRICES", str(prices))
    folder = tmp_path / "clusters" / "again"
    folder.mkdir(parents=True)
    ledger = {"open": {}, "gone": {"default": 5.0}, "unpriced_gone": 0}
    (folder / "costs.json").write_text(json.dumps({"spent": 5.0, "unpriced_machines": 0, "ledger": ledger}))
    pools = (Pool(min=2, max=2, num_cpus=1.0, size="box"),)
    settings: dict[str, Any] = {"cluster_id": "again", "embedded": False, "pools": pools}
    async with running(tmp_path, **settings, max_cost=5.0) as cluster, cluster.client() as client:
        pool = await pool_of(client)
        assert (pool.coming, pool.ready, pool.going) == (0, 0, 0)
        assert await names_at(cluster) == []


async def test_machines_come_with_the_work_and_go_without_it(tmp_path):
    pools = (Pool(min=0, max=2, idle_shutdown_s=0.2, num_cpus=1.0),)
    async with running(tmp_path, pools=pools) as cluster, cluster.client() as client:
        assert (await pool_of(client)).coming == 0
        await client.send(function(), submit("t-1"))
        async with cluster.agent() as agent:
            await agent.next_start("t-1")
            await until(client, ready=1, idle=0)
            await agent.report(started("t-1"), succeeded("t-1"))
            await client.until_ready("t-1.0")
            await until(client, ready=0, going=0, coming=0)
            assert await names_at(cluster) == []
