from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from runner.errors import ObjectLostError, StoreFullError
from runner.objects.serialization import deserialize, serialize
from runner.objects.store import Store, open_segment
from runner.objects.values import INLINE_MAX_BYTES, from_wire, to_wire
from runner.rpc.gen import types_pb2


def fetch_nothing(segment: types_pb2.Segment) -> bytes:
    raise AssertionError(f"{segment.path} should have been mapped")


def test_a_large_value_is_written_and_mapped(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    path, size_bytes = store.write("o-1", serialize(np.arange(100_000)))
    assert os.path.getsize(path) == size_bytes
    assert os.listdir(tmp_path) == [os.path.basename(path)]
    array = deserialize(open_segment(path, size_bytes))
    assert not array.flags.writeable
    np.testing.assert_array_equal(array, np.arange(100_000))


def test_many_buffers_are_written_whole(tmp_path: Path) -> None:
    arrays = [np.full(10, index, np.int64) for index in range(1500)]
    path, size_bytes = Store(str(tmp_path)).write("o-1", serialize(arrays))
    back = deserialize(open_segment(path, size_bytes))
    assert [int(array[0]) for array in back] == list(range(1500))


def test_a_mapped_value_outlives_its_file(tmp_path: Path) -> None:
    path, size_bytes = Store(str(tmp_path)).write("o-1", serialize(np.arange(100_000)))
    array = deserialize(open_segment(path, size_bytes))
    os.unlink(path)
    assert int(array.sum()) == sum(range(100_000))


def test_writing_to_a_tensor_never_reaches_the_segment(tmp_path: Path) -> None:
    path, size_bytes = Store(str(tmp_path)).write("o-1", serialize(torch.zeros(100_000)))
    first = deserialize(open_segment(path, size_bytes))
    second = deserialize(open_segment(path, size_bytes))
    first += 1
    assert float(first.sum()) == 100_000
    assert float(second.sum()) == 0
    assert float(deserialize(open_segment(path, size_bytes)).sum()) == 0


def test_two_writes_of_one_object_do_not_meet(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one, _ = store.write("t-1.0", serialize(b"1"))
    other, _ = store.write("t-1.0", serialize(b"2"))
    assert one != other


def test_a_full_store_is_a_typed_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", no_space)
    value = serialize(np.zeros(1_000_000))
    with pytest.raises(StoreFullError, match=rf"o-7: it needs {value.total_bytes} bytes, \d+ are free"):
        Store(str(tmp_path)).write("o-7", value)
    assert os.listdir(tmp_path) == []


def test_other_errors_pass_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int, buffers: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "writev", fails)
    with pytest.raises(OSError, match="Input/output"):
        Store(str(tmp_path)).write("o-7", serialize(b"1"))
    assert os.listdir(tmp_path) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.writev

    def at_most_seven(fd: int, buffers: list[memoryview]) -> int:
        return whole(fd, [buffers[0][:7]])

    monkeypatch.setattr(os, "writev", at_most_seven)
    path, size_bytes = Store(str(tmp_path)).write("o-1", serialize([np.arange(30), np.arange(3)]))
    back = deserialize(open_segment(path, size_bytes))
    np.testing.assert_array_equal(back[0], np.arange(30))


def test_a_segment_that_is_gone_or_cut_is_lost(tmp_path: Path) -> None:
    with pytest.raises(ObjectLostError, match="is gone"):
        open_segment(str(tmp_path / "nothing"), 10)
    (tmp_path / "short").write_bytes(b"123")
    with pytest.raises(ObjectLostError, match="3 bytes instead of 10"):
        open_segment(str(tmp_path / "short"), 10)


def test_small_values_are_inline_and_large_ones_in_the_store(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    small = to_wire(serialize(b"x" * 100), "o-1", store, "here")
    large = to_wire(serialize(b"x" * INLINE_MAX_BYTES), "o-2", store, "here")
    assert small.WhichOneof("body") == "inline"
    assert large.segment.host_id == "here"
    assert from_wire(small, fetch_nothing, "here") == b"x" * 100
    assert from_wire(large, fetch_nothing, "here") == b"x" * INLINE_MAX_BYTES


def test_a_segment_of_another_host_is_fetched(tmp_path: Path) -> None:
    value = types_pb2.Value(segment=types_pb2.Segment(host_id="there", path="/p", size_bytes=5))
    assert from_wire(value, lambda segment: serialize(segment.path).to_bytes(), "here") == "/p"
