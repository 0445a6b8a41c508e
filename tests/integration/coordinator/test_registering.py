"""Registering when the world is not as it should be: the reply is lost, the machine's clock is wrong."""

from __future__ import annotations

import datetime
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from runner.coordinator.fleet_service import JoinService
from runner.flysim import FlySim
from runner.rpc.gen import client_pb2, fleet_pb2
from tests.integration.coordinator.harness import Agent, running
from tests.integration.flysim.conftest import AT_ONCE
from tests.integration.flysim.test_agents import config_of, create, until_listed
from tests.integration.helpers import until

pytestmark = pytest.mark.integration
HOUR_S = 3600.0


async def test_a_register_whose_reply_is_lost_is_asked_again_and_gets_the_same_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = JoinService.Register
    replies: list[fleet_pb2.RegisterReply] = []

    async def lossy(self: JoinService, request: fleet_pb2.RegisterRequest, context: Any) -> fleet_pb2.RegisterReply:
        replies.append(await plain(self, request, context))
        if len(replies) == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the connection broke")
        return replies[-1]

    monkeypatch.setattr(JoinService, "Register", lossy)
    with FlySim(rate_limit=False, **AT_ONCE) as sim:
        async with running(tmp_path) as cluster:
            boot = await cluster.next_boot()
            await create(sim, boot.machine_id, config_of(boot))
            await until_listed(cluster, **{boot.machine_id: "ready"})
            await until(lambda: len(replies) == 2, 10.0, "a second try")
            assert replies == [replies[0], replies[0]]
            assert replies[0].generation == 1
            assert cluster.coordinator.cluster.generation_of(boot.machine_id) == 1


@pytest.mark.parametrize("ahead_s", [12 * HOUR_S, -12 * HOUR_S])
async def test_a_machine_whose_clock_is_half_a_day_wrong_registers_with_phases_set_right(
    tmp_path: Path, ahead_s: float
) -> None:
    async with running(tmp_path) as cluster, cluster.client() as client:
        agent = Agent(await cluster.next_boot())
        request = agent.registration()
        request.sent_unix_s = time.time() + ahead_s
        request.phases["agent_up"] = request.sent_unix_s - 0.1
        agent.registration = lambda: request  # type: ignore[method-assign]
        reply = await agent.register()

        (machine,) = (await client.stub.ListMachines(client_pb2.ListMachinesRequest())).machines
        assert 0 <= machine.phases["agent_up"] <= machine.phases["registered"] < 10
        shows = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=ahead_s)
        for pem in (reply.certificate_pem, agent.boot.ca_pem):
            certificate = x509.load_pem_x509_certificate(pem)
            assert certificate.not_valid_before_utc < shows < certificate.not_valid_after_utc
