"""Machines that sleep and come back, with all processes real: what lives on, what comes once, what no caller notices."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

import runner
from runner.errors import MachineStateError
from tests.integration.helpers import wait_until
from tests.integration.worker.actor_classes import Counter, until_suspended

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.timeout(90)

WAIT_S = 30.0


@pytest.fixture(scope="module", params=["same host", "apart"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One machine. Apart from its coordinator it shares no files with it, and callers go through the coordinator."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RUNNER_HOME", str(tmp_path_factory.mktemp("home")))
    options = {"apart": True} if request.param == "apart" else None
    with runner.init(machines=1, num_cpus=4, provider_options=options, log_to_driver=False) as session:
        yield session
    patch.undo()


def get(ref: Any) -> Any:
    return runner.get(ref, timeout=WAIT_S)


def sleep_and_wake(cluster: Any) -> None:
    cluster.suspend(timeout=WAIT_S)
    cluster.resume(timeout=WAIT_S)


class Keeper:
    """An actor with hooks, with values of others and of its own."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.count = 0
        self.given: Any = None
        self.own: Any = None

    @runner.before_suspend
    def offload(self) -> None:
        self._note("offload")

    @runner.after_resume
    def load(self, context: runner.ResumeContext) -> None:
        self._note(f"{context.kind} {context.snapshot} {context.generation} {context.config.get('token')}")

    def add(self) -> int:
        self.count += 1
        return self.count

    def keep(self, refs: list[Any]) -> None:
        self.given = refs[0]
        self.own = runner.put(np.arange(300_000))

    def totals(self) -> tuple[int, int]:
        return int(runner.get(self.given).sum()), int(runner.get(self.own).sum())

    def submit(self, value: int) -> int:
        return int(runner.get(runner.remote(increment).remote(value)))

    def _note(self, text: str) -> None:
        with open(self.path, "a") as file:
            file.write(text + "\n")


class Waiter:
    """An actor with coroutines, also as hooks."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @runner.before_suspend
    async def before(self) -> None:
        self.seen.append("before")

    @runner.after_resume
    async def after(self, context: runner.ResumeContext) -> None:
        self.seen.append(context.kind)

    async def what(self) -> list[str]:
        return self.seen


def increment(value: int) -> int:
    return value + 1


def test_an_actor_lives_on_with_its_state_its_refs_and_its_session(cluster: Any, tmp_path: Path) -> None:
    told = tmp_path / "told"
    cluster.set_machine_config({"token": "fresh"})
    keeper = runner.remote(Keeper).remote(str(told))
    get(keeper.keep.remote([runner.put(np.ones(400_000))]))
    for number in (1, 2, 3):
        assert get(keeper.add.remote()) == number
        sleep_and_wake(cluster)
        assert get(keeper.totals.remote()) == (400_000, 300_000 * 299_999 // 2)
        assert get(keeper.submit.remote(number)) == number + 1
    lines = told.read_text().splitlines()
    assert lines[::2] == ["offload"] * 3
    resumes = [line.split() for line in lines[1::2]]
    assert [(kind, token) for kind, _, _, token in resumes] == [("resumed", "fresh")] * 3
    assert [int(each[1]) - int(resumes[0][1]) for each in resumes] == [0, 1, 2]
    assert [int(each[2]) - int(resumes[0][2]) for each in resumes] == [0, 1, 2]


def test_an_actor_with_coroutines_has_hooks_that_are_coroutines(cluster: Any) -> None:
    waiter = runner.remote(Waiter).remote()
    assert get(waiter.what.remote()) == []
    sleep_and_wake(cluster)
    assert get(waiter.what.remote()) == ["before", "resumed"]


def test_a_call_to_an_actor_that_sleeps_is_answered_once_after_the_resume(cluster: Any, tmp_path: Path) -> None:
    keeper = runner.remote(Keeper).remote(str(tmp_path / "told"))
    assert get(keeper.add.remote()) == 1
    cluster.suspend(timeout=WAIT_S)
    called = [keeper.add.remote() for _ in range(3)]
    cluster.resume(timeout=WAIT_S)
    assert [get(each) for each in called] == [2, 3, 4]


def test_a_suspend_waits_for_the_call_that_runs(cluster: Any, tmp_path: Path) -> None:
    slow = runner.remote(Counter).remote()
    began, gate = tmp_path / "began", tmp_path / "gate"
    running = slow.wait_deaf.remote(str(began), str(gate))
    wait_until(began.exists, WAIT_S, "the call to begin")
    cluster.suspend(wait=False)
    wait_until(lambda: runner.nodes()[0].state == "suspending", WAIT_S, "the suspend to begin")
    gate.touch()
    assert get(running) is None
    wait_until(lambda: runner.nodes()[0].state == "suspended", WAIT_S, "the machine to sleep")
    cluster.resume(timeout=WAIT_S)


def test_a_task_that_is_ready_sleeps_with_the_machine_and_its_lines_come_once_in_order(cluster: Any) -> None:
    def warm_up(count: int) -> list[str]:
        kinds: list[str] = []
        for number in range(count):
            print(f"line {2 * number}", flush=True)
            runner.report({"round": number}, step=2 * number)
            kinds.append(until_suspended().kind)
            print(f"line {2 * number + 1}", flush=True)
            runner.report({"round": number}, step=2 * number + 1)
        return kinds

    ref = runner.remote(warm_up).options(name="warm").remote(3)
    events: list[Any] = []
    reader = threading.Thread(target=lambda: events.extend(runner.stream([ref], kinds=["log", "metrics"])))
    reader.start()
    for number in range(3):
        wait_until(lambda n=number: any(each.step == 2 * n for each in events), WAIT_S, "the round to begin")  # type: ignore[misc]
        sleep_and_wake(cluster)
    assert get(ref) == ["resumed"] * 3
    reader.join(WAIT_S)
    assert [each.text for each in events if each.kind == "log"] == [f"line {number}" for number in range(6)]
    assert [each.step for each in events if each.kind == "metrics"] == list(range(6))


def test_a_hook_that_fails_keeps_the_machine_awake_and_says_why(cluster: Any) -> None:
    class Burning:
        @runner.before_suspend
        def burn(self) -> None:
            raise ValueError("it burns")

        def ping(self) -> int:
            return 1

    actor = runner.remote(Burning).remote()
    assert get(actor.ping.remote()) == 1
    with pytest.raises(MachineStateError, match=r"Burning.burn failed: ValueError: it burns"):
        cluster.suspend(timeout=WAIT_S)
    assert get(actor.ping.remote()) == 1


def test_a_hook_that_fails_after_the_resume_has_the_machine_started_cold(cluster: Any) -> None:
    class Burning:
        @runner.after_resume
        def burn(self) -> None:
            raise ValueError("no GPU")

        def ping(self) -> int:
            import os

            return os.getpid()

    actor = runner.remote(Burning).options(max_restarts=-1, max_task_retries=-1).remote()
    before = get(actor.ping.remote())
    cluster.suspend(timeout=WAIT_S)
    cluster.resume(wait=False)
    wait_until(lambda: "no GPU" in runner.nodes()[0].reason, WAIT_S, "the reason to be told")
    assert get(actor.ping.remote()) != before
