"""States and moves, by the diagram of the facts."""

from __future__ import annotations

from typing import Any

import pytest

from runner.flysim.records import IllegalMoveError
from runner.flysim.settings import Delay
from runner.flysim.states import STUCK_AFTER_S, TERMINAL, TRANSITIONS, State
from tests.unit.flysim.drive import Sim


def test_a_machine_goes_from_created_through_starting_to_started() -> None:
    sim = Sim(create_delay=Delay(0.5), pull_cold_delay=Delay(3.0), start_delay=Delay(0.3))
    answer = sim.create()
    machine_id = answer.body["id"]

    assert (answer.status, answer.body["state"], answer.after_s) == (200, "created", 0.5)
    sim.pass_s(3.4)
    assert sim.state(machine_id) == "created"
    sim.pass_s(0.3)
    assert sim.state(machine_id) == "starting"
    sim.pass_s(0.2)
    assert sim.state(machine_id) == "started"
    assert sim.trail(machine_id) == ["creating", "created", "starting", "started"]


def test_the_image_is_pulled_once_per_host() -> None:
    sim = Sim(pull_cold_delay=Delay(10.0), pull_warm_delay=Delay(0.5))
    sim.started("first")
    second = sim.created("second")
    sim.pass_s(0.6)

    assert sim.state(second) == "started"


def test_skip_launch_leaves_it_created_until_it_is_started() -> None:
    sim = Sim()
    answer = sim.call("createMachine", body={"config": {"image": "runner-worker:1"}, "skip_launch": True})
    sim.pass_s(100.0)
    machine_id = answer.body["id"]
    assert sim.state(machine_id) == "created"

    started = sim.call("startMachine", machine_id)

    assert started.body == {"previous_state": "created", "migrated": False, "new_host": ""}
    sim.pass_s(0)
    assert sim.state(machine_id) == "started"


def test_stop_signals_and_the_end_makes_it_stopped() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("stopMachine", machine_id)
    sim.pass_s(0)

    assert sim.trail(machine_id)[-2:] == ["stopping", "stopped"]
    exit_event = sim.cloud.machines[machine_id].events[1]["request"]["exit_event"]
    assert (exit_event["guest_signal"], exit_event["requested_stop"]) == (2, True)


def test_stop_kills_what_does_not_end_in_time() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.processes._frozen.add(machine_id)  # it ignores signals
    sim.call("stopMachine", machine_id, body={"timeout": "3s"})
    sim.pass_s(2.9)
    assert sim.state(machine_id) == "stopping"
    sim.pass_s(0.2)

    assert sim.state(machine_id) == "stopped"


def test_a_stopped_machine_starts_again_with_a_new_process() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("stopMachine", machine_id)
    sim.pass_s(0)
    sim.call("startMachine", machine_id)
    sim.pass_s(0)

    assert (sim.state(machine_id), sim.cloud.machines[machine_id].life) == ("started", 2)


def test_start_is_refused_with_412_and_the_state_in_the_text() -> None:
    sim = Sim(update_delay=Delay(1.0))
    machine_id = sim.started()
    sim.call("updateMachine", machine_id, body={"config": {"image": "runner-worker:2"}})

    status, text = sim.error(sim.call("startMachine", machine_id))
    assert status == 412
    assert "unable to start machine from current state: 'replacing'" in text


@pytest.mark.parametrize(
    ("restart", "exit_code", "state"),
    [
        ({"policy": "no"}, 1, "stopped"),
        ({"policy": "always"}, 0, "started"),
        ({"policy": "on-failure"}, 0, "stopped"),
        ({"policy": "on-failure"}, 1, "started"),
        (None, 1, "started"),
    ],
)
def test_restart_policies(restart: dict[str, str] | None, exit_code: int, state: str) -> None:
    sim = Sim()
    config: dict[str, Any] = {"restart": restart} if restart else {}
    machine_id = sim.started(**config)
    sim.exits(machine_id, exit_code)
    sim.pass_s(0)

    assert sim.state(machine_id) == state


def test_ten_failures_in_five_minutes_are_too_many() -> None:
    sim = Sim()
    machine_id = sim.started()
    for _ in range(10):
        sim.crash(machine_id)
        sim.pass_s(1.0)
        assert sim.state(machine_id) == "started"
    sim.crash(machine_id)

    assert sim.state(machine_id) == "stopped"


def test_failures_outside_the_window_do_not_count() -> None:
    sim = Sim()
    machine_id = sim.started()
    for _ in range(25):
        sim.crash(machine_id)
        sim.pass_s(40.0)

    assert sim.state(machine_id) == "started"


def test_auto_destroy_frees_the_machine_at_its_end_and_then_it_is_404() -> None:
    sim = Sim(destroyed_visible_s=5.0)
    machine_id = sim.started(auto_destroy=True)
    sim.exits(machine_id, 1)
    sim.pass_s(0)

    assert sim.trail(machine_id)[-2:] == ["destroying", "destroyed"]
    assert sim.call("getMachine", machine_id).body["state"] == "destroyed"
    sim.pass_s(5.1)
    assert sim.call("getMachine", machine_id).status == 404


def test_update_replaces_everything_and_makes_a_new_version() -> None:
    sim = Sim()
    machine_id = sim.started(env={"A": "1"}, metadata={"k": "v"})
    before = sim.cloud.machines[machine_id].instance_id
    answer = sim.call("updateMachine", machine_id, body={"config": {"image": "runner-worker:2"}})
    sim.pass_s(0)

    machine = sim.cloud.machines[machine_id]
    assert (answer.status, "env" in machine.config, machine.metadata) == (200, False, {})
    assert machine.instance_id not in ("", before)
    assert "replacing" in sim.trail(machine_id)
    assert (machine.state, machine.life) == (State.STARTED, 2)


def test_update_leaves_a_stopped_machine_stopped() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("stopMachine", machine_id)
    sim.pass_s(0)
    sim.call("updateMachine", machine_id, body={"config": {"image": "runner-worker:2"}})
    sim.pass_s(0)

    assert sim.trail(machine_id)[-2:] == ["updating", "stopped"]


@pytest.mark.parametrize("field", ["name", "region"])
def test_name_and_region_cannot_change(field: str) -> None:
    sim = Sim()
    machine_id = sim.started()
    answer = sim.call("updateMachine", machine_id, body={"config": {"image": "runner-worker:1"}, field: "other"})

    assert answer.status == 400


def test_delete_without_force_wants_a_machine_that_does_not_run() -> None:
    sim = Sim()
    machine_id = sim.started()
    assert sim.call("destroyMachine", machine_id).status == 412
    sim.call("stopMachine", machine_id)
    sim.pass_s(0)

    assert sim.call("destroyMachine", machine_id).body == {"ok": True}
    sim.pass_s(0)
    assert sim.state(machine_id) == "destroyed"


@pytest.mark.parametrize("query", [{"force": "true"}, {"kill": "true"}])
def test_delete_by_force_ends_what_runs(query: dict[str, str]) -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("destroyMachine", machine_id, **query)
    sim.pass_s(0)

    assert sim.state(machine_id) == "destroyed"
    assert sim.processes._running == {}


def test_restart_ends_the_process_and_starts_another() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("restartMachine", machine_id)
    sim.pass_s(0)

    assert "restarting" in sim.trail(machine_id)
    assert (sim.state(machine_id), sim.cloud.machines[machine_id].life) == ("started", 2)


def test_a_launch_that_fails_ends_failed_or_destroyed() -> None:
    sim = Sim(launch_failure_rate=1.0)
    kept, freed = sim.created("kept"), sim.created("freed", auto_destroy=True)
    sim.pass_s(0)

    assert sim.trail(kept)[-2:] == ["launch_failed", "failed"]
    assert sim.trail(freed)[-2:] == ["launch_failed", "destroyed"]


def test_a_start_that_hangs_fails_at_the_threshold() -> None:
    sim = Sim(stuck_rate=1.0)
    machine_id = sim.created()
    sim.pass_s(299.0)
    assert sim.state(machine_id) == "starting"
    sim.pass_s(2.0)

    assert sim.state(machine_id) == "failed"


def test_thresholds_are_five_and_ten_minutes() -> None:
    assert {state.value: limit for state, limit in STUCK_AFTER_S.items()} == {
        "starting": 300, "stopping": 300, "restarting": 300, "destroying": 300, "updating": 600, "replacing": 600,
    }  # fmt: skip


def test_a_failed_host_keeps_its_machines_and_a_restored_one_restarts_them() -> None:
    sim = Sim()
    machine_id = sim.started()
    host = sim.cloud.machines[machine_id].host
    sim.world.fail_host(host.name)
    sim.pump()

    shown = sim.call("getMachine", machine_id).body
    assert (shown["state"], shown["host_status"]) == ("started", "unreachable")
    assert "incomplete_config" in shown and "config" not in shown
    assert sim.call("stopMachine", machine_id).status == 503
    assert sim.call("createMachine", body={"region": "iad", "config": {"image": "runner-worker:1"}}).status == 412
    assert sim.processes._running == {}
    sim.world.restore_host(host.name)
    sim.pass_s(0)
    assert (sim.state(machine_id), sim.cloud.machines[machine_id].life) == ("started", 2)


def test_nothing_happens_on_a_failed_host_until_it_is_back() -> None:
    sim = Sim(start_delay=Delay(5.0))
    machine_id = sim.created()
    sim.pass_s(1.0)
    sim.world.fail_host(sim.cloud.machines[machine_id].host.name)
    sim.pass_s(60.0)
    assert sim.state(machine_id) == "starting"
    sim.world.restore_host(sim.cloud.machines[machine_id].host.name)
    sim.pass_s(0)

    assert sim.state(machine_id) == "started"


def test_word_of_an_earlier_life_changes_nothing() -> None:
    sim = Sim()
    machine_id = sim.started()
    sim.call("restartMachine", machine_id)
    sim.pass_s(0)
    sim.world.process_exited(machine_id, 1, 1, 0, sim.now_s)

    assert sim.state(machine_id) == "started"


def test_a_move_that_the_table_does_not_list_is_a_bug_with_its_story() -> None:
    sim = Sim()
    machine_id = sim.started()
    with pytest.raises(
        IllegalMoveError, match="started -> created; so far: creating -> created -> starting -> started"
    ):
        sim.cloud.machines[machine_id].move(State.CREATED, 0.0)


def test_every_state_is_in_the_table_and_ends_are_ends() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {state for state, nexts in TRANSITIONS.items() if not nexts} == TERMINAL


def test_destroying_can_be_reached_from_everywhere() -> None:
    for state in set(State) - TERMINAL - {State.DESTROYING}:
        assert State.DESTROYING in TRANSITIONS[state], state
