"""How actors end, and what becomes of their calls."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.errors import ActorDiedError, ActorUnavailableError
from tests.integration.helpers import wait_gone, wait_until

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("cluster")]


class Mortal:
    def __init__(self, log: str = "", *, fails: bool = False) -> None:
        if fails:
            raise RuntimeError("a bad start")
        self.total = 0
        self.log = log
        self.go = threading.Event()

    def add(self) -> int:
        self.total += 1
        return self.total

    def pid(self) -> int:
        return os.getpid()

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self) -> None:
        runner.exit_actor()

    def hold(self) -> None:
        with open(self.log, "a") as file:
            file.write("held\n")
        self.go.wait(30)

    @runner.exit
    def tell(self) -> None:
        if self.log:
            with open(self.log, "a") as file:
                file.write("exit\n")


@pytest.fixture(scope="module")
def mortal(cluster: Any) -> Any:
    return runner.remote(Mortal)


def get(ref: Any) -> Any:
    return runner.get(ref, timeout=30)


def test_a_killed_actor_fails_its_calls_with_the_cause(mortal: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    actor = mortal.remote(str(log))
    pid = get(actor.pid.remote())
    running, waiting = actor.hold.remote(), actor.add.remote()
    wait_until(log.exists, 10, "the call to run")
    runner.kill(actor)
    for ref in (running, waiting, actor.add.remote()):
        with pytest.raises(ActorDiedError, match=r"runner.kill\(\) was called"):
            get(ref)
    wait_gone([pid], 10)
    assert log.read_text() == "held\n"


def test_an_error_in_the_constructor_is_the_cause(mortal: Any) -> None:
    actor = mortal.remote(fails=True)
    for _ in range(2):
        with pytest.raises(ActorDiedError, match='raise RuntimeError\\("a bad start"\\)'):
            get(actor.add.remote())


def test_a_crash_is_the_end_without_restarts(mortal: Any) -> None:
    actor = mortal.remote()
    refs = [actor.add.remote(), actor.die.remote(), actor.add.remote()]
    assert get(refs[0]) == 1
    for ref in (*refs[1:], actor.add.remote()):
        with pytest.raises(ActorDiedError, match="SIGKILL"):
            get(ref)


def test_a_restarted_actor_begins_anew(mortal: Any) -> None:
    actor = mortal.options(max_restarts=1).remote()
    assert get([actor.add.remote() for _ in range(3)]) == [1, 2, 3]
    with pytest.raises(ActorUnavailableError, match="may or may not have run"):
        get(actor.die.remote())
    assert get(actor.add.remote()) == 1
    with pytest.raises(ActorDiedError, match="max_restarts=1"):
        get(actor.die.remote())
    with pytest.raises(ActorDiedError):
        get(actor.add.remote())


def test_calls_under_way_are_sent_again_in_order(mortal: Any) -> None:
    actor = mortal.options(max_restarts=1, max_task_retries=1).remote()
    first = actor.die.options(max_task_retries=0).remote()
    later = [actor.add.remote() for _ in range(20)]
    with pytest.raises(ActorUnavailableError):
        get(first)
    assert get(later) == list(range(1, 21))


def test_calls_that_end_their_actor_over_and_over_do_not_take_what_was_done_with_them(cluster: Any) -> None:
    class Brittle:
        total = 0

        def add(self) -> int:
            self.total += 1
            if self.total == 3:
                os._exit(1)
            return self.total

    actor: Any = runner.remote(Brittle).options(max_restarts=-1, max_task_retries=-1).remote()
    assert get([actor.add.remote() for _ in range(5)]) == [1, 2, 1, 2, 1]


def test_a_kill_that_lets_it_restart(mortal: Any) -> None:
    actor = mortal.options(max_restarts=1).remote()
    pid = get(actor.pid.remote())
    runner.kill(actor, no_restart=False)
    assert get(actor.add.remote()) == 1
    assert get(actor.pid.remote()) != pid


def test_an_actor_can_leave(mortal: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    actor = mortal.options(max_restarts=5).remote(str(log))
    with pytest.raises(ActorDiedError, match="exit_actor"):
        get(actor.leave.remote())
    with pytest.raises(ActorDiedError, match="exit_actor"):
        get(actor.add.remote())
    assert log.read_text() == "exit\n"
    other = mortal.remote()
    with pytest.raises(ActorDiedError):
        get(other.__ray_terminate__.remote())


@pytest.mark.parametrize("threads", [1, 3])
def test_the_exit_hooks_run_when_the_last_handle_is_gone(mortal: Any, tmp_path: Path, threads: int) -> None:
    log = tmp_path / "log"
    actor = mortal.options(max_concurrency=threads).remote(str(log))
    pid = get(actor.pid.remote())
    del actor
    wait_gone([pid], 20)
    assert log.read_text() == "exit\n"


def test_an_actor_dies_with_the_arguments_of_its_constructor(mortal: Any) -> None:
    @runner.remote
    def fail() -> str:
        raise OSError("no log")

    actor = mortal.remote(fail.remote())
    with pytest.raises(ActorDiedError, match="no log"):
        get(actor.add.remote())


def test_whoever_needs_the_result_of_a_process_that_is_gone_is_told(mortal: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    actor = mortal.options(max_concurrency=2).remote(str(log))

    @runner.remote(max_retries=0, max_calls=1)
    def call_and_die(handle: Any) -> Any:
        return [handle.hold.remote()]

    inner = get(call_and_die.remote(actor))[0]
    with pytest.raises(runner.errors.ObjectLostError):
        get(inner)
