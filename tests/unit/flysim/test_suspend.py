"""Suspend and resume, by the diagram and the rules of the facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runner.errors import BadOptionsError
from runner.flysim.settings import Delay, SimSettings
from tests.unit.flysim.drive import Sim


def test_resume_keeps_the_process_and_a_lost_snapshot_starts_cold() -> None:
    sim = Sim()
    machine_id = sim.started()
    for cold_rate, life in ((0.0, 1), (1.0, 2)):
        sim.cloud.settings = replace(sim.settings, cold_resume_rate=cold_rate)
        sim.call("suspendMachine", machine_id)
        sim.pass_s(0)
        assert sim.state(machine_id) == "suspended"
        sim.call("startMachine", machine_id)
        sim.pass_s(0)
        assert (sim.state(machine_id), sim.cloud.machines[machine_id].life) == ("started", life)


def test_a_start_cancels_a_suspend_that_is_under_way() -> None:
    sim = Sim(suspend_delay=Delay(5.0))
    machine_id = sim.started()
    sim.call("suspendMachine", machine_id)
    sim.call("startMachine", machine_id)
    sim.pass_s(20.0)

    assert sim.trail(machine_id)[-2:] == ["suspending", "started"]
    assert sim.cloud.machines[machine_id].life == 1


def test_stopping_a_suspended_machine_discards_its_snapshot() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("suspendMachine", machine_id)
    sim.pass_s(0)
    sim.call("stopMachine", machine_id)

    assert sim.state(machine_id) == "stopped"
    machine = sim.cloud.machines[machine_id]
    assert (machine.has_snapshot, machine.is_alive) == (False, False)
    sim.call("startMachine", machine_id)
    sim.pass_s(0)
    assert machine.life == 2


def test_a_cancelled_suspend_lets_the_process_go_on() -> None:
    """1.5: as if the suspend had never happened."""
    sim = Sim(suspend_delay=Delay(5.0))
    machine_id = sim.started()
    sim.call("suspendMachine", machine_id)
    assert sim.processes._frozen == {machine_id}
    sim.call("startMachine", machine_id)

    assert (sim.processes._frozen, sim.processes._running) == (set(), {machine_id: 1})
    assert not sim.cloud.machines[machine_id].has_snapshot
    sim.call("suspendMachine", machine_id)  # and it can be suspended again
    sim.pass_s(6.0)
    assert sim.state(machine_id) == "suspended"


@pytest.mark.parametrize("end", ["stopMachine", "updateMachine"])
def test_stop_and_update_end_a_suspend_that_is_under_way(end: str) -> None:
    sim = Sim(suspend_delay=Delay(5.0))
    machine_id = sim.started()
    sim.call("suspendMachine", machine_id)
    sim.call(end, machine_id, body={"config": {"image": "runner-worker:2"}} if end == "updateMachine" else None)
    sim.pass_s(20.0)

    machine = sim.cloud.machines[machine_id]
    assert not machine.has_snapshot
    assert sim.processes._running == ({machine_id: 2} if end == "updateMachine" else {})
    assert machine.state.value == ("started" if end == "updateMachine" else "stopped")


def test_stop_of_a_suspended_machine_kills_what_was_frozen() -> None:
    """1.5: stopped, also where `auto_destroy` would end it after its main process."""
    sim = Sim()
    machine_id = sim.started(auto_destroy=True)
    sim.call("suspendMachine", machine_id)
    sim.pass_s(0)
    sim.call("stopMachine", machine_id)

    assert sim.processes._running == {}
    assert sim.state(machine_id) == "stopped"


def test_a_lost_snapshot_shows_only_in_the_next_start() -> None:
    sim = Sim()
    machine_id = sim.started()
    with pytest.raises(ValueError, match="has no snapshot, it is started"):
        sim.world.lose_snapshot(machine_id)
    sim.call("suspendMachine", machine_id)
    sim.pass_s(0)
    sim.world.lose_snapshot(machine_id)
    sim.pump()
    assert (sim.state(machine_id), sim.processes._running) == ("suspended", {})
    assert sim.call("startMachine", machine_id).body["previous_state"] == "suspended"
    sim.pass_s(0)

    assert (sim.state(machine_id), sim.processes._running) == ("started", {machine_id: 2})


def test_many_suspends_at_once_are_slow() -> None:
    sim = Sim(suspend_delay=Delay(1.0), suspend_crowding=0.5)
    ids = [sim.started(name) for name in ("a", "b", "c")]
    for machine_id in ids:
        sim.call("suspendMachine", machine_id)
    seen = []
    for _ in range(3):
        sim.pass_s(0.5)
        seen.append([sim.state(each) for each in ids].count("suspended"))
    sim.pass_s(0.5)
    assert (seen, [sim.state(each) for each in ids].count("suspended")) == ([0, 1, 2], 3)


def test_a_crowding_below_zero_is_refused() -> None:
    with pytest.raises(BadOptionsError, match="suspend_crowding"):
        SimSettings(suspend_crowding=-0.1)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"guest": {"cpu_kind": "performance", "cpus": 1, "memory_mb": 4096}}, "2048 MB"),
        ({"init": {"swap_size_mb": 512}}, "swap"),
        ({"schedule": "hourly"}, "schedule"),
    ],
)
def test_suspend_is_refused_where_the_configuration_does_not_allow_it(config: dict[str, Any], reason: str) -> None:
    sim = Sim()
    machine_id = sim.started(**config)

    status, text = sim.error(sim.call("suspendMachine", machine_id))
    assert (status, reason in text) == (400, True)


def test_update_drops_a_snapshot() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("suspendMachine", machine_id)
    sim.pass_s(0)
    sim.call("updateMachine", machine_id, body={"config": {"image": "runner-worker:2"}})

    assert not sim.cloud.machines[machine_id].has_snapshot


def test_a_resume_that_hangs_leaves_no_process_when_it_fails() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("suspendMachine", machine_id)
    sim.pass_s(0)
    sim.cloud.settings = replace(sim.settings, stuck_rate=1.0)
    sim.call("startMachine", machine_id)
    sim.pass_s(301.0)

    assert sim.state(machine_id) == "failed"
    assert sim.processes._running == {}
