"""`runner.init` with pools: machines of several kinds, chosen by what work needs, and gone with it."""

from __future__ import annotations

from pathlib import Path

import pytest

import runner
from tests.integration.helpers import wait_until

CPU_POOL = runner.Pool("cpu", min=0, max=2, num_cpus=1, idle_shutdown_s=0.2)
BIG_POOL = runner.Pool("big", min=0, max=1, num_cpus=1, resources={"big": 1}, idle_shutdown_s=0.2)


def test_work_boots_the_machines_that_it_needs_and_they_go_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path))

    @runner.remote
    def where() -> str:
        return runner.get_runtime_context().machine_id

    with runner.init(machines=[CPU_POOL, BIG_POOL], log_to_driver=False):
        assert runner.nodes() == []
        big = runner.get(where.options(resources={"big": 1}).remote(), timeout=30)
        pools = {node.machine_id: node.pool for node in runner.nodes()}
        assert pools[big] == "big"
        assert set(runner.get([where.remote() for _ in range(4)], timeout=30))
        wait_until(lambda: not any(node.is_alive for node in runner.nodes()), 15, "the end of all machines")
        kinds = {node.pool for node in runner.nodes()}
        assert kinds <= {"cpu", "big"}
        assert {node.cost for node in runner.nodes()} == {None}, "this computer is free"
        assert runner.get(where.remote(), timeout=30)
