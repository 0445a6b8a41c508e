"""The interface of `concurrent.futures.Executor`: the same cases on ours and on both of the standard library.

The cases follow those of CPython's test_concurrent_futures. Left out on purpose, each with its reason:

* interpreter shutdown (interpreter_shutdown, submit_after_interpreter_shutdown, hang_gh83386): the session ends with the process and
  cancels what is not detached; a pool of the standard library waits for it.
* threads and processes of a pool (threads_terminate, processes_terminate, thread_names_*, idle_*_reuse,
  spawn_process_on_demand, max_tasks_per_child*, force_shutdown_workers, del_shutdown): worker processes are the
  cluster's, shared by all executors.
* mp_context, max_workers above the platform's limit: there is no such limit here.
* killed_child, and all of test_deadlock: a worker that dies breaks the standard library's pool; here its call is
  retried or fails alone (see test_a_dead_worker_breaks_nothing).
* traceback (the text of `exc.__cause__`): the remote traceback is in the error's own text.
* pending_calls_race, at_fork reinitialisation, the queue's internals (saturation): tests of their implementation.
* test_future: our futures are the standard library's own class.
"""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

import runner
from tests.integration.helpers import wait_until

pytestmark = pytest.mark.timeout(60)


def capture(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def wait_for(path: str) -> str:
    wait_until(lambda: os.path.exists(path), 60, "the file is there")
    return path


def fail_when(path: str) -> None:
    wait_for(path)
    raise OSError("this one fails")


def mul(x: int, y: int) -> int:
    return x * y


class Thing:
    def method(self) -> None:
        pass


def make_thing(_: int) -> Thing:
    return Thing()


_state = "uninitialised"


def set_state(value: str) -> None:
    global _state
    _state = value


def get_state() -> str:
    return _state


def cannot_initialise() -> None:
    raise ValueError("error in initializer")


@pytest.fixture
def executor(make: Any) -> Iterator[Any]:
    with make(max_workers=3) as made:
        yield made


# ---- submit and map ----
def test_submit(executor: Any) -> None:
    assert executor.submit(pow, 2, 8).result() == 256
    assert executor.submit(mul, 2, y=8).result() == 16
    assert executor.submit(capture, 1, self=2, fn=3).result() == ((1,), {"self": 2, "fn": 3})
    with pytest.raises(TypeError):
        executor.submit(fn=capture, arg=1)
    with pytest.raises(TypeError):
        executor.submit(arg=1)


def test_map(executor: Any) -> None:
    expected = list(map(pow, range(10), range(10)))
    assert list(executor.map(pow, range(10), range(10))) == expected
    assert list(executor.map(pow, range(10), range(10), chunksize=3)) == expected
    assert list(executor.map(pow, range(10), range(5), chunksize=30)) == expected[:5]
    assert list(executor.map(str, [])) == []


def test_map_raises_at_the_place_of_the_error(executor: Any) -> None:
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_gives_up_after_its_timeout(executor: Any, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    there, later = str(tmp_path / "there"), str(tmp_path / "later")
    taken = []
    with pytest.raises(futures.TimeoutError):
        for each in executor.map(wait_for, [there, there, later], timeout=2):
            taken.append(each)  # noqa: PERF402  what came before the error counts
    Path(later).touch()
    assert taken == [there, there]


def test_numbers_that_cannot_work(make: Any) -> None:
    for number in (0, -1):
        with pytest.raises(ValueError, match="max_workers must be greater than 0"):
            make(max_workers=number)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        make(initializer=5)


def test_chunks_of_nothing() -> None:
    with runner.Executor() as made, pytest.raises(ValueError, match="chunksize must be >= 1"):
        made.map(str, [1], chunksize=0)


def test_arguments_are_not_kept(executor: Any) -> None:
    thing = Thing()
    gone = threading.Event()
    reference = weakref.ref(thing, lambda _: gone.set())
    executor.submit(thing.method)
    del thing
    assert gone.wait(20)
    assert reference() is None


def test_results_are_not_kept(executor: Any) -> None:
    for thing in executor.map(make_thing, range(6)):
        gone = threading.Event()
        weakref.finalize(thing, gone.set)
        del thing
        gc.collect()
        assert gone.wait(5), "the thread that set the result lets go of it right after"


# ---- futures ----
def test_futures_tell_where_they_are_and_only_waiting_ones_can_be_cancelled(make: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with make(max_workers=1) as made:
        first = made.submit(wait_for, str(go))
        # A pool of processes takes a few more than it has workers off its queue.
        others = [made.submit(mul, 2, 3) for _ in range(5)]
        wait_until(first.running, 20, "the first runs")
        assert not first.cancel()
        assert others[-1].cancel()
        assert others[-1].cancelled()
        assert not others[0].done()
        go.touch()
        assert first.result(20) == str(go)
        assert others[0].result(20) == 6
        assert first.done()
        with pytest.raises(futures.CancelledError):
            others[-1].result()


def test_callbacks_come_once_with_the_future(executor: Any) -> None:
    seen: list[Any] = []
    arrived = threading.Event()

    def look(future: Any) -> None:
        seen.append(future.exception() or future.result())
        if len(seen) == 2:
            arrived.set()

    executor.submit(mul, 2, 4).add_done_callback(look)
    executor.submit(divmod, 1, 0).add_done_callback(look)
    assert arrived.wait(20)
    assert {type(each) is int for each in seen} == {True, False}
    assert 8 in seen


def test_wait_for_the_first_the_first_error_and_all(executor: Any, tmp_path: Path) -> None:
    never, bad = tmp_path / "last", tmp_path / "bad"
    slow = executor.submit(wait_for, str(never))
    quick = executor.submit(mul, 3, 7)
    done, pending = futures.wait([slow, quick], return_when=futures.FIRST_COMPLETED, timeout=20)
    assert (done, pending) == ({quick}, {slow})
    failing = executor.submit(fail_when, str(bad))
    bad.touch()
    done, pending = futures.wait([slow, failing], return_when=futures.FIRST_EXCEPTION, timeout=20)
    assert (done, pending) == ({failing}, {slow})
    done, pending = futures.wait([slow, quick], timeout=0.05)
    assert pending == {slow}
    never.touch()
    assert futures.wait([slow, quick, failing], timeout=20).not_done == set()


def test_as_completed(executor: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    slow, quick = executor.submit(wait_for, str(go)), executor.submit(mul, 7, 6)
    order = futures.as_completed([slow, quick, quick], timeout=20)
    assert next(order) is quick
    with pytest.raises(futures.TimeoutError, match=r"1 \(of 2\) futures unfinished"):
        list(futures.as_completed([slow, quick], timeout=0.05))
    go.touch()
    assert list(order) == [slow]


def test_errors_are_the_functions_own(executor: Any) -> None:
    error = executor.submit(open, "/no/such/file").exception(20)
    assert isinstance(error, FileNotFoundError)
    assert error.filename == "/no/such/file"


# ---- the end ----
def test_nothing_can_be_submitted_after_shutdown(make: Any) -> None:
    made = make()
    made.shutdown()
    made.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        made.submit(pow, 2, 5)


def test_leaving_the_context_waits_for_all(make: Any) -> None:
    with make(max_workers=2) as made:
        pending = [made.submit(mul, each, each) for each in range(12)]
    assert all(each.done() for each in pending)
    assert [each.result() for each in pending] == [each * each for each in range(12)]


def test_shutdown_can_leave_without_waiting(make: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    made = make(max_workers=1)
    slow, later = made.submit(wait_for, str(go)), made.submit(mul, 2, 2)
    made.shutdown(wait=False)
    assert not slow.done()
    go.touch()
    assert later.result(20) == 4


def test_shutdown_can_cancel_what_waits(make: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    made = make(max_workers=2)
    pending = [made.submit(wait_for, str(go)) for _ in range(12)]
    wait_until(pending[0].running, 20, "the first runs")
    threading.Timer(0.1, go.touch).start()
    made.shutdown(cancel_futures=True)
    cancelled = [each for each in pending if each.cancelled()]
    assert len(cancelled) >= 7
    assert all(each.result() == str(go) for each in pending if each not in cancelled)


# ---- initializers ----
def test_an_initializer_runs_before_the_calls(make: Any) -> None:
    with make(max_workers=2, initializer=set_state, initargs=("initialised",)) as made:
        assert {each.result() for each in [made.submit(get_state) for _ in range(6)]} == {"initialised"}
    set_state("uninitialised")


def test_an_initializer_that_fails_breaks_the_executor(make: Any) -> None:
    made = make(max_workers=2, initializer=cannot_initialise)
    with pytest.raises(futures.BrokenExecutor):
        made.submit(get_state).result(20)

    def is_broken() -> bool:
        try:
            made.submit(get_state)
        except futures.BrokenExecutor:
            return True
        return False

    wait_until(is_broken, 20, "it takes nothing more")
    made.shutdown()


# ---- ours alone ----
def test_a_dead_worker_breaks_nothing() -> None:
    with runner.Executor(max_workers=2, max_retries=0) as made:
        with pytest.raises(runner.errors.WorkerCrashedError):
            made.submit(os._exit, 3).result(30)
        assert made.submit(mul, 2, 2).result(20) == 4


def test_no_more_than_max_workers_are_with_the_cluster(tmp_path: Path) -> None:
    go = tmp_path / "go"
    with runner.Executor(max_workers=2, num_cpus=0.1) as made:
        pending = [made.submit(wait_for, str(go)) for _ in range(6)]
        wait_until(lambda: sum(each.running() for each in pending) == 2, 20, "two are with the cluster")
        go.touch()
        assert len([each.result(20) for each in pending]) == 6


def test_refs_are_arguments_and_options_count() -> None:
    with runner.Executor(num_cpus=2, runtime_env={"env_vars": {"SAID": "so"}}) as made:
        assert made.submit(capture, runner.put(6), 7).result(20) == ((6, 7), {})
        assert made.submit(os.getenv, "SAID").result(20) == "so"
    with pytest.raises(ValueError, match="Unknown option 'cpus'"):
        runner.Executor(cpus=2)  # type: ignore[call-arg]
