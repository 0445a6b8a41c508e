"""Values in great numbers and of great size."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runner
from runner.client.context import session_or_none
from runner.client.streams import client_transport
from runner.objects import spill
from runner.rpc.gen import client_pb2
from tests.integration.helpers import wait_until

SHM = Path("/dev/shm")
GIB = 1 << 30


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    patch = pytest.MonkeyPatch()
    patch.setenv("RUNNER_HOME", str(tmp_path_factory.mktemp("home")))
    with runner.init(machines=1, num_cpus=2, log_to_driver=False) as session:
        yield session
    patch.undo()


def object_count() -> int:
    session = session_or_none()
    assert session is not None
    request = client_pb2.GetStatusRequest()
    return int(client_transport(session).request("GetStatus", request, client_pb2.GetStatusReply).objects)


def segments(cluster: Any) -> list[str]:
    return [name for name in os.listdir(SHM / f"runner-{cluster.cluster_id}") if not name.startswith(".")]


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_hundred_thousand_objects_leave_nothing(cluster: Any) -> None:
    """Puts, results, results within results and values in shared memory."""
    echo = runner.remote(lambda value: value)
    wrap = runner.remote(lambda: [runner.put(1), runner.put(2)])
    before = object_count()
    for _ in range(10):
        puts = [runner.put(number) for number in range(4_000)]
        results = [echo.remote(ref) for ref in puts]
        nested = [ref for pair in runner.get([wrap.remote() for _ in range(650)], timeout=120) for ref in pair]
        large = [runner.put(np.zeros(50_000)) for _ in range(50)]
        assert runner.get(results, timeout=120) == list(range(4_000))
        assert runner.get(nested, timeout=60) == [1, 2] * 650
        assert len(segments(cluster)) >= len(large)
        del puts, results, nested, large
    wait_until(lambda: object_count() <= before, 60, "all objects to be forgotten")
    wait_until(lambda: not segments(cluster), 20, "all segments to be removed")


def room_for(size_bytes: int) -> str:
    """Why this host cannot hold such a value in its store; empty: it can."""
    free_memory = shutil.disk_usage(SHM).free
    if spill.default_bytes_max(str(SHM)) > size_bytes and free_memory > 1.2 * size_bytes:
        return ""
    free_disk = shutil.disk_usage(tempfile.gettempdir()).free
    if free_disk > 1.2 * size_bytes:
        return ""
    return (
        f"a value of {size_bytes} bytes has room neither in {SHM} ({free_memory} free) nor on disk ({free_disk} free)"
    )


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_value_of_five_gigabytes(cluster: Any) -> None:
    size_bytes = 5 * GIB
    if why := room_for(size_bytes):
        pytest.skip(why)
    array = np.zeros(size_bytes, np.uint8)  # no memory until it is written to
    marks = {0: 1, size_bytes // 2: 2, size_bytes - 1: 3}
    for position, mark in marks.items():
        array[position] = mark
    ref = runner.put(array)
    look = runner.remote(lambda value, places: (value.nbytes, [int(value[place]) for place in places]))
    assert runner.get(look.remote(ref, list(marks)), timeout=500) == (size_bytes, [1, 2, 3])
    back = runner.get(ref, timeout=300)
    assert [int(back[place]) for place in marks] == [1, 2, 3]
    object_id = ref.id
    del ref, back
    wait_until(lambda: not [name for name in segments(cluster) if name.startswith(object_id)], 60, "it to be removed")
