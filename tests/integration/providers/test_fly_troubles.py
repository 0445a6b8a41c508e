"""A cloud that lacks things, goes down, or loses hosts and replies, as a program that uses runner sees it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import runner
from runner.errors import BadOptionsError, ProviderError, UnschedulableError
from runner.flysim import FlySim
from runner.flysim.settings import Delay, Region
from tests.integration.helpers import let_stay, wait_until
from tests.integration.providers.cloud import QUICK, add_machines, init, pool, ready, there

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(90)]
WAIT_S = 30.0
LEASES = {"heartbeat_s": 0.5, "lost_after_s": 4.0, "destroy_after_s": 6.0}
MANY = int(os.environ.get("RUNNER_KILLS_MACHINES") or 24)


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path))


@pytest.fixture
def sim() -> Iterator[FlySim]:
    with FlySim(**QUICK) as it:
        yield it
        assert there(it) == []


# ---- what does not exist ----
def test_an_image_that_does_not_exist_fails_the_tasks_and_says_which(sim: FlySim) -> None:
    words = "check that image 'registry.example/none:1' exists"
    with init(sim, image="registry.example/none:1", machines=2):
        with pytest.raises(UnschedulableError, match=words):
            runner.get(runner.remote(lambda: 1).remote(), timeout=WAIT_S)
    with pytest.raises(ProviderError, match=words):
        init(sim, image="registry.example/none:1", machines=2, strict=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"app": "missing-app", "org": None}, "app 'missing-app' does not exist"),
        ({"regions": ["iad", "xyz"]}, "Fly has no region xyz; known are: fra, iad, ord"),
        ({"token": "fm2_somebodys"}, "the token is wrong or expired"),
    ],
)
def test_what_can_never_work_fails_init_and_boots_nothing(sim: FlySim, options: dict[str, object], words: str) -> None:
    with pytest.raises(ProviderError, match=words) as caught:
        init(sim, options=options, machines=2)
    assert "fm2_somebodys" not in str(caught.value)
    assert not runner.is_initialized()
    assert sim.state()["machines"] == {}


def test_a_size_that_does_not_exist_and_a_gpu_fail_before_anybody_is_asked(sim: FlySim) -> None:
    with pytest.raises(BadOptionsError, match="size 'huge' is unknown to Fly; known are: "):
        init(sim, options={"sizes": ["huge"]})
    with pytest.raises(ProviderError, match="2026-08-01; providers that have GPUs are local and container") as caught:
        init(sim, num_gpus=1)
    assert len(str(caught.value).splitlines()) == 1
    assert sim.state()["machines"] == {}


# ---- what there is too little of ----
def test_five_of_eight_go_on_with_five_and_say_so() -> None:
    with FlySim(**QUICK, regions=(Region("iad", 5),)) as sim, init(sim, machines=8):
        assert runner.get([runner.remote(abs).remote(-n) for n in range(20)], timeout=WAIT_S) == list(range(20))
        wait_until(lambda: len(ready()) == 5 and not pool().coming, WAIT_S, "five machines")
        assert "insufficient resources available" in pool().problem
        assert "name more regions=" in pool().problem
        assert len(there(sim)) == 5


def test_five_of_eight_are_none_for_a_strict_start() -> None:
    with FlySim(**QUICK, regions=(Region("iad", 5),)) as sim:
        with pytest.raises(ProviderError, match=r"8 machines were asked for, and with strict=True all of them are nee"):
            init(sim, machines=8, strict=True)
        wait_until(lambda: there(sim) == [], WAIT_S, "no machine")


# ---- what goes away for a while ----
def test_a_provider_that_goes_down_in_the_middle_of_a_boot_has_all_machines_in_the_end(sim: FlySim) -> None:
    sim.inject("settings", settings={"create_delay": {"median_s": 0.5, "spread": 0.8}})
    with init(sim, machines=8):
        wait_until(lambda: len(there(sim)) >= 3, WAIT_S, "three machines")
        sim.inject("down", seconds=4)
        wait_until(lambda: len(ready()) == 8, WAIT_S, "eight machines")
        let_stay(lambda: len(there(sim)) == 8, 2.0, "eight machines at the provider")


def test_a_token_that_expires_in_the_middle_is_told_and_what_runs_goes_on(sim: FlySim) -> None:
    with init(sim, machines=2):
        wait_until(lambda: len(ready()) == 2, WAIT_S, "two machines")
        sim.inject("expire_token")
        add_machines(2)
        wait_until(lambda: "wrong or expired" in pool().problem, WAIT_S, "the word of it")
        assert sim.token not in pool().problem
        assert runner.get([runner.remote(abs).remote(-n) for n in range(8)], timeout=WAIT_S) == list(range(8))
        assert len(ready()) == 2
        sim.inject("expire_token", expired=False)


def test_work_on_a_host_that_fails_is_done_elsewhere(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    @runner.remote
    def wait(number: int) -> int:
        import pathlib
        import time

        while not pathlib.Path(str(gate)).exists():
            time.sleep(0.05)
        return number

    with FlySim(**QUICK, regions=(Region("iad", 16, hosts=4),)) as sim, init(sim, machines=4, times=LEASES):
        wait_until(lambda: len(ready()) == 4, WAIT_S, "four machines")
        before = set(ready())
        refs = [wait.remote(number) for number in range(4)]
        wait_until(lambda: sum(node.running_tasks for node in runner.nodes()) == 4, WAIT_S, "four running tasks")
        victim = next(iter(sim.state()["machines"].values()))
        sim.inject("fail_host", host=victim["host"])
        gate.touch()
        assert runner.get(refs, timeout=60) == [0, 1, 2, 3]
        wait_until(lambda: len(ready()) == 4 and set(ready()) != before, 60, "four machines, one of them new")
        sim.inject("restore_host", host=victim["host"])


# ---- what gets lost ----
def test_lost_replies_and_lists_that_lag_make_exactly_the_machines_wanted() -> None:
    rough = {**QUICK, "lost_reply_rate": 0.3, "lost_reply_as": "mixed", "visible_delay": Delay(1.0, 0.5)}
    with FlySim(**rough, lost_request_rate=0.05, error_rate=0.05, seed=64) as sim:
        with init(sim, machines=MANY):
            wait_until(lambda: len(ready()) == MANY, WAIT_S + MANY, f"{MANY} machines")
            let_stay(lambda: len(there(sim)) == MANY, 2.0, "these machines and no other")
            assert len({name.rpartition("-")[2] for name in there(sim)}) == MANY
        wait_until(lambda: there(sim) == [], WAIT_S, "no machine")
        made = [each["name"] for each in sim.state()["machines"].values()]
        assert len(made) == len(set(made)), "one machine of each name, ever"
