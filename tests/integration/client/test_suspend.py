"""Machines of this computer that are put to sleep and woken, by people, by idleness and by work."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.client import machine_states
from runner.errors import (
    ActorDiedError,
    BadOptionsError,
    MachineStateError,
    ProviderError,
    StateTimeoutError,
    TaskCancelledError,
    UsageError,
)
from tests.integration.helpers import wait_until
from tests.integration.worker.actor_classes import Sleepy

LIMIT_S = 20.0


@runner.remote
def where() -> tuple[str, int]:
    return runner.get_runtime_context().machine_id, os.getpid()


@runner.remote(max_retries=0)
def hold(gate: str) -> int:
    """Ends when the file is there; counts its beginnings beside it."""
    with open(f"{gate}.begun", "a") as file:
        file.write("x")
    while not os.path.exists(gate):
        time.sleep(0.01)
    return os.path.getsize(f"{gate}.begun")


@runner.remote
def park(begun: str) -> None:
    """May sleep at any time; ends by a cancel."""
    Path(begun).touch()
    while True:
        runner.ready_to_snapshot()
        time.sleep(0.01)


@runner.remote
def ask(actor: Any) -> Any:
    return runner.get(actor.add.remote())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path / "home"))
    yield tmp_path
    runner.shutdown()


def state_of(pid: int) -> str:
    """The kernel's letter for a process: T is one that stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def node(index: int = 0) -> Any:
    return runner.nodes()[index]


def begun(gate: Path) -> bool:
    return Path(f"{gate}.begun").exists()


def test_machines_sleep_and_go_on_with_the_processes_that_they_had(home: Path) -> None:
    with runner.init(machines=2, num_cpus=1, log_to_driver=False) as cluster:
        before = dict(runner.get([where.remote(), where.remote()], timeout=LIMIT_S))
        assert cluster.suspend(timeout=LIMIT_S) == ["m-1", "m-2"]
        assert [each.state for each in runner.nodes()] == ["suspended", "suspended"]
        assert runner.cluster_resources() == {}
        assert node().slept_s > 0
        assert cluster.suspend(["m-1", node(1)], timeout=LIMIT_S) == ["m-1", "m-2"], "it is so already"
        assert cluster.resume("m-1", timeout=LIMIT_S) == ["m-1"]
        assert (node().state, node().wake, node().generation) == ("ready", "resumed", 2)
        machine_id, pid = runner.get(where.remote(), timeout=LIMIT_S)
        assert before[machine_id] == pid, "the executor is the one from before"
        assert cluster.resume(timeout=LIMIT_S) == (["m-2"] if machine_id == "m-1" else [])


def test_a_suspend_waits_for_what_runs_and_says_for_what(home: Path) -> None:
    gate = home / "gate"
    with runner.init(machines=1, num_cpus=1, log_to_driver=False) as cluster:
        ref = hold.options(name="fit").remote(str(gate))
        wait_until(lambda: begun(gate), LIMIT_S, "the task")
        with pytest.raises(StateTimeoutError) as caught:
            cluster.suspend(timeout=0.2)
        assert str(caught.value) == (
            f"machine m-1 not suspended after 0.2 s: m-1 is suspending: waits for task {ref.task_id()} (fit) to end; "
            "what was asked for goes on"
        )
        assert node().sleep == f"waits for task {ref.task_id()} (fit) to end"
        gate.touch()
        assert runner.get(ref, timeout=LIMIT_S) == 1
        cluster.wait_for_state("m-1", "suspended", timeout=LIMIT_S)


def test_now_interrupts_what_runs_and_it_runs_again_uncharged(home: Path) -> None:
    gate = home / "gate"
    with runner.init(machines=1, num_cpus=1, log_to_driver=False) as cluster:
        ref = hold.remote(str(gate))  # it has no retries
        wait_until(lambda: begun(gate), LIMIT_S, "the task")
        cluster.suspend(now=True, timeout=LIMIT_S)
        gate.touch()
        assert runner.get(ref, timeout=LIMIT_S) == 2, "work that waits has woken the machine"


@pytest.mark.parametrize("when", ["asleep", "before", "in a task"])
def test_a_call_wakes_an_actor_that_it_reaches_directly(home: Path, when: str) -> None:
    gate = home / "gate"
    with runner.init(machines=2, num_cpus=1, log_to_driver=False) as cluster:
        actor: Any = runner.remote(Sleepy).remote()
        runner.get(actor.add.remote(), timeout=LIMIT_S)
        if when == "before":  # the call waits in the actor's process when its machine falls asleep
            holding = actor.hold.remote(str(gate))
            wait_until(lambda: begun(gate), LIMIT_S, "the call")
            cluster.suspend(wait=False)
            wait_until(
                lambda: "waits for calls" in str([each.sleep for each in runner.nodes()]), LIMIT_S, "the suspend"
            )
            answer = actor.add.remote()
            gate.touch()
            runner.get(holding, timeout=LIMIT_S)
        else:
            cluster.suspend(timeout=LIMIT_S)
            answer = ask.remote(actor) if when == "in a task" else actor.add.remote()
        assert runner.get(answer, timeout=LIMIT_S) == 1


def test_a_cancel_and_a_kill_reach_what_sleeps(home: Path) -> None:
    with runner.init(machines=1, num_cpus=2, log_to_driver=False) as cluster:
        ref = park.remote(str(home / "parked"))
        wait_until((home / "parked").exists, LIMIT_S, "the task")
        cluster.suspend(timeout=LIMIT_S)
        runner.cancel(ref)
        with pytest.raises(TaskCancelledError):
            runner.get(ref, timeout=LIMIT_S)
        actor: Any = runner.remote(Sleepy).remote()
        runner.get(actor.add.remote(), timeout=LIMIT_S)
        cluster.suspend(timeout=LIMIT_S)
        runner.kill(actor)
        with pytest.raises(ActorDiedError):
            runner.get(actor.add.remote(), timeout=LIMIT_S)
        assert node().state == "ready"


def test_a_resume_calls_off_a_suspend_that_still_waits(home: Path) -> None:
    gate = home / "gate"
    failures: list[BaseException] = []
    with runner.init(machines=1, num_cpus=1, log_to_driver=False) as cluster:
        ref = hold.remote(str(gate))
        wait_until(lambda: begun(gate), LIMIT_S, "the task")

        def put_to_sleep() -> None:
            try:
                cluster.suspend(timeout=LIMIT_S)
            except MachineStateError as error:
                failures.append(error)

        waiting = threading.Thread(target=put_to_sleep)
        waiting.start()
        cluster.wait_for_state("m-1", "suspending", timeout=LIMIT_S)
        cluster.resume(timeout=LIMIT_S)
        waiting.join(LIMIT_S)
        assert [str(error) for error in failures] == [
            "machine m-1 will not be suspended: m-1 is ready (called off: asked for)"
        ]
        gate.touch()
        assert runner.get(ref, timeout=LIMIT_S) == 1


def test_an_idle_machine_sleeps_and_work_wakes_it(home: Path) -> None:
    pool = runner.Pool(min=1, max=1, num_cpus=1, idle="suspend", idle_shutdown_s=0.2)
    with runner.init(machines=pool, log_to_driver=False) as cluster:
        before = runner.get(where.remote(), timeout=LIMIT_S)
        cluster.wait_for_state("m-1", "suspended", timeout=LIMIT_S)
        ref = where.options(name="wakes it").remote()
        assert runner.get(ref, timeout=LIMIT_S) == before
        assert node().wake == "resumed"
        assert len(runner.nodes()) == 1

        told: list[tuple[str, str]] = []

        def is_all_told() -> bool:
            # Events of machines come beside those of the run, whose end ends the stream.
            told[:] = [(event.state, event.text) for event in runner.stream(ref, kinds="machine")]
            return ("resuming", "work waits") in told

        wait_until(is_all_told, LIMIT_S, "the events of the machine")
        states = [state for state, _ in told]
        assert states.index("suspending") < states.index("suspended") < states.index("resuming")


def test_one_that_sleeps_too_long_goes(home: Path) -> None:
    pool = runner.Pool(start=1, max=1, num_cpus=1, idle="suspend", idle_shutdown_s=0.1, max_suspended_s=0.3)
    with runner.init(machines=pool, log_to_driver=False) as cluster:
        wait_until(lambda: node().pid, LIMIT_S, "its agent")
        cluster.wait_for_state("m-1", "destroyed", timeout=LIMIT_S)
        assert node().reason == "it has slept for max_suspended_s"
        with pytest.raises(MachineStateError, match="m-1 will not be ready: m-1 is destroyed"):
            cluster.wait_for_state("m-1", "ready", timeout=LIMIT_S)
        assert runner.get(where.remote(), timeout=LIMIT_S)[0] == "m-2"


def test_policies_and_requests_that_cannot_work_are_refused_with_the_reason(home: Path) -> None:
    with pytest.raises(BadOptionsError, match="contradict each other"):
        runner.Pool(idle="suspend", single_use=True)
    at_fly = {"app": "mine", "token": "none", "image": "worker:1", "base_url": "http://127.0.0.1:9"}
    with pytest.raises(
        ProviderError, match=r"pool default cannot have idle='suspend' with provider fly: .*at most 2048 MB; leave"
    ):
        large = runner.Pool(min=1, num_cpus=2, memory="8GiB", idle="suspend")
        runner.init(provider="fly", machines=large, provider_options=at_fly)
    with runner.init(machines=1, num_cpus=1, log_to_driver=False) as cluster:
        with pytest.raises(BadOptionsError, match="there is no machine 'm-9'"):
            cluster.suspend("m-9")
        with pytest.raises(BadOptionsError, match="there is no machine 'm-9'"):
            cluster.wait_for_state("m-9", "ready")
        with pytest.raises(BadOptionsError, match="there is no state 'asleep'"):
            cluster.wait_for_state("m-1", "asleep")
        with pytest.raises(BadOptionsError, match="a machine configuration is a mapping of texts to texts"):
            cluster.set_machine_config({"TOKEN": 3})  # type: ignore[dict-item]
        assert cluster.suspend([]) == []


def test_inside_a_task_machines_can_be_watched_but_not_put_to_sleep(home: Path) -> None:
    @runner.remote
    def look() -> str:
        cluster = runner.init()
        cluster.wait_for_state("m-1", "ready", timeout=5)
        try:
            cluster.suspend(wait=False)
        except UsageError as error:
            return str(error)
        return "it was allowed"

    with runner.init(machines=1, num_cpus=1, log_to_driver=False):
        assert runner.get(look.remote(), timeout=LIMIT_S) == "SuspendMachines works in clients only, not inside a task"


def test_the_states_that_can_be_waited_for_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[3] / "docs" / "states.md").read_text()
    assert all(state.upper() in page for state in machine_states.STATES)


def test_people_are_told_once_where_sleeping_frees_no_memory(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with runner.init(machines=2, num_cpus=1, idle="suspend"):
        runner.get([where.remote() for _ in range(4)], timeout=LIMIT_S)
        told = ""

        def is_told() -> bool:
            nonlocal told
            told += capfd.readouterr().err
            return "their memory stays in use" in told

        wait_until(is_told, LIMIT_S, "the warning")
    told += capfd.readouterr().err
    assert told.count("idle machines of pool default are frozen, not saved") == 1
