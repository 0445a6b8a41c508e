"""What a coordinator does with an agent that is suspended and comes back: an agent driven by hand, over the wire."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from runner.errors import AuthenticationError, ClusterError, RunnerError
from runner.providers.base import MachineSpec, MachineState
from runner.providers.fake import FakeProvider
from runner.rpc.channels import client_channel
from runner.rpc.gen import client_pb2, fleet_pb2, fleet_pb2_grpc
from runner.rpc.security import make_csr
from runner.rpc.status import from_rpc_error
from runner.rpc.version import local_peer
from tests.integration.coordinator.harness import WAIT_S, Agent, Client, running

EXECUTOR = "x-1"


def step(progress: fleet_pb2.SuspendProgress, snapshot: int = 1) -> fleet_pb2.ReportItem:
    return fleet_pb2.ReportItem(suspend_step=fleet_pb2.SuspendStep(snapshot=snapshot, progress=progress))


def awake(failure: str = "") -> fleet_pb2.ReportItem:
    return fleet_pb2.ReportItem(awake=fleet_pb2.Awake(snapshot=1, failure=failure))


def relay(request: client_pb2.SessionRequest) -> fleet_pb2.ReportItem:
    return fleet_pb2.ReportItem(relay=fleet_pb2.RelayFromExecutor(executor_id=EXECUTOR, request=request))


def hello() -> fleet_pb2.ReportItem:
    return relay(client_pb2.SessionRequest(hello=client_pb2.Hello(peer=local_peer(), client_id=EXECUTOR)))


def put(object_id: str, seq: int) -> fleet_pb2.ReportItem:
    operation = client_pb2.Operation(put=client_pb2.Put(object_id=object_id))
    operation.put.value.inline = b"value"
    return relay(client_pb2.SessionRequest(frame=client_pb2.ClientFrame(seq=seq, operations=[operation])))


async def suspend(client: Client) -> None:
    await client.stub.SuspendMachines(client_pb2.SuspendMachinesRequest())


async def asked(agent: Agent, action: fleet_pb2.SuspendAction) -> fleet_pb2.Suspend:
    """Wait for what the agent is told about the suspend."""

    def told() -> list[fleet_pb2.Suspend]:
        return [each.suspend for each in agent.commands if each.suspend.action == action]

    await agent.until(lambda: bool(told()))
    return told()[-1]


async def prepare(client: Client, agent: Agent) -> None:
    """The agent says that it is prepared, and hangs up."""
    await suspend(client)
    await asked(agent, fleet_pb2.SUSPEND_ACTION_QUIET)
    await agent.report(step(fleet_pb2.SUSPEND_PROGRESS_QUIET))
    assert (await asked(agent, fleet_pb2.SUSPEND_ACTION_PREPARE)).hooks_s == 10.0
    await agent.report(step(fleet_pb2.SUSPEND_PROGRESS_PREPARED))
    await agent.until_acked()
    await agent.close_streams()


async def register_again(agent: Agent, *, snapshot: int = 1, resumed: bool = True) -> fleet_pb2.RegisterReply:
    """One try, with the key that it has. Raises the coordinator's error."""
    request = agent.registration()
    request.resumed, request.snapshot = resumed, snapshot
    async with client_channel(agent.boot.coordinator_address, agent.boot.ca_pem) as channel:
        try:
            agent.reply = await fleet_pb2_grpc.JoinStub(channel).Register(request, timeout=WAIT_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "") from None
    agent.received_seq = agent._seq = agent.acked_report_seq = 0
    agent.commands.clear()
    return agent.reply


def new_key(agent: Agent) -> None:
    agent.key_pem, agent.csr_pem = make_csr(agent.boot.machine_id)


async def until_state(client: Client, state: str) -> client_pb2.MachineInfo:
    async with asyncio.timeout(WAIT_S):
        while True:
            (info,) = (await client.stub.ListMachines(client_pb2.ListMachinesRequest())).machines
            if info.state == state:
                return info


async def come_back(client: Client, agent: Agent) -> fleet_pb2.Wake:
    """From the suspend on: resumed, registered with a new key, streams open."""
    await until_state(client, "suspended")
    await client.stub.ResumeMachines(client_pb2.ResumeMachinesRequest())
    new_key(agent)
    reply = await register_again(agent)
    await agent.open_streams()
    return reply.wake


async def test_an_agent_asks_again_until_its_machine_is_resumed_and_is_a_new_generation_then(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client, cluster.agent() as agent:
        await client.stub.SetMachineConfig(client_pb2.SetMachineConfigRequest(config={"token": "fresh"}))
        await prepare(client, agent)
        new_key(agent)
        with pytest.raises(ClusterError, match="m-1 is being suspended; ask again") as caught:
            await register_again(agent)
        assert not isinstance(caught.value, AuthenticationError)
        await until_state(client, "suspended")
        with pytest.raises(ClusterError, match="ask again"):  # was under way when it was saved
            await register_again(agent)
        await client.stub.ResumeMachines(client_pb2.ResumeMachinesRequest())
        reply = await register_again(agent)
        wake = reply.wake
        assert (reply.generation, wake.kind, wake.snapshot) == (2, fleet_pb2.WAKE_KIND_RESUMED, 1)
        assert (dict(wake.config), wake.hooks_s, wake.sessions_over) == ({"token": "fresh"}, 10.0, False)
        first = reply.certificate_pem
        assert (await register_again(agent)).certificate_pem == first, "the same key gets the same answer"
        await agent.open_streams()
        await agent.report(awake())
        assert (await until_state(client, "ready")).generation == 2


async def test_the_machine_is_not_saved_before_its_agent_has_hung_up(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client, cluster.agent() as agent:
        await suspend(client)
        await asked(agent, fleet_pb2.SUSPEND_ACTION_QUIET)
        await agent.report(step(fleet_pb2.SUSPEND_PROGRESS_QUIET))
        await asked(agent, fleet_pb2.SUSPEND_ACTION_PREPARE)
        await agent.report(step(fleet_pb2.SUSPEND_PROGRESS_PREPARED))
        await agent.until_acked()
        assert (await until_state(client, "suspending")).sleep.startswith("runs its hooks")
        await agent.close_streams()
        await until_state(client, "suspended")


async def test_executors_go_on_with_their_sessions_and_get_what_had_not_reached_them(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client, cluster.agent() as agent:
        await agent.report(hello(), put("o-1", 1))
        await agent.until(lambda: any(each.relay.reply.frame.acked_seq == 1 for each in agent.commands))
        await prepare(client, agent)
        cluster.coordinator._links.relay(agent.boot.machine_id, EXECUTOR, client_pb2.SessionReply())  # type: ignore[arg-type]
        await come_back(client, agent)
        await agent.report(put("o-2", 2), awake())
        await agent.until(lambda: any(each.relay.reply.frame.acked_seq == 2 for each in agent.commands))
        assert agent.commands[0].relay.executor_id == EXECUTOR and not agent.commands[0].relay.reply.HasField("frame")
        assert cluster.coordinator.cluster.object_state("o-1") == "ready"  # type: ignore[arg-type]  # still held
        await agent.report(fleet_pb2.ReportItem(executor_gone=fleet_pb2.ExecutorGone(executor_id=EXECUTOR)))
        await agent.until_acked()
        assert cluster.coordinator.cluster.object_state("o-1") != "ready"  # type: ignore[arg-type]


async def test_nobody_speaks_for_a_machine_in_the_name_of_an_older_generation(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client, cluster.agent() as agent:
        await prepare(client, agent)
        old = Agent(agent.boot)
        old.key_pem, old.reply = agent.key_pem, fleet_pb2.RegisterReply()
        old.reply.CopyFrom(agent.reply)
        await come_back(client, agent)
        await old.open_streams()
        await old.report(awake())
        assert "generation 1" in await old.refusal()
        await old.close()
        assert (await until_state(client, "resuming")).generation == 2


@pytest.mark.parametrize(("snapshot", "resumed"), [(2, True), (0, False)])
async def test_another_memory_than_the_one_that_was_saved_is_not_resumed(
    tmp_path: Path, snapshot: int, resumed: bool
) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client, cluster.agent() as agent:
        await prepare(client, agent)
        await until_state(client, "suspended")
        await client.stub.ResumeMachines(client_pb2.ResumeMachinesRequest())
        new_key(agent)
        if resumed:
            with pytest.raises(AuthenticationError):
                await register_again(agent, snapshot=snapshot)
            return
        # The provider has started it cold: a new agent on the same machine.
        reply = await register_again(agent, resumed=False)
        assert (reply.generation, reply.wake.kind, reply.wake.snapshot) == (2, fleet_pb2.WAKE_KIND_COLD, 1)
        await agent.open_streams()


async def test_a_machine_whose_suspend_failed_is_taken_back_as_it_is(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client, cluster.agent() as agent:
        cluster.provider.can_suspend = False  # after it was asked whether it can
        with pytest.raises((grpc.aio.AioRpcError, RunnerError)):
            await suspend(client)
        cluster.provider.can_suspend = True
        await suspend(client)
        await asked(agent, fleet_pb2.SUSPEND_ACTION_QUIET)
        cluster.provider.can_suspend = False
        await agent.report(step(fleet_pb2.SUSPEND_PROGRESS_QUIET))
        await asked(agent, fleet_pb2.SUSPEND_ACTION_PREPARE)
        await agent.report(step(fleet_pb2.SUSPEND_PROGRESS_PREPARED))
        await agent.until_acked()
        await agent.close_streams()
        new_key(agent)
        reply = await asks_until_taken_back(agent)
        assert (reply.generation, reply.wake.kind) == (2, fleet_pb2.WAKE_KIND_CANCELLED)
        await agent.open_streams()
        await agent.report(awake())
        await until_state(client, "ready")


async def asks_until_taken_back(agent: Agent) -> fleet_pb2.RegisterReply:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await register_again(agent)
            except ClusterError:
                pass


async def test_after_a_restart_of_the_coordinator_a_sleeper_comes_back_with_its_token_and_without_its_sessions(
    tmp_path: Path,
) -> None:
    settings: dict[str, Any] = {"embedded": False, "cluster_id": "sleeps", "token": "t"}
    async with running(tmp_path, **settings) as first, first.client() as client, first.agent() as agent:
        await prepare(client, agent)
        await until_state(client, "suspended")
    shape = agent.boot.shape()

    def sleeps_there(provider: FakeProvider) -> None:
        provider.put_orphan(MachineSpec(agent.boot.cluster_id, agent.boot.machine_id, shape, agent.boot))
        provider._move(provider._machines[agent.boot.machine_id], MachineState.SUSPENDED, "suspended")

    async with running(tmp_path, **settings, prepare=sleeps_there) as second, second.client() as client:
        # It finds its coordinator where that is now; its token is the one that it was booted with.
        agent.boot = replace(agent.boot, coordinator_address=second.ready.address)
        wake = await come_back(client, agent)
        assert (wake.kind, wake.sessions_over) == (fleet_pb2.WAKE_KIND_RESUMED, True)
        await agent.report(awake())
        await until_state(client, "ready")
        await agent.close()
    assert (tmp_path / "clusters" / "sleeps" / "join-key").stat().st_mode & 0o777 == 0o600
