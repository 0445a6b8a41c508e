"""Suspends and resumes through the whole coordinator. The machines are fake; what their agents would say is told to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from runner.core import events
from runner.core.suspend_events import AgentAwoke, AgentIsQuiet, AgentPrepared, AgentRefused
from runner.core.values import CPU, UNIT, make_shape
from runner.ids import ClusterId, MachineId
from runner.pools import Pool
from runner.providers.base import BootConfig, MachineSpec, MachineState
from runner.providers.fake import FakeProvider, ProviderFaults
from runner.rpc.gen import client_pb2
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

ONE = make_shape({CPU: UNIT})
Info = client_pb2.MachineInfo


async def machine(client: Client, index: int = 0) -> Info:
    reply = await client.stub.ListMachines(client_pb2.ListMachinesRequest())
    return reply.machines[index]


async def until(client: Client, state: str, sleep: str = "", index: int = 0) -> Info:
    """Ask until the machine is in this state and stage."""
    info = Info()
    async with asyncio.timeout(WAIT_S):
        while info.state != state or not info.sleep.startswith(sleep):
            info = await machine(client, index)
    return info


async def suspend(client: Client, *machine_ids: str, interrupts: bool = False) -> list[str]:
    request = client_pb2.SuspendMachinesRequest(machine_ids=machine_ids, interrupts=interrupts)
    return list((await client.stub.SuspendMachines(request)).machine_ids)


async def resume(client: Client, *machine_ids: str) -> list[str]:
    request = client_pb2.ResumeMachinesRequest(machine_ids=machine_ids)
    return list((await client.stub.ResumeMachines(request)).machine_ids)


def gets_ready(cluster: Harness, info: Info) -> None:
    """Its agent says that nothing runs, and when it is asked to prepare, that it has."""
    key = (MachineId(info.machine_id), info.generation, info.snapshot)
    cluster.coordinator.engine.post(AgentIsQuiet(*key))
    cluster.coordinator.engine.post(AgentPrepared(*key))


def comes_back(cluster: Harness, info: Info, failure: str = "") -> None:
    """Its agent registers with the memory that was saved, and its hooks run."""
    machine_id = MachineId(info.machine_id)
    post = cluster.coordinator.engine.post
    post(events.MachineRegistered(machine_id, "again", ONE, "h", snapshot=info.snapshot))
    post(AgentAwoke(machine_id, info.generation + 1, info.snapshot, failure))


async def falls_asleep(cluster: Harness, client: Client) -> Info:
    """The only machine is suspended by request."""
    assert await suspend(client) == ["m-1"]
    gets_ready(cluster, await machine(client))
    return await until(client, "suspended")


@asynccontextmanager
async def one_ready(home: Path, **settings: Any) -> AsyncIterator[tuple[Harness, Agent, Client]]:
    async with running(home, **settings) as cluster, cluster.agent() as agent, cluster.client() as client:
        await until(client, "ready")
        yield cluster, agent, client


async def states_told(client: Client) -> list[tuple[str, str]]:
    told = await client.watch(kinds=[client_pb2.EVENT_KIND_MACHINE])
    return [(event.state, event.text) for event in told if event.state not in {"requested", "creating", "booting"}]


async def test_a_machine_sleeps_and_wakes_and_everybody_sees_how_far_it_is(tmp_path: Path) -> None:
    async with one_ready(tmp_path) as (cluster, _agent, client):
        assert await suspend(client, "m-1") == ["m-1"]
        info = await machine(client)
        assert (info.state, info.sleep, info.snapshot) == ("suspending", "waits for its agent", 1)
        gets_ready(cluster, info)
        info = await until(client, "suspended")
        assert (info.sleep, info.wake) == ("", "")
        assert info.slept_s > 0
        assert (await machine(client)).slept_s > info.slept_s, "it goes on"
        status = await client.stub.GetStatus(client_pb2.GetStatusRequest())
        assert dict(status.machines_by_state) == {"suspended": 1}
        assert (status.pools[0].asleep, status.pools[0].ready, status.pools[0].going) == (1, 0, 0)
        assert await resume(client) == ["m-1"]
        assert (await cluster.next_boot()).machine_id == "m-1"
        info = await until(client, "resuming", "starts, waits for its agent")
        slept_s = info.slept_s
        comes_back(cluster, info)
        info = await until(client, "ready")
        assert (info.generation, info.wake, info.slept_s) == (2, "resumed", slept_s)
        states = [state for state, _ in await states_told(client)]
        assert list(dict.fromkeys(states)) == ["ready", "suspending", "suspended", "resuming"]
        assert states[-1] == "ready"


async def test_two_callers_at_once_and_repeats_are_one_suspend_and_one_resume(tmp_path: Path) -> None:
    async with one_ready(tmp_path) as (cluster, _agent, client), cluster.client("c-2") as other:
        asked = await asyncio.gather(suspend(client), suspend(other, "m-1"), suspend(client, "m-1", "m-1"))
        assert sorted(map(len, asked)) in ([0, 1, 1], [1, 1, 1]), "all means what is ready now"
        info = await machine(client)
        assert info.snapshot == 1
        gets_ready(cluster, info)
        await until(client, "suspended")
        assert await suspend(client, "m-1") == ["m-1"]
        assert await asyncio.gather(resume(client, "m-1"), resume(other, "m-1")) == [["m-1"], ["m-1"]]
        comes_back(cluster, await until(client, "resuming"))
        info = await until(client, "ready")
        assert info.generation == 2
        assert cluster.boots.qsize() == 1, "it was started once"


async def test_a_suspend_waits_for_what_runs_and_says_for_what(tmp_path: Path) -> None:
    async with one_ready(tmp_path) as (cluster, agent, client):
        await client.send(function(), submit("t-1", name="fit"))
        await agent.next_start("t-1")
        await agent.report(started("t-1"))
        await agent.until_acked()
        await suspend(client)
        info = await machine(client)
        assert (info.state, info.sleep) == ("suspending", "waits for task t-1 (fit) to end")
        await agent.until(lambda: agent.commands[-1].HasField("suspend"))
        assert not agent.commands[-1].suspend.interrupts
        await agent.report(succeeded("t-1"))
        await client.until_ready("t-1.0")
        gets_ready(cluster, await machine(client))
        await until(client, "suspended")


async def test_now_is_passed_on_to_the_agent(tmp_path: Path) -> None:
    async with one_ready(tmp_path) as (_cluster, agent, client):
        await suspend(client, interrupts=True)
        await agent.until(lambda: any(each.HasField("suspend") for each in agent.commands))
        assert agent.commands[-1].suspend.interrupts


async def test_a_resume_before_it_sleeps_calls_the_suspend_off(tmp_path: Path) -> None:
    async with one_ready(tmp_path) as (_cluster, _agent, client):
        await suspend(client)
        assert await resume(client) == ["m-1"]
        info = await until(client, "ready")
        assert (info.reason, info.generation, info.slept_s) == ("called off: asked for", 1, 0.0)


async def test_an_agent_that_cannot_is_left_as_it_was_and_says_why(tmp_path: Path) -> None:
    async with one_ready(tmp_path) as (cluster, _agent, client):
        await suspend(client)
        cluster.coordinator.engine.post(AgentRefused(MachineId("m-1"), 1, 1, "hook flush raised OSError"))
        info = await until(client, "ready")
        assert info.reason == "it could not be suspended: hook flush raised OSError"


@pytest.mark.parametrize("fault", [ProviderFaults(resume_fails=1.0), ProviderFaults(resume_hangs=1.0)])
async def test_a_machine_that_the_provider_cannot_resume_boots_cold_and_says_why(
    tmp_path: Path, fault: ProviderFaults
) -> None:
    async with one_ready(tmp_path) as (cluster, agent, client):
        await falls_asleep(cluster, client)
        cluster.provider.faults = fault
        await resume(client)
        if fault.resume_hangs:
            # What waits for the provider is ended by what its agent says instead.
            info = await until(client, "resuming")
            comes_back(cluster, info, failure="hook reconnect took more than 30 s")
        info = await until(client, "booting")
        async with cluster.agent(await cluster.next_boot()) as again:
            info = await until(client, "ready")
            assert (info.wake, info.generation) == ("cold", again.reply.generation)
            assert again.reply.generation > agent.reply.generation
            assert ("reconnect" if fault.resume_hangs else "refused it") in info.reason


async def test_one_that_is_removed_while_it_is_saved_is_not_waited_for(tmp_path: Path) -> None:
    async with one_ready(tmp_path) as (cluster, _agent, client):
        cluster.provider.suspend_s = 3600.0
        await suspend(client)
        gets_ready(cluster, await machine(client))
        await until(client, "suspending", "is being saved")
        await client.stub.RemoveMachine(client_pb2.RemoveMachineRequest(machine_id="m-1"))
        await until(client, "destroyed")
        assert not cluster.coordinator._sleepers._works


async def test_a_suspended_machine_that_is_gone_is_replaced(tmp_path: Path) -> None:
    async with one_ready(tmp_path) as (cluster, _agent, client):
        await falls_asleep(cluster, client)
        cluster.provider.end_machine(MachineId("m-1"), "updated from outside")
        boot = await cluster.next_boot()
        assert boot.machine_id != "m-1"
        info = await until(client, "destroyed")
        assert info.reason == "updated from outside"


async def test_one_that_sleeps_too_long_is_destroyed(tmp_path: Path) -> None:
    pools = (Pool(min=0, start=1, max=1, num_cpus=1, max_suspended_s=0.1, idle_shutdown_s=60),)
    async with one_ready(tmp_path, pools=pools) as (cluster, _agent, client):
        await suspend(client)
        gets_ready(cluster, await machine(client))
        info = await until(client, "destroyed")
        assert info.reason == "it has slept for max_suspended_s"
        assert await cluster.provider.list(ClusterId(cluster.ready.cluster_id)) == ()


async def test_an_idle_machine_sleeps_and_work_wakes_it(tmp_path: Path) -> None:
    pools = (Pool(min=1, max=1, num_cpus=1, idle="suspend", idle_shutdown_s=0.05),)
    async with one_ready(tmp_path, pools=pools) as (cluster, _agent, client):
        gets_ready(cluster, await until(client, "suspending"))
        await until(client, "suspended")
        await client.send(function(), submit("t-1"))
        info = await until(client, "resuming")
        assert info.reason == "work waits"
        assert cluster.boots.qsize() == 1, "nothing else is booted for it"
        comes_back(cluster, info)
        assert (await until(client, "ready")).wake == "resumed"
        (task,) = (await client.stub.ListTasks(client_pb2.ListTasksRequest(task_id="t-1"))).tasks
        assert (task.state, task.machine_id) == ("assigned", "m-1")


async def test_what_cannot_be_suspended_is_refused_over_the_wire(tmp_path: Path) -> None:
    async with one_ready(tmp_path) as (cluster, _agent, client):
        with pytest.raises(grpc.aio.AioRpcError, match="there is no machine 'm-9'"):
            await suspend(client, "m-1", "m-9")
        cluster.provider.can_suspend = False
        with pytest.raises(grpc.aio.AioRpcError, match="switched off for this test"):
            await suspend(client)
        assert (await machine(client)).state == "ready"


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_machine_sleeps_on_through_a_restart_of_its_coordinator(tmp_path: Path, is_there: bool) -> None:
    async with one_ready(tmp_path, embedded=False) as (cluster, _agent, client):
        cluster_id = ClusterId(cluster.ready.cluster_id)
        await falls_asleep(cluster, client)

    def sleeps_at(provider: FakeProvider) -> None:
        if is_there:
            boot = BootConfig("127.0.0.1:9", b"", "token", MachineId("m-1"), cluster_id)
            provider.put_orphan(MachineSpec(cluster_id, MachineId("m-1"), ONE, boot))
            found = provider._machines[MachineId("m-1")]
            provider._move(found, MachineState.SUSPENDED, "suspended")

    async with (
        running(tmp_path, embedded=False, cluster_id=str(cluster_id), prepare=sleeps_at) as cluster,
        cluster.client() as client,
    ):
        if not is_there:
            info = await until(client, "destroyed")
            assert info.reason == "it was suspended, and after a restart of the coordinator it is gone"
            return
        await cluster.coordinator.engine.committed()
        await cluster.coordinator._fleet.sweep()
        assert cluster.coordinator._fleet.boot(MachineId("m-1")) is not None, "to the sweeper it is no orphan"
        assert (await machine(client)).state == "suspended"
        assert [each.name for each in await cluster.provider.list(cluster_id)] == ["m-1"]
        assert await resume(client, "m-1") == ["m-1"]
        comes_back(cluster, await until(client, "resuming"))
        assert (await until(client, "ready")).wake == "resumed"
