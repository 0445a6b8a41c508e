"""Real agents with templates and executors that stand still: whole, alone, and never longer than their coordinator lives."""

from __future__ import annotations

import asyncio
import shutil
import signal

import pytest

import runner
from runner.providers.freezing import Freezer
from runner.providers.process_tag import Tagged, find_tagged, send_signal
from runner.providers.reaper import Reaper
from runner.testing_cluster import LocalCluster
from runner.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.contract.providers.harness import groups_left, stands_still
from tests.integration.helpers import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(90)]
BY = pytest.mark.parametrize("by_group", [True, False], ids=["by group", "by signals"])


@runner.remote(num_cpus=1)
def with_numpy(seed: int) -> tuple[str, int]:
    import os

    import numpy

    return os.environ["RUNNER_MACHINE"].partition("/")[2], int(numpy.arange(seed).sum())


class Host:
    def daemon(self) -> int:
        """The pid of a process in a session of its own."""
        import subprocess

        self.child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        return self.child.pid


class Outside:
    """Freezes a machine as its provider does, from another process."""

    def __init__(self, cluster: LocalCluster, agent: Tagged, *, by_group: bool) -> None:
        self._cluster_id, self._agent, self._by_group = cluster.cluster_id, agent, by_group

    def freeze(self) -> None:
        asyncio.run(self._freezer().freeze(self._agent.machine_id, (self._agent.process,)))

    def thaw(self) -> None:
        asyncio.run(self._freezer().thaw(self._agent.machine_id, (self._agent.process,)))

    def members(self) -> list[Tagged]:
        return [each for each in find_tagged(self._cluster_id) if each.machine_id == self._agent.machine_id]

    def _freezer(self) -> Freezer:
        return Freezer(self._cluster_id, Reaper(self._cluster_id, kill_grace_s=5.0), uses_groups=self._by_group)


@BY
def test_one_machine_stands_still_and_its_neighbour_on_the_same_layer_works(by_group: bool) -> None:
    with LocalCluster(machines=2, num_cpus=1, log_to_driver=False) as cluster:
        done = runner.get([with_numpy.remote(10) for _ in range(8)])
        assert {value for _, value in done} == {45}
        first, second = cluster.agents()
        frozen = Outside(cluster, first, by_group=by_group)
        before = {each.process.pid for each in frozen.members()}
        assert len(before) >= 3, "the agent, a template and an executor"
        frozen.freeze()
        assert [each for each in frozen.members() if not stands_still(each.process)] == []
        others = [each for each in find_tagged(cluster.cluster_id) if each.machine_id == second.machine_id]
        assert not any(stands_still(each.process) for each in others)
        # The layer is nobody's: machines that run still get templates from it.
        here = NodeAffinitySchedulingStrategy(second.machine_id, soft=False)
        assert runner.get(with_numpy.options(scheduling_strategy=here).remote(5), timeout=20) == (second.machine_id, 10)
        frozen.thaw()
        there = NodeAffinitySchedulingStrategy(first.machine_id, soft=False)
        assert runner.get(with_numpy.options(scheduling_strategy=there).remote(4), timeout=20) == (first.machine_id, 6)
        assert before <= {each.process.pid for each in frozen.members()}
    assert groups_left(cluster.cluster_id) == []


@BY
def test_a_frozen_machine_with_daemons_ends_when_its_coordinator_is_killed(by_group: bool) -> None:
    with LocalCluster(machines=1, num_cpus=1, log_to_driver=False, gone_within_s=10) as cluster:
        assert runner.get(with_numpy.remote(3))[1] == 3
        host = runner.remote(num_cpus=1)(Host).remote()
        daemon = runner.get(host.daemon.remote())
        frozen = Outside(cluster, cluster.agents()[0], by_group=by_group)
        assert daemon in {each.process.pid for each in frozen.members()}
        frozen.freeze()
        assert cluster._coordinator is not None
        send_signal(cluster._coordinator, signal.SIGKILL)
        wait_until(lambda: frozen.members() == [], 10, "nothing of the frozen machine is left")
        wait_until(lambda: groups_left(cluster.cluster_id) == [], 10, "its control group is removed")
        # Large values of a killed coordinator are left to the next one on this host: docs/lifetimes.md.
        shutil.rmtree(f"/dev/shm/runner-{cluster.cluster_id}")


@BY
def test_shutdown_ends_a_machine_that_somebody_froze(by_group: bool) -> None:
    with LocalCluster(machines=1, num_cpus=1, log_to_driver=False) as cluster:
        assert runner.get(with_numpy.remote(3))[1] == 3
        Outside(cluster, cluster.agents()[0], by_group=by_group).freeze()
    wait_until(lambda: groups_left(cluster.cluster_id) == [], 10, "its control group is removed")
