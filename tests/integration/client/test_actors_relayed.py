"""Actors that their callers reach through the coordinator only, as on other hosts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import runner
from runner import config
from runner.errors import ActorDiedError

pytestmark = [pytest.mark.timeout(60)]


class Far:
    def __init__(self) -> None:
        self.total = 0
        self.go = threading.Event()

    def add(self) -> int:
        self.total += 1
        return self.total

    def echo(self, value: Any) -> Any:
        return value

    def count(self, limit: int) -> Iterator[int]:
        yield from range(limit)

    def wait_for_go(self) -> str:
        return "went" if self.go.wait(30) else "never"

    def set_go(self) -> None:
        self.go.set()


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNNER_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv(config.ACTOR_RELAY, "1")
        with runner.init(machines=2, num_cpus=2, log_to_driver=False):
            yield runner.remote(Far)


def get(ref: Any) -> Any:
    return runner.get(ref, timeout=30)


def test_calls_values_and_streams(far: Any) -> None:
    actor = far.remote()
    assert get([actor.add.remote() for _ in range(200)]) == list(range(1, 201))
    large = np.arange(100_000)
    assert (get(actor.echo.remote(large)) == large).all()
    assert get(actor.echo.remote(runner.put(b"x" * 150_000))) == b"x" * 150_000
    assert get(get(actor.echo.remote([runner.put(1)]))) == [1]
    assert [get(ref) for ref in actor.count.remote(50)] == list(range(50))


def test_threads_and_handles_in_tasks(far: Any) -> None:
    actor = far.options(max_concurrency=2).remote()
    waiting = actor.wait_for_go.remote()

    @runner.remote
    def use(handle: Any) -> int:
        total: int = runner.get(handle.add.remote())
        runner.get(handle.set_go.remote())
        return total

    assert get(use.remote(actor)) == 1
    assert get(waiting) == "went"


def test_a_kill_fails_the_calls(far: Any) -> None:
    actor = far.remote()
    assert get(actor.add.remote()) == 1
    waiting = actor.wait_for_go.remote()
    runner.kill(actor)
    for ref in (waiting, actor.add.remote()):
        with pytest.raises(ActorDiedError):
            get(ref)


def test_replies_that_were_lost_do_not_leave_anybody_waiting(far: Any) -> None:
    from runner.client.context import current_session

    actor = far.remote()
    assert get(actor.add.remote()) == 1
    current_session().replies_lost()
    assert get(actor.add.remote()) == 2
