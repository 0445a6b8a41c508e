"""Remote calls through everything: client, coordinator, agent, executor and back."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

import runner
from runner.client.context import current_session
from runner.client.streams import client_transport
from runner.errors import (
    GetTimeoutError,
    NotScalarError,
    TaskCancelledError,
    TaskError,
    TaskTimeoutError,
    UnschedulableError,
    WorkerCrashedError,
)
from runner.rpc.gen import client_pb2
from tests.integration.helpers import wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(60)]


@runner.remote
def add(x: Any, y: Any = 0) -> Any:
    return x + y


def test_values_come_back_in_order() -> None:
    assert runner.get([add.remote(index, y=1) for index in range(50)], timeout=30) == list(range(1, 51))


def test_refs_as_arguments_are_their_values() -> None:
    first = add.remote(1, 2)
    assert runner.get(add.remote(first, runner.put(10)), timeout=30) == 13


def test_many_middling_arguments_exceed_no_message() -> None:
    parts = [runner.put(bytes([index]) * 90_000) for index in range(80)]  # inline each, 7 MB together

    @runner.remote
    def first_bytes(*parts: bytes) -> list[int]:
        return [part[0] for part in parts]

    assert runner.get(first_bytes.remote(*parts), timeout=30) == list(range(80))


def test_refs_inside_arguments_stay_refs_and_are_read_in_the_task() -> None:
    @runner.remote
    def total(refs: list[Any]) -> int:
        return sum(runner.get(refs))

    refs = [runner.put(index) for index in range(3)]
    task = total.remote([*refs, add.remote(3, 4)])
    del refs
    assert runner.get(task, timeout=30) == 10


def test_tasks_submit_tasks_and_give_back_refs() -> None:
    @runner.remote
    def make() -> list[Any]:
        return [runner.put("put inside"), add.remote(20, 2), runner.put(np.arange(50_000))]

    put, task, array = runner.get(make.remote(), timeout=30)
    assert runner.get(put, timeout=30) == "put inside"
    assert runner.get(task, timeout=30) == 22
    assert runner.get(array, timeout=30).sum() == sum(range(50_000))


def test_several_returns_and_none() -> None:
    pair: Any = runner.remote(num_returns=2)(lambda: (1, 2)).remote()
    assert runner.get(pair, timeout=30) == [1, 2]
    assert runner.remote(num_returns=0)(lambda: None).remote() is None


def test_large_values_are_shared_and_read_only() -> None:
    ref = runner.put(np.arange(1_000_000))

    @runner.remote
    def look(array: Any) -> tuple[bool, int, Any]:
        return array.flags.writeable, int(array.sum()), array * 2

    writeable, total, doubled = runner.get(look.remote(ref), timeout=30)
    assert (writeable, total) == (False, sum(range(1_000_000)))
    assert not doubled.flags.writeable
    assert int(doubled[-1]) == 1_999_998


def test_tensors_travel_and_may_be_written() -> None:
    weights = torch.ones(200_000)

    @runner.remote
    def step(tensor: Any) -> Any:
        tensor += 1
        return tensor

    ref = runner.put(weights)
    changed = runner.get(step.remote(ref), timeout=60)
    assert float(changed.sum()) == 400_000
    assert float(runner.get(ref).sum()) == 200_000


def test_large_arguments_and_large_functions() -> None:
    data = os.urandom(1_000_000)
    assert runner.get(runner.remote(lambda: len(data)).remote(), timeout=30) == 1_000_000
    assert runner.get(runner.remote(lambda a, b: len(a) + len(b)).remote(data, b=data), timeout=30) == 2_000_000


def test_an_exception_is_of_both_types_here_and_in_dependants() -> None:
    @runner.remote
    def fails() -> None:
        raise KeyError("missing")

    ref = fails.remote()
    for each in (ref, add.remote(ref)):
        with pytest.raises(KeyError) as caught:
            runner.get(each, timeout=30)
        assert isinstance(caught.value, TaskError)
        assert "in fails" in caught.value.remote_traceback


def test_an_exception_that_cannot_be_pickled_is_readable() -> None:
    class Odd(Exception):
        def __init__(self) -> None:
            super().__init__("odd one")
            self.lock = threading.Lock()

    @runner.remote
    def fails() -> None:
        raise Odd

    with pytest.raises(TaskError, match="odd one"):
        runner.get(fails.remote(), timeout=30)


def test_user_errors_are_retried_when_asked(tmp_path: Any) -> None:
    mark = tmp_path / "tried"

    @runner.remote(retry_exceptions=[ValueError], max_retries=2)
    def flaky() -> str:
        if not mark.exists():
            mark.touch()
            raise ValueError("first time")
        return "done"

    assert runner.get(flaky.remote(), timeout=30) == "done"


def test_a_worker_that_dies_is_retried_and_then_an_error_with_its_history() -> None:
    @runner.remote(max_retries=1)
    def dies() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerCrashedError, match="SIGKILL") as caught:
        runner.get(dies.remote(), timeout=30)
    assert len(caught.value.history) == 2


def test_get_in_time_and_wait() -> None:
    @runner.remote
    def sleep(seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    slow, quick = sleep.remote(5), sleep.remote(0)
    ready, others = runner.wait([slow, quick], timeout=30)
    assert (ready, others) == ([quick], [slow])
    with pytest.raises(GetTimeoutError):
        runner.get(slow, timeout=0.05)
    runner.cancel(slow)
    with pytest.raises(TaskCancelledError):
        runner.get(slow, timeout=30)


def test_a_task_that_takes_too_long() -> None:
    with pytest.raises(TaskTimeoutError):
        runner.get(runner.remote(timeout_s=0.3)(lambda: time.sleep(30)).remote(), timeout=30)


def test_what_never_fits_fails_at_once_and_says_why() -> None:
    started = time.monotonic()
    with pytest.raises(UnschedulableError, match="CPU 64"):
        runner.get(add.options(num_cpus=64).remote(1), timeout=30)
    # It takes one round trip; the bound leaves room for other load on the host.
    assert time.monotonic() - started < 2


def test_the_environment_of_a_task() -> None:
    @runner.remote(runtime_env={"env_vars": {"MINE": "yes"}}, num_cpus=2)
    def look() -> tuple[str | None, dict[str, float], str | None, bool]:
        context = runner.get_runtime_context()
        return os.environ.get("MINE"), context.get_assigned_resources(), context.get_node_id(), context.is_canceled()

    mine, resources, node, is_canceled = runner.get(look.remote(), timeout=30)
    assert (mine, resources, is_canceled) == ("yes", {"CPU": 2.0}, False)
    assert node in {each.machine_id for each in runner.nodes()}


def test_reports_of_other_things_than_scalars() -> None:
    @runner.remote
    def bad() -> None:
        runner.report({"loss": [1, 2]})

    with pytest.raises(NotScalarError, match="loss"):
        runner.get(bad.remote(), timeout=30)


def test_nodes_and_resources() -> None:
    wait_until(lambda: all(node.state == "ready" for node in runner.nodes()), 30, "both machines are ready")
    nodes = runner.nodes()
    assert len(nodes) == 2
    assert all(node.resources["CPU"] == 2 for node in nodes)
    assert runner.cluster_resources()["CPU"] == 4


def test_map_in_order() -> None:
    assert list(runner.map(lambda x, y: x * y, range(20), range(20), max_outstanding=5)) == [x * x for x in range(20)]


def test_calls_of_map_are_forgotten_and_named_ones_kept() -> None:
    def known(name: str) -> int:
        transport = client_transport(current_session())
        return sum(
            len(transport.request("ListTasks", client_pb2.ListTasksRequest(name=each), client_pb2.ListTasksReply).tasks)
            for each in (f"{name}[{index}]" for index in range(5))
        )

    assert list(runner.map(add, range(5))) == list(runner.map(add.options(name="kept"), range(5))) == list(range(5))
    wait_until(lambda: known("add") == 0, 10, "plain calls are forgotten with their results")
    assert known("kept") == 5


async def test_awaiting() -> None:
    assert await asyncio.gather(*(add.remote(index) for index in range(5))) == list(range(5))


def test_ten_thousand_calls_leave_nothing_in_the_session() -> None:
    nothing = runner.remote(lambda: None)
    refs = [nothing.remote() for _ in range(2_000)]
    runner.get(refs, timeout=50)
    del refs
    session = runner.client.context.current_session()
    assert session.flush(5)
    assert len(session.held()) < 50


def test_processes_forked_in_a_task_do_not_disturb_it() -> None:
    @runner.remote
    def forks() -> list[int]:
        pids = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                os._exit(7)
            pids.append(os.waitpid(pid, 0)[1] >> 8)
        return [*pids, runner.get(add.remote(1, 1))]

    assert runner.get(forks.remote(), timeout=30) == [7, 7, 7, 2]


def test_data_loader_workers_in_client_and_task() -> None:
    def batches() -> int:
        data = torch.utils.data.TensorDataset(torch.arange(20))
        loader = torch.utils.data.DataLoader(data, batch_size=5, num_workers=2, multiprocessing_context="fork")
        return sum(int(batch[0].sum()) for batch in loader)

    assert batches() == 190
    assert runner.get(runner.remote(batches).remote(), timeout=60) == 190
    assert runner.get(add.remote(1, 1), timeout=30) == 2
