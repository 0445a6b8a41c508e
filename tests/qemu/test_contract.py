"""The contract suite of all providers, on micro-VMs."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest

from runner.ids import ClusterId, MachineId
from runner.providers.base import Provider
from runner.providers.process_tag import find_tagged
from runner.providers.qemu.provider import QemuProvider
from tests.contract.providers.test_contract import *  # noqa: F403  the tests; `harness` is ours
from tests.qemu.conftest import end_all, left_over


class QemuHarness:
    def __init__(self, cluster_id: ClusterId, made: QemuProvider) -> None:
        self.cluster_id = cluster_id
        self.made = made
        self.provider: Provider = made

    async def end_machine(self, name: MachineId) -> None:
        (pid,) = [each.process.pid for each in find_tagged(self.cluster_id) if each.machine_id == name]
        os.kill(pid, signal.SIGKILL)

    def running(self, name: MachineId) -> int:
        return sum(each.machine_id == name for each in find_tagged(self.cluster_id))

    def left_over(self) -> list[str]:
        return left_over(self.made._folders, self.cluster_id)


@pytest.fixture  # type: ignore[no-redef]  # ours, for the imported tests
async def harness(cluster: ClusterId, make_provider: Callable[..., QemuProvider]) -> AsyncIterator[QemuHarness]:
    made = QemuHarness(cluster, make_provider(cluster))
    yield made
    await end_all(made.made, cluster)
