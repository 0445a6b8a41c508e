"""User code in executors: results, output, errors, and everything that user code does to its process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from runner.core.values import CPU, MEMORY, UNIT
from runner.rpc.gen import types_pb2
from tests.integration.worker.harness import is_alive, machine, wait_gone

# The functions below travel by value, as those of a user's script do.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

CRASHED = types_pb2.FAILURE_KIND_WORKER_CRASHED


def add(a: int, b: int) -> int:
    return a + b


async def test_a_task_returns_its_value() -> None:
    async with machine() as worker:
        outcome = await worker.run(add, 1, 2)
        assert outcome.value() == 3
        assert outcome.ended is not None and outcome.ended.duration_s > 0


async def test_several_return_values() -> None:
    async with machine() as worker:
        outcome = await worker.run(lambda: (1, "two", None), num_returns=3)
        assert [outcome.value(index) for index in range(3)] == [1, "two", None]
        nothing = await worker.run(lambda: 1, num_returns=0)
        assert nothing.ended is not None and nothing.ended.WhichOneof("outcome") == "returns"
        wrong = await worker.run(lambda: (1, 2), num_returns=3)
        assert "num_returns=3" in wrong.failure.message


async def test_attempts_of_one_slot_run_one_after_the_other_in_one_executor() -> None:
    def interval() -> tuple[int, float, float]:
        start = time.monotonic()
        sum(range(10_000))
        return os.getpid(), start, time.monotonic()

    async with machine() as worker:
        await worker.run(interval)  # else those behind the first one would be given back while its executor starts
        ids = [worker.start(interval, slot=1) for _ in range(5)]
        spans = [(await worker.ended(each)).value() for each in ids]
        assert len({pid for pid, _, _ in spans}) == 1
        assert all(before[2] <= after[1] for before, after in zip(spans, spans[1:], strict=False))


async def test_output_is_captured_by_line_and_before_later_metrics() -> None:
    def talk() -> None:
        import runner

        print("one")
        runner.report({"loss": 0.5}, step=0)
        print("two\nthree")
        print("oops", file=sys.stderr)
        os.write(1, b"\xff\xfe binary\n")
        subprocess.run(["echo", "from a child"], check=True)
        print("no newline", end="")

    async with machine() as worker:
        outcome = await worker.run(talk)
        assert outcome.lines() == ["one", "two", "three", "\ufffd\ufffd binary", "from a child", "no newline"]
        assert outcome.lines("stderr") == ["oops"]
        kinds = outcome.kinds()
        assert (kinds[0], kinds[-1]) == ("started", "ended")
        # What was printed before a report comes before it; what is printed after it may come first, on its own pipe.
        earlier = [item.logs.lines for item in outcome.items[: kinds.index("metrics")]]
        assert any("one" in lines for lines in earlier)
        indexes: list[int] = []
        for item in outcome.items:
            if item.WhichOneof("item") == "metrics":
                indexes.append(item.metrics.index)
            elif item.WhichOneof("item") == "logs":
                indexes += range(item.logs.first_index, item.logs.first_index + len(item.logs.lines))
        assert indexes == list(range(1, len(indexes) + 1))


async def test_a_huge_line_is_cut() -> None:
    async with machine() as worker:
        outcome = await worker.run(lambda: print("x" * 300_000 + "\nnext"))
        first, second = outcome.lines()
        assert first == "x" * 65536 + f" … [{300_000 - 65536} bytes more]"
        assert second == "next"


async def test_an_exception_comes_with_type_and_traceback() -> None:
    def fail() -> None:
        raise KeyError("missing")

    async with machine() as worker:
        failure = (await worker.run(fail)).failure
        assert failure.kind == types_pb2.FAILURE_KIND_USER
        assert failure.exception_type == "builtins.KeyError"
        assert isinstance(cloudpickle.loads(failure.exception[4:]), KeyError)
        assert "in fail" in failure.traceback
        assert "executor.py" not in failure.traceback
        assert failure.machine_id == "m-1"


async def test_an_exception_that_cannot_be_pickled_is_told_as_text() -> None:
    def fail() -> None:
        class Odd(Exception):
            def __init__(self) -> None:
                super().__init__("odd")
                self.lock = threading.Lock()

        raise Odd

    async with machine() as worker:
        failure = (await worker.run(fail)).failure
        assert failure.exception == b""
        assert failure.exception_type.endswith("Odd")
        assert failure.message == "odd"


@pytest.mark.parametrize(("types", "is_retryable"), [((), True), ((ValueError,), True), ((OSError,), False)])
async def test_retry_exceptions_are_judged_by_the_executor(types: tuple[type, ...], is_retryable: bool) -> None:
    def fail() -> None:
        raise ValueError("x")

    async with machine() as worker:
        from runner.objects.serialization import serialize

        covered = serialize(types).to_bytes() if types else b""
        outcome = await worker.run(fail, retry_user_errors=True, retry_exceptions=covered)
        assert outcome.ended is not None and outcome.ended.retryable is is_retryable


async def test_a_function_that_cannot_be_loaded_is_a_setup_failure() -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return __import__, ("no_such_module_here",)

    async with machine() as worker:
        failure = (await worker.run(add, Bomb(), 1)).failure
        assert failure.kind == types_pb2.FAILURE_KIND_SETUP
        assert "no_such_module_here" in failure.message


async def test_a_result_that_cannot_be_pickled_says_where() -> None:
    async with machine() as worker:
        failure = (await worker.run(lambda: {"a": [threading.Lock()]})).failure
        assert failure.exception_type.endswith("NotSerializableError")
        assert "return value['a'][0]" in failure.message


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("os.kill(os.getpid(), 9)", "was killed by signal 9 (SIGKILL)"),
        ("os._exit(7)", "exited with code 7"),
        ("ctypes.string_at(0)", "was killed by signal 11 (SIGSEGV)"),
        ("os.abort()", "was killed by signal 6 (SIGABRT)"),
    ],
)
async def test_an_executor_that_dies_is_told_with_the_cause(end: str, words: str) -> None:
    def die(code: str) -> None:
        import ctypes

        print("last words", flush=True)
        exec(code, {"os": os, "ctypes": ctypes})

    async with machine() as worker:
        outcome = await worker.run(die, end)
        failure = outcome.failure
        assert failure.kind == CRASHED
        assert words in failure.message
        assert "(die) attempt 1: executor" in failure.message
        assert "last words" in outcome.lines()
        assert (await worker.run(add, 2, 2)).value() == 4
        gone = [item for item in worker.others if item.WhichOneof("item") == "executor_gone"]
        assert len(gone) == 1


async def test_fork_in_a_task() -> None:
    def fork() -> tuple[int, str]:
        import runner

        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                runner.report({"x": 1})
                os.write(write, b"sent")
            except Exception as error:
                os.write(write, type(error).__name__.encode())
            os._exit(3)
        os.close(write)
        with os.fdopen(read) as pipe:
            said = pipe.read()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said

    async with machine() as worker:
        outcome = await worker.run(fork)
        assert outcome.value() == (3, "UsageError")
        assert "metrics" not in outcome.kinds()


class Squares:
    """A class of the user's script: it exists in no module that a spawned process could import."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return index * index


def square(x: int) -> int:
    return x * x


@pytest.mark.parametrize("method", ["fork", "spawn"])
async def test_multiprocessing_in_a_task(method: str) -> None:
    def pool(method: str) -> list[int]:
        with multiprocessing.get_context(method).Pool(2) as workers:
            return workers.map(square, range(5))

    async with machine() as worker:
        outcome = await worker.run(pool, method)
        assert outcome.value() == [0, 1, 4, 9, 16]


@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.long)])
async def test_data_loader_workers_in_a_task(method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))

    def load(method: str) -> tuple[list[int], int]:
        import torch
        from torch.utils.data import DataLoader

        loader = DataLoader(Squares(), batch_size=4, num_workers=2, multiprocessing_context=method)
        return [int(x) for batch in loader for x in batch], torch.get_num_threads()

    async with machine() as worker:
        outcome = await worker.ended(worker.start(load, method, modules=["torch"]), timeout_s=60)
        values, threads = outcome.value()
        assert values == [index * index for index in range(8)]
        assert threads == 1


async def test_threads_left_behind_cannot_report() -> None:
    def leave() -> None:
        import runner

        def later() -> None:
            go.wait()
            try:
                runner.report({"x": 1})
            except Exception as error:
                caught.append(type(error).__name__)

        sys.modules["left"] = left = type(sys)("left")
        go, caught = threading.Event(), []  # type: ignore[var-annotated]
        left.__dict__.update(go=go, caught=caught, thread=threading.Thread(target=later, daemon=True))
        left.thread.start()

    def look() -> list[str]:
        left = sys.modules["left"]
        left.go.set()
        left.thread.join()
        return left.caught

    async with machine(cpus=1) as worker:
        assert (await worker.run(leave, slot=1)).value() is None
        outcome = await worker.run(look, slot=1)
        # The thread reports in the name of the executor's current task, as in Ray.
        assert outcome.value() in ([], ["NotInitializedError"], ["UsageError"])


async def test_children_left_behind_are_killed_and_the_executor_retired() -> None:
    def leave(session: bool) -> tuple[int, int]:
        child = subprocess.Popen(["sleep", "60"], start_new_session=session)
        return os.getpid(), child.pid

    async with machine(cpus=1) as worker:
        for session in (False, True):
            executor, child = (await worker.run(leave, session)).value()
            assert not is_alive(executor)
            assert wait_gone(child, 5.0)
        assert (await worker.run(add, 1, 1)).value() == 2


async def test_max_calls_retires_the_executor() -> None:
    async with machine(cpus=1) as worker:
        pids = [(await worker.run(os.getpid, max_calls=2)).value() for _ in range(4)]
        assert pids[0] == pids[1] != pids[2] == pids[3]


async def test_env_vars_and_threads() -> None:
    def look() -> tuple[str | None, str | None, str | None]:
        return os.environ.get("WORD"), os.environ.get("OMP_NUM_THREADS"), os.environ.get("CUDA_VISIBLE_DEVICES")

    async with machine() as worker:
        assert (await worker.run(look)).value() == (None, "1", None)
        assert (await worker.run(look, amounts={CPU: 2 * UNIT})).value() == (None, "2", None)
        mine = await worker.run(look, env_vars={"WORD": "x", "OMP_NUM_THREADS": "3"})
        assert mine.value() == ("x", "3", None)


async def test_gpu_tasks_see_their_gpus_only_and_get_fresh_processes() -> None:
    def look() -> tuple[str | None, int]:
        return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()

    async with machine(gpus=("4", "5", "6")) as worker:
        first = (await worker.run(look, gpu_ids=[1, 2])).value()
        second = (await worker.run(look, gpu_ids=[1, 2])).value()
        assert first[0] == second[0] == "5,6"
        assert first[1] != second[1]
        assert not is_alive(first[1])
        assert (await worker.run(look)).value()[0] == ""


async def test_gpus_of_a_task_go_before_those_that_the_host_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")  # as Slurm does; the machine's tokens are then of these
    async with machine(gpus=("2", "3")) as worker:
        assert (await worker.run(look, gpu_ids=[1])).value() == "3"
        assert (await worker.run(look, gpu_ids=[0, 1])).value() == "2,3"
        assert (await worker.run(look)).value() == ""
        assert (await worker.run(look, gpu_ids=[0], env_vars={"CUDA_VISIBLE_DEVICES": "7"})).value() == "7"


async def test_memory_limit() -> None:
    def hoard() -> None:
        block = bytearray(300 << 20)
        for index in range(0, len(block), 4096):
            block[index] = 1
        print("full", flush=True)
        signal.pause()

    async with machine() as worker:
        outcome = await worker.run(hoard, amounts={CPU: UNIT, MEMORY: 150 << 20})
        assert outcome.failure.kind == types_pb2.FAILURE_KIND_OUT_OF_MEMORY
        assert "memory=157286400 (150 MiB)" in outcome.failure.message
        small = await worker.run(add, 1, 1, amounts={CPU: UNIT, MEMORY: 150 << 20})
        assert small.value() == 2
