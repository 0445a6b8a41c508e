"""Random histories of calls, faults and ends: whatever comes, the cloud keeps its rules."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from runner.flysim.calls import is_visible
from runner.flysim.gate import CutError
from runner.flysim.settings import Delay, Region
from runner.flysim.states import PERSISTENT, TERMINAL, TRANSITIONS, State
from tests.unit.flysim.drive import Sim

MOVES = ("startMachine", "stopMachine", "suspendMachine", "restartMachine", "destroyMachine", "cordonMachine")
CONFIGS: tuple[dict[str, Any], ...] = (
    {}, {"auto_destroy": True}, {"restart": {"policy": "no"}}, {"restart": {"policy": "always"}},
)  # fmt: skip
FINE = {200, 201, 202, 204, 400, 404, 408, 409, 412, 422, 429, 503}


class CloudHistories(RuleBasedStateMachine):
    """Machines of one app in two small regions."""

    @initialize(seed=st.integers(0, 1000), failing=st.booleans(), stuck=st.booleans())
    def begin(self, seed: int, failing: bool, stuck: bool) -> None:
        slow = Delay(1.0, 0.8)
        self.sim = Sim(
            is_checked=False, seed=seed, regions=(Region("iad", 3, 2), Region("fra", 2, 1)), capacity_face="mixed",
            create_delay=slow, pull_cold_delay=slow, start_delay=slow, stop_delay=slow, suspend_delay=slow, resume_delay=slow,
            update_delay=slow, destroy_delay=slow, visible_delay=slow,
            launch_failure_rate=0.3 if failing else 0.0, cold_resume_rate=0.3, stuck_rate=0.2 if stuck else 0.0,
        )  # fmt: skip
        self.ids: list[str] = []
        self.seen: dict[str, int] = {}

    def pick(self, which: int) -> str | None:
        return self.ids[which % len(self.ids)] if self.ids else None

    @rule(name=st.integers(0, 6), config=st.sampled_from(CONFIGS), launch=st.booleans())
    def create(self, name: int, config: dict[str, Any], launch: bool) -> None:
        body = {"name": f"m{name}", "config": {"image": "runner-worker:1", **config}, "skip_launch": not launch}
        answer = self.sim.call("createMachine", body=body)
        if answer.status == 200:
            self.ids.append(answer.body["id"])
        else:
            assert answer.body["status"] == "insufficient_capacity" or "already_exists" in answer.body["error"]

    @rule(which=st.integers(0, 50), move=st.sampled_from(MOVES), force=st.booleans())
    def move(self, which: int, move: str, force: bool) -> None:
        machine_id = self.pick(which)
        if machine_id is not None:
            query = {"force": "true"} if move == "destroyMachine" and force else {}
            assert self.sim.call(move, machine_id, **query).status in FINE

    @rule(which=st.integers(0, 50), launch=st.booleans())
    def update(self, which: int, launch: bool) -> None:
        machine_id = self.pick(which)
        if machine_id is not None:
            body = {"config": {"image": "runner-worker:2"}, "skip_launch": not launch}
            assert self.sim.call("updateMachine", machine_id, body=body).status in FINE

    @rule(which=st.integers(0, 50), exit_code=st.integers(0, 2))
    def program_ends(self, which: int, exit_code: int) -> None:
        machine_id = self.pick(which)
        if machine_id in self.sim.processes._running and machine_id not in self.sim.processes._frozen:
            self.sim.exits(machine_id, exit_code)

    @rule(duration_s=st.sampled_from((0.1, 1.0, 5.0, 400.0)))
    def time_passes(self, duration_s: float) -> None:
        self.sim.pass_s(duration_s)

    @rule(which=st.integers(0, 2), is_back=st.booleans())
    def host_fails_or_returns(self, which: int, is_back: bool) -> None:
        host = self.sim.cloud.hosts[which]
        if is_back and host.status != "ok":
            self.sim.world.restore_host(host.name)
        elif not is_back and host.status == "ok":
            self.sim.world.fail_host(host.name)
        self.sim.pump()

    @rule(duration_s=st.floats(0.1, 3.0))
    def nobody_answers(self, duration_s: float) -> None:
        self.sim.world.go_down(duration_s)
        try:
            self.sim.call("getApp")
        except CutError:
            self.sim.pass_s(duration_s)
        else:
            raise AssertionError("it was down")

    @invariant()
    def only_listed_moves_were_made(self) -> None:
        if not hasattr(self, "sim"):
            return
        for machine in self.sim.cloud.machines.values():
            start = self.seen.get(machine.machine_id, 0)
            trail = machine.trail
            assert all(
                after in TRANSITIONS[before] for before, after in zip(trail[start:], trail[start + 1 :], strict=False)
            )
            self.seen[machine.machine_id] = len(trail) - 1

    @invariant()
    def no_host_holds_more_than_its_room(self) -> None:
        if hasattr(self, "sim"):
            for host in self.sim.cloud.hosts:
                there = self.sim.cloud.machines_on(host)
                assert len(there) <= host.room, (host.name, [each.state for each in there])
                assert sum(each.memory_mb for each in there) <= host.memory_mb

    @invariant()
    def living_names_are_unique(self) -> None:
        if hasattr(self, "sim"):
            names = [each.name for each in self.sim.cloud.machines.values() if each.state is not State.DESTROYED]
            assert len(names) == len(set(names))

    @invariant()
    def processes_run_where_the_cloud_says_so(self) -> None:
        if hasattr(self, "sim"):
            alive = {each.machine_id for each in self.sim.cloud.machines.values() if each.is_alive}
            assert set(self.sim.processes._running) == alive
            ended = [
                each
                for each in self.sim.cloud.machines.values()
                if each.state in TERMINAL or each.state is State.STOPPED
            ]
            assert not [each.machine_id for each in ended if each.is_alive]

    def teardown(self) -> None:
        """Once faults stop and time passes, nothing is on its way any more, and what is destroyed is gone."""
        if not hasattr(self, "sim"):
            return
        for host in self.sim.cloud.hosts:
            self.sim.world.restore_host(host.name)
        self.sim.pump()
        self.sim.pass_s(1500.0)
        for machine in self.sim.cloud.machines.values():
            assert machine.state in PERSISTENT | TERMINAL, self.sim.trail(machine.machine_id)
            if machine.state is State.DESTROYED:
                assert not is_visible(self.sim.cloud, machine)


TestCloudHistories = CloudHistories.TestCase
TestCloudHistories.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
