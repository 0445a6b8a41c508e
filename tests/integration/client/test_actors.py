"""Actors from a client and from tasks: calls, values, order, names, handles."""

from __future__ import annotations

import asyncio
import functools
import operator
import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

import runner
from runner.errors import (
    ActorDiedError,
    BadOptionsError,
    GetTimeoutError,
    PendingCallsLimitExceededError,
    TaskCancelledError,
    TaskError,
)
from tests.integration.client.plain_actor import Plain
from tests.integration.helpers import wait_until

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("cluster")]


@pytest.fixture(scope="module")
def actor_class(cluster: Any) -> Any:
    return runner.remote(Plain)


@pytest.fixture(scope="module")
def shared(actor_class: Any) -> Any:
    return actor_class.remote()


def get(ref: Any) -> Any:
    return runner.get(ref, timeout=30)


def test_calls_of_one_caller_run_in_order(actor_class: Any) -> None:
    actor = actor_class.remote(10)
    refs = [actor.add.remote(2) for _ in range(300)]
    assert get(refs) == list(range(12, 612, 2))
    assert get(actor.add.remote(amount=-600)) == 10


def test_values_of_all_sizes_come_back(shared: Any) -> None:
    assert get(shared.echo.remote(None)) is None
    large = np.arange(100_000)
    assert (get(shared.echo.remote(large)) == large).all()
    assert get(shared.echo.remote(b"x" * 300_000)) == b"x" * 300_000
    assert get(shared.pair.remote()) == [1, 2]
    assert shared.echo.options(num_returns=0).remote(1) is None
    assert get(shared.echo.options(num_returns=3).remote((1, 2, 3))) == [1, 2, 3]


def test_errors_are_of_the_users_type_and_the_actor_lives_on(shared: Any) -> None:
    with pytest.raises(KeyError) as raised:
        get(shared.fail.remote())
    assert isinstance(raised.value, TaskError)
    assert "Plain.fail" in str(raised.value)
    assert get(shared.echo.remote(1)) == 1


def test_generators_come_item_by_item(shared: Any) -> None:
    assert [get(ref) for ref in shared.count.remote(100)] == list(range(100))
    assert [int(get(ref)[0]) for ref in shared.arrays.remote(3)] == [0, 1, 2]
    refs = list(shared.count_and_fail.remote())
    assert get(refs[0]) == 1
    with pytest.raises(ValueError, match="after one"):
        get(refs[1])
    stream = shared.count.remote(10_000_000)
    assert get(next(stream)) == 0
    stream.close()
    assert get(shared.echo.remote("free again")) == "free again"


def test_waiting_awaiting_and_futures(actor_class: Any) -> None:
    @runner.remote
    def one() -> int:
        return 1

    actor = actor_class.options(max_concurrency=2).remote()
    pending = actor.wait_for_go.remote()
    quick = actor.add.remote()
    assert runner.wait([pending, quick, one.remote()], num_returns=2, timeout=30)[1] == [pending]
    with pytest.raises(GetTimeoutError):
        runner.get(pending, timeout=0.05)
    future = pending.future()

    async def use() -> list[Any]:
        actor.set_go.remote()
        return await asyncio.gather(pending, *(actor.add.remote() for _ in range(20)))

    went, *totals = asyncio.run(use())
    assert went == future.result(timeout=30) == "went"
    assert sorted(totals) == list(range(2, 22))


def test_threads_share_a_handle(actor_class: Any) -> None:
    actor = actor_class.remote()
    results: list[list[int]] = []

    def use() -> None:
        results.append([get(actor.add.remote()) for _ in range(100)])

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(functools.reduce(operator.iadd, results, [])) == list(range(1, 401))
    assert all(each == sorted(each) for each in results)


def test_handles_travel(actor_class: Any) -> None:
    @runner.remote
    def use(handle: Any, others: dict[str, Any]) -> list[int]:
        assert others["same"] == handle
        return runner.get([handle.add.remote() for _ in range(3)])

    actor = actor_class.remote()
    assert get(use.remote(actor, {"same": actor})) == [1, 2, 3]
    keeper = actor_class.remote()
    get(keeper.keep.remote(actor))
    back = get(keeper.echo.remote(actor))
    assert back == actor and hash(back) == hash(actor) and repr(back) == repr(actor)
    assert get(back.add.remote()) == 4

    @runner.remote
    def closure() -> int:
        total: int = runner.get(actor.add.remote())
        return total

    assert get(closure.remote()) == 5


def test_an_actor_made_in_a_task_and_in_an_actor(actor_class: Any) -> None:
    @runner.remote
    def make() -> Any:
        handle = actor_class.remote(100)
        runner.get(handle.add.remote())
        return handle

    class Parent:
        def __init__(self) -> None:
            self.child = actor_class.remote(5)

        def ask(self) -> int:
            total: int = runner.get(self.child.add.remote())
            return total

    assert get(get(make.remote()).add.remote()) == 102
    assert get(runner.remote(Parent).remote().ask.remote()) == 6


def test_an_async_actor_and_its_streams() -> None:
    class Async:
        def __init__(self) -> None:
            self.go = asyncio.Event()

        async def wait(self) -> str:
            await self.go.wait()
            return "went"

        async def set(self) -> None:
            self.go.set()

        async def items(self) -> AsyncIterator[int]:
            for index in range(3):
                await asyncio.sleep(0)
                yield index

    actor = runner.remote(Async).remote()
    waiting = [actor.wait.remote() for _ in range(50)]
    get(actor.set.remote())
    assert get(waiting) == ["went"] * 50

    async def read() -> list[int]:
        return [await ref async for ref in actor.items.remote()]

    assert asyncio.run(read()) == [0, 1, 2]


def test_names(actor_class: Any) -> None:
    with pytest.raises(ValueError, match="Failed to look up actor 'counter'"):
        runner.get_actor("counter")
    actor = actor_class.options(name="counter").remote(1)
    assert get(runner.get_actor("counter").add.remote()) == 2
    with pytest.raises(ValueError, match="is taken"):
        actor_class.options(name="counter").remote()
    same = actor_class.options(name="counter", get_if_exists=True).remote(50)
    assert same == actor
    assert get(same.add.remote()) == 3
    other = actor_class.options(name="counter", namespace="elsewhere").remote(70)
    assert get(runner.get_actor("counter", namespace="elsewhere").add.remote()) == 71
    assert other != actor

    @runner.remote
    def look() -> int:
        total: int = runner.get(runner.get_actor("counter").add.remote())
        return total

    assert get(look.remote()) == 4
    runner.kill(actor)
    wait_until(lambda: _is_missing("counter"), 10, "the name to be free")
    with pytest.raises(ActorDiedError, match=r"\(counter\) was ended"):  # people know it by its name
        get(actor.add.remote())


def test_an_actor_tells_who_it_is_and_hands_itself_out(actor_class: Any) -> None:
    class Teller:
        def tell(self) -> tuple[Any, ...]:
            context = runner.get_runtime_context()
            return context.current_actor, context.get_actor_id(), context.get_actor_name()

    teller = runner.remote(Teller)
    actor = teller.remote()
    itself, actor_id, name = get(actor.tell.remote())
    assert itself == actor
    assert actor_id == actor._actor_id
    assert name == ""
    named = teller.options(name="teller").remote()
    del actor
    assert get(itself.tell.remote())[1] == actor_id  # the handle that it gave keeps it
    assert get(named.tell.remote())[::2] == (named, "teller")


def _is_missing(name: str) -> bool:
    try:
        runner.get_actor(name)
    except ValueError:
        return True
    return False


def test_a_name_is_free_when_its_last_handle_is_gone_and_when_it_is_killed(actor_class: Any) -> None:
    options = {"name": "again", "get_if_exists": True}
    first = actor_class.options(**options).remote()
    pids = [get(first.pid.remote())]
    del first
    second = actor_class.options(**options).remote()
    pids.append(get(second.pid.remote()))
    runner.kill(second)
    third = actor_class.options(**options).remote()
    pids.append(get(third.pid.remote()))
    assert len(set(pids)) == 3
    assert get(runner.get_actor("again").pid.remote()) == pids[2]


def test_cancelling(actor_class: Any) -> None:
    actor = actor_class.options(max_concurrency=2).remote()
    queue = actor_class.remote()
    gate = actor.wait_for_go.remote()
    behind = queue.echo.remote(gate)
    waiting = queue.add.remote()
    runner.cancel(waiting)
    with pytest.raises(TaskCancelledError):
        get(waiting)
    get(actor.set_go.remote())
    assert get(behind) == "went"
    runner.cancel(behind)
    assert get(behind) == "went"
    with pytest.raises(ValueError, match="force"):
        runner.cancel(behind, force=True)
    assert get(queue.add.remote()) == 1


def test_a_limit_of_pending_calls(actor_class: Any) -> None:
    actor = actor_class.options(max_pending_calls=2, max_concurrency=2).remote()
    pending = actor.wait_for_go.remote()
    go = actor.set_go.remote()
    if runner.wait([go], timeout=0)[0] == []:
        with pytest.raises(PendingCallsLimitExceededError, match="max_pending_calls is 2"):
            actor.add.remote()
    get([pending, go])
    assert get(actor.add.remote()) == 1


def test_an_actor_without_handles_ends(actor_class: Any) -> None:
    from tests.integration.helpers import wait_gone

    actor = actor_class.remote()
    pid = get(actor.pid.remote())
    last = actor.add.remote()
    del actor
    assert get(last) == 1
    del last
    wait_gone([pid], 20)


def test_readiness_and_wrong_uses(actor_class: Any, shared: Any) -> None:
    assert get(shared.__runner_ready__.remote()) is get(shared.__ray_ready__.remote()) is True
    with pytest.raises(TypeError, match=r"Plain\(\) is an actor class: call Plain.remote"):
        actor_class()
    with pytest.raises(TypeError, match=r"call .add.remote\(...\)"):
        shared.add()
    with pytest.raises(AttributeError, match="Plain has no method 'nothing'"):
        shared.nothing
    with pytest.raises(BadOptionsError, match='lifetime="detached" needs a cluster'):
        actor_class.options(name="d", lifetime="detached").remote()
    assert "add" in dir(shared)


def test_retried_errors() -> None:
    class Flaky:
        def __init__(self) -> None:
            self.tries = 0

        @runner.method(max_task_retries=3, retry_exceptions=[ValueError])
        def work(self) -> int:
            self.tries += 1
            if self.tries < 3:
                raise ValueError("not yet")
            return self.tries

    assert get(runner.remote(Flaky).remote().work.remote()) == 3


def test_calls_leave_nothing_behind(actor_class: Any) -> None:
    from runner.client.context import current_session

    session = current_session()
    actor = actor_class.remote()
    before = set(session.held())
    for _ in range(3):
        get([actor.echo.remote(index) for index in range(1000)])
        get(actor.echo.remote([runner.put(1)]))
        get(actor.echo.remote(np.arange(50_000)))
        list(actor.count.remote(50))
        actor.arrays.remote(5)
        next(actor.count.remote(1_000_000))
    get(actor.add.remote())
    wait_until(lambda: set(session.held()) <= before, 10, "all refs to be released")
    local, actors = session.machine.local, session.actors
    wait_until(lambda: not (local._local or local._promised or local._expected), 10, "local objects to be forgotten")
    wait_until(lambda: not actors._callers, 10, "all calls to be over")
    assert set(session.machine.outcomes) <= before
    handle_id = actor._ref.id
    del actor
    wait_until(lambda: not session.held().count(handle_id), 10, "the handle to be released")
    wait_until(lambda: handle_id not in actors._channels, 10, "its channel to go")
    wait_until(lambda: len(actors.links._by_fd) <= len(actors._channels), 10, "its socket to be closed")


def test_a_forked_child_keeps_no_connection(actor_class: Any, tmp_path: Any) -> None:
    actor = actor_class.remote()
    assert get(actor.add.remote()) == 1
    said = tmp_path / "said"
    pid = os.fork()
    if not pid:
        try:
            actor.add.remote()
        except BaseException as error:
            said.write_text(str(error))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert "forked" in said.read_text()
    assert get(actor.add.remote()) == 2
