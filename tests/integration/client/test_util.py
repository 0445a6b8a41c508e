"""runner.util: the pool of actors and the queue."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import runner
from runner.errors import BadOptionsError, GetTimeoutError
from runner.util import ActorPool, Empty, Full, Queue

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("cluster")]


class Worker:
    def __init__(self) -> None:
        self.go = threading.Event()

    def double(self, x: int) -> int:
        return 2 * x

    def wait(self, _x: int) -> str:
        return "went" if self.go.wait(30) else "never"

    def set_go(self) -> None:
        self.go.set()


def double(actor: Any, value: int) -> Any:
    return actor.double.remote(value)


def test_a_pool_maps_in_order_and_as_results_come(cluster: Any) -> None:
    actors = [runner.remote(Worker).options(max_concurrency=2).remote() for _ in range(2)]
    pool = ActorPool(actors)
    assert list(pool.map(double, range(10))) == list(range(0, 20, 2))
    assert sorted(pool.map_unordered(double, range(10))) == list(range(0, 20, 2))
    assert not pool.has_next()
    with pytest.raises(StopIteration):
        pool.get_next()
    pool.submit(lambda actor, value: actor.wait.remote(value), 1)
    with pytest.raises(GetTimeoutError):
        pool.get_next(timeout=0.05)
    pool.submit(double, 2)
    assert pool.get_next_unordered(timeout=30) == 4
    runner.get([actor.set_go.remote() for actor in actors])
    assert pool.get_next(timeout=30) == "went"
    with pytest.raises(BadOptionsError):
        pool.push(actors[0])
    assert pool.has_free()
    taken = pool.pop_idle()
    assert taken in actors
    pool.push(taken)


def test_a_queue_between_tasks(cluster: Any) -> None:
    queue = Queue(maxsize=3)

    @runner.remote
    def produce(queue: Queue, count: int) -> None:
        for index in range(count):
            queue.put(index)

    done = produce.remote(queue, 20)
    assert [queue.get(timeout=30) for _ in range(20)] == list(range(20))
    runner.get(done, timeout=30)
    assert queue.empty()
    with pytest.raises(Empty):
        queue.get(timeout=0.05)
    with pytest.raises(Empty):
        queue.get_nowait()
    queue.put_nowait_batch([1, 2, 3])
    assert queue.full() and len(queue) == 3
    with pytest.raises(Full):
        queue.put(4, timeout=0.05)
    with pytest.raises(Full):
        queue.put_nowait(4)
    assert queue.get_nowait_batch(3) == [1, 2, 3]
    queue.shutdown()
