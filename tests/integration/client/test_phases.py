"""Phases that user code marks, from the task to the listing and the stream."""

from __future__ import annotations

import pytest

import runner
from runner.training.timings import timings
from tests.integration.helpers import wait_until


@pytest.mark.usefixtures("cluster")
def test_a_marked_phase_is_told_once_per_machine_among_its_own() -> None:
    @runner.remote(name="loads")
    def load(step: int) -> str:
        for _ in range(3):
            runner.mark_phase("weights on CPU")
        runner.mark_phase(f"step {step}")
        return runner.get_runtime_context().machine_id

    machines = [runner.get(load.remote(step)) for step in range(2)]
    phases: dict[str, dict[str, float]] = {}

    def all_are_told() -> bool:
        phases.update((node.machine_id, dict(node.phases)) for node in runner.nodes())
        return all(f"step {step}" in phases[machine_id] for step, machine_id in enumerate(machines))

    wait_until(all_are_told, 10, "both machines' phases")
    for step, machine_id in enumerate(machines):
        told = phases[machine_id]
        assert told["first_task"] <= told["weights on CPU"] <= told[f"step {step}"]
    loading = {each.phase: each for each in timings(phases.values()).loading}
    assert loading["weights on CPU"].machines == len(set(machines))
