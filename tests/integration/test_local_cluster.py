"""The shipped cluster for tests: what it shows, and that it notices what is left."""

from __future__ import annotations

import signal
import socket

import pytest

import runner
from runner.errors import NotInitializedError
from runner.testing import LocalCluster


def test_its_processes_can_be_seen_and_nothing_is_left_at_the_end() -> None:
    @runner.remote
    def pid() -> int:
        import os

        return os.getpid()

    with LocalCluster(machines=2, num_cpus=1, log_to_driver=False) as cluster:
        worker_pid = runner.get(pid.remote())
        assert [agent.machine_id for agent in cluster.agents()] == ["m-1", "m-2"]
        assert worker_pid in {executor.process.pid for executor in cluster.executors()}
        assert any(line.startswith("coordinator process") for line in cluster.left_over())
        assert any(line.startswith("port") for line in cluster.left_over())
    assert cluster.left_over() == []
    assert not runner.is_initialized()


def test_a_machine_can_be_killed_and_replaced() -> None:
    @runner.remote
    def one() -> int:
        return 1

    with LocalCluster(machines=1, num_cpus=1, log_to_driver=False) as cluster:
        assert runner.get(one.remote()) == 1
        (new,) = cluster.add_machines(1)
        assert cluster.send_signal(cluster.agents()[0], signal.SIGKILL)
        assert runner.get(one.remote(), timeout=15) == 1
        assert new in {agent.machine_id for agent in cluster.agents()}


def test_what_is_left_fails_the_test() -> None:
    with LocalCluster(gone_within_s=0.2, log_to_driver=False) as cluster:
        pass
    with socket.create_server(("127.0.0.1", 0)) as server:
        cluster.session.address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(AssertionError, match=r"left behind: port 127\.0\.0\.1"):
            cluster.assert_gone()


def test_before_its_start_it_says_so() -> None:
    with pytest.raises(NotInitializedError, match="`with` block"):
        LocalCluster().session
