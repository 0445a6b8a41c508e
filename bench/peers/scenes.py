"""What is measured on both systems, by the same code: `api` is the module `ray` or `runner`."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.harness import percentile

TASKS = 10_000
ROUND_TRIPS = 500
LEAVES = 1_000
ARRAY_BYTES = 200_000_000

Samples = dict[str, list[float]]
Scene = Callable[[Any], Samples]


def noop(_index: int = 0) -> None:
    """Nothing."""


def add(left: int, right: int) -> int:
    """Their sum."""
    return left + right


def count(items: int) -> Iterator[int]:
    """Numbers, one by one."""
    index = 0
    while index < items:  # not `yield from range`: Ray sends into the generator, and a range takes nothing
        yield index
        index += 1


def die_once(path: str) -> None:
    """End this process by kill -9 the first time, and leave the moment behind."""
    if not os.path.exists(path):
        with open(path, "w", encoding="ascii") as file:
            file.write(repr(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)


class Counter:
    """An actor."""

    def add(self) -> None:
        """Nothing."""


def _p50_ms(call: Callable[[], Any], trips: int = ROUND_TRIPS) -> float:
    took = []
    for _ in range(trips):
        begin_s = time.perf_counter()
        call()
        took.append((time.perf_counter() - begin_s) * 1e3)
    return percentile(took, 50)


def tasks(api: Any) -> Samples:
    """No-ops: one there and back, and many at once."""
    remote = api.remote(noop)
    api.get([remote.remote() for _ in range(1000)])
    trip_ms = _p50_ms(lambda: api.get(remote.remote()))
    begin_s = time.perf_counter()
    api.get([remote.remote() for _ in range(TASKS)])
    return {"round trip p50": [trip_ms], "10,000 no-ops": [TASKS / (time.perf_counter() - begin_s)]}


def actor_calls(api: Any) -> Samples:
    """Calls of one actor: one there and back, and many at once."""
    actor = api.remote(Counter).remote()
    api.get([actor.add.remote() for _ in range(1000)])
    trip_ms = _p50_ms(lambda: api.get(actor.add.remote()))
    begin_s = time.perf_counter()
    api.get([actor.add.remote() for _ in range(TASKS)])
    rate = TASKS / (time.perf_counter() - begin_s)
    api.kill(actor)
    return {"actor call p50": [trip_ms], "10,000 actor calls": [rate]}


def stream(api: Any) -> Samples:
    """Items of one streaming task, each got in turn."""
    remote = api.remote(count).options(num_returns="streaming")
    for ref in remote.remote(100):
        api.get(ref)
    begin_s = time.perf_counter()
    seen = sum(1 for ref in remote.remote(TASKS) if api.get(ref) is not None)
    assert seen == TASKS
    return {"10,000 streamed items": [TASKS / (time.perf_counter() - begin_s)]}


def tree_reduce(api: Any) -> Samples:
    """Sums of pairs of refs, up to the sum of all."""
    remote = api.remote(add)
    api.get([remote.remote(1, 2) for _ in range(100)])
    begin_s = time.perf_counter()
    refs = [api.put(index) for index in range(LEAVES)]
    while len(refs) > 1:
        odd = refs[-1:] if len(refs) % 2 else []
        refs = [remote.remote(left, right) for left, right in zip(refs[::2], refs[1::2], strict=False)] + odd
    assert api.get(refs[0]) == LEAVES * (LEAVES - 1) // 2
    return {"tree reduce of 1,000 refs": [time.perf_counter() - begin_s]}


def arrays(api: Any) -> Samples:
    """An array put and got; got again where it is mapped already."""
    import numpy

    array = numpy.ones(ARRAY_BYTES // 8)
    took_s = []
    for _ in range(4):
        begin_s = time.perf_counter()
        ref = api.put(array)
        got = api.get(ref)
        took_s.append(time.perf_counter() - begin_s)
        assert got[-1] == 1.0
    mapped_ms = _p50_ms(lambda: api.get(ref), 50)
    return {
        "first put+get of 200 MB": took_s[:1],
        "later put+get of 200 MB": [percentile(took_s[1:], 50)],
        "get of a mapped array": [mapped_ms],
    }


def kill_retry(api: Any) -> Samples:
    """From kill -9 of the process of a task to the result of its second attempt."""
    remote = api.remote(die_once).options(max_retries=3)
    with tempfile.TemporaryDirectory() as folder:
        took_s = []
        for index in range(3):
            path = os.path.join(folder, str(index))
            api.get(remote.remote(path))
            with open(path, encoding="ascii") as file:
                took_s.append(time.time() - float(file.read()))
    return {"kill -9 -> result": [percentile(took_s, 50)]}


SCENES: dict[str, Scene] = {
    scene.__name__: scene for scene in (arrays, tasks, tree_reduce, kill_retry, actor_calls, stream)
}
