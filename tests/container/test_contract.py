"""The contract suite of all providers, on containers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import docker
import pytest

from runner.ids import ClusterId, MachineId, random_id
from runner.providers.base import Provider
from runner.providers.container.provider import ContainerProvider
from tests.contract.providers.test_contract import *  # noqa: F403  the tests; `harness` is ours


class ContainerHarness:
    def __init__(self, client: docker.APIClient, make: Callable[..., ContainerProvider]) -> None:
        self.cluster_id = ClusterId(random_id("c"))
        self.client = client
        self.made = make(self.cluster_id)
        self.provider: Provider = self.made

    async def end_machine(self, name: MachineId) -> None:
        await asyncio.to_thread(self.client.kill, f"runner-{self.cluster_id}-{name}", "SIGKILL")

    def running(self, name: MachineId) -> int:
        try:
            state = self.client.inspect_container(f"runner-{self.cluster_id}-{name}")["State"]
        except docker.errors.APIError:
            return 0
        return int(state["Running"] and not state["Paused"])

    def left_over(self) -> list[str]:
        filters = {"label": f"runner.cluster={self.cluster_id}"}
        found: list[dict[str, Any]] = self.client.containers(all=True, filters=filters)
        return [str(each["Names"]) for each in found]


@pytest.fixture  # type: ignore[no-redef]  # ours, for the imported tests
async def harness(
    client: docker.APIClient, make_provider: Callable[..., ContainerProvider]
) -> AsyncIterator[ContainerHarness]:
    made = ContainerHarness(client, make_provider)
    try:
        yield made
    finally:
        if not made.made._is_closed:
            for machine in await made.provider.list(made.cluster_id):
                await made.provider.destroy(machine.name)
            await made.provider.close()
        assert made.left_over() == []
