"""An agent that has hung up for a suspend: it asks to be taken back, and knows when nobody will."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.clock import SystemClock
from runner.errors import AuthenticationError, CoordinatorUnreachableError
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig
from runner.rpc.gen import client_pb2
from runner.worker.agent import registration
from runner.worker.agent.registration import Registration
from tests.integration.coordinator.harness import running
from tests.integration.coordinator.test_suspend_agent import until_state
from tests.integration.helpers import until
from tests.integration.worker.test_drain import worker

WAIT_S = 20.0
NOBODY = "127.0.0.1:1"


class JumpingClock(SystemClock):
    """Each look is a long sleep later. Counts the looks."""

    def __init__(self) -> None:
        self.looks = 0

    def boottime_s(self) -> float:
        self.looks += 1
        return self.looks * 1e6


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "ASK_PAUSE_S", (0.001, 0.002))


def boot(**fields: float) -> BootConfig:
    return BootConfig(NOBODY, b"", "token", MachineId("m-1"), ClusterId("c"), **fields)  # type: ignore[arg-type]


async def test_only_time_in_which_it_could_ask_counts() -> None:
    clock = JumpingClock()
    with pytest.raises(CoordinatorUnreachableError):
        await Registration(boot(destroy_after_s=5.0), clock).again(1, is_leased=True)
    # Each try looks at the clock twice, and counts as 1 s, 1.5 s, 2.25 s, ... at most, however long the machine slept.
    assert clock.looks == 2 * 4


async def test_without_a_lease_it_asks_for_as_long_as_it_lives() -> None:
    clock = JumpingClock()
    asking = asyncio.create_task(Registration(boot(destroy_after_s=0.1), clock).again(1, is_leased=False))
    await until(lambda: clock.looks > 20, WAIT_S, "many tries")
    assert not asking.done()
    asking.cancel()


async def test_it_asks_with_a_new_key_and_ends_when_it_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as cluster, cluster.agent() as agent:
        other = Registration(replace(agent.boot, join_token="another"), SystemClock())
        with pytest.raises(AuthenticationError):
            await other.again(1, is_leased=True)
        assert other.key_pem not in (b"", agent.key_pem)


@pytest.mark.long
async def test_an_agent_whose_coordinator_is_gone_while_it_is_away_ends(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"embedded": False, "cluster_id": f"away-{os.getpid()}"}
    async with AsyncExitStack() as stack:
        async with running(tmp_path, **settings, destroy_after_s=2.0) as cluster, cluster.client() as client:
            process = await stack.enter_async_context(worker(await cluster.next_boot()))
            await until_state(client, "ready")
            await client.stub.SuspendMachines(client_pb2.SuspendMachinesRequest())
            # This provider saves nothing: the agent has hung up, and asks.
            await until_state(client, "suspended")
        async with asyncio.timeout(WAIT_S):
            assert await process.wait() == 0
