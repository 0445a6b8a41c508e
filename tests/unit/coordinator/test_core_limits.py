"""What the core is told of a coordinator's settings."""

from __future__ import annotations

import pytest

from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.core_limits import core_config, hooks_s
from runner.coordinator.creating import boot_config
from runner.core.values import CPU, UNIT, make_shape
from runner.ids import ClusterId, MachineId
from runner.worker.agent.cuda_moves import MOVE_S


def test_a_thousand_machines_that_are_created_one_a_second_are_not_overdue() -> None:
    config = CoordinatorConfig(home="/nowhere")
    assert core_config(config).boot_deadline_s > 1000 + config.boot_deadline_s


def test_hooks_have_the_time_that_is_set_and_the_core_waits_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_SUSPEND_HOOKS_S", "100")
    config = CoordinatorConfig(home="/nowhere")
    assert hooks_s(config) == 100.0
    # Hooks that undo what others have done come after those that took their time.
    assert core_config(config).prepare_deadline_s > 200.0 and core_config(config).resume_deadline_s > 100.0
    assert hooks_s(CoordinatorConfig(home="/nowhere", suspend_hooks_s=3.0)) == 3.0


@pytest.mark.parametrize("is_on", [False, True])
def test_machines_are_told_of_cuda_checkpoint_and_the_core_waits_for_it(
    monkeypatch: pytest.MonkeyPatch, is_on: bool
) -> None:
    config = CoordinatorConfig(home="/nowhere")
    without = core_config(config)
    monkeypatch.setenv("RUNNER_CUDA_CHECKPOINT", str(int(is_on)))
    boot = boot_config(
        config,
        make_shape({CPU: UNIT}),
        coordinator_address="127.0.0.1:9",
        ca_pem=b"",
        join_token="token",
        machine_id=MachineId("m-1"),
        cluster_id=ClusterId("c"),
    )
    assert boot.cuda_checkpoint is is_on
    limits = core_config(config)
    assert limits.prepare_deadline_s == without.prepare_deadline_s + 2 * MOVE_S * is_on
    assert limits.resume_deadline_s == without.resume_deadline_s + MOVE_S * is_on
