"""A bounded store: what moves to disk keeps its path, its bytes and its readers."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from runner.errors import StoreFullError
from runner.objects import spill
from runner.objects.serialization import deserialize, serialize
from runner.objects.store import Store, open_segment

MB = 1_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return bounded(tmp_path, 3 * MB)


def bounded(tmp_path: Path, bytes_max: int, reserve_bytes: int = 0) -> Store:
    (tmp_path / "store").mkdir(exist_ok=True)
    spill.set_bounds(str(tmp_path / "store"), spill.Bounds(bytes_max, str(tmp_path / "disk"), reserve_bytes))
    return Store(str(tmp_path / "store"))


def put(store: Store, name: str, fill: int = 1, size: int = MB) -> tuple[str, int]:
    return store.write(name, serialize(numpy.full(size, fill, numpy.uint8)))


def array(segment: tuple[str, int]) -> numpy.ndarray:
    return deserialize(open_segment(*segment))


def in_memory(store: Store) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(store.path) if entry.is_file(follow_symlinks=False))


def age(*segments: tuple[str, int]) -> None:
    """Make them look opened in this order, long ago."""
    for number, (path, _) in enumerate(segments):
        os.utime(path, (number, number))


def test_memory_stays_within_its_bound_and_every_value_can_be_read(store: Store) -> None:
    segments = [put(store, f"o-{number}", number) for number in range(10)]
    assert in_memory(store) <= 3 * MB + 1000
    assert [int(array(segment)[-1]) for segment in segments] == list(range(10))


def test_what_was_opened_least_recently_goes_first(store: Store) -> None:
    old, new = put(store, "o-1"), put(store, "o-2")
    age(old, new)
    array(old)
    put(store, "o-3", size=MB + 100_000)
    assert not os.path.islink(old[0])
    assert os.path.islink(new[0])


def test_a_reader_that_has_it_mapped_notices_nothing(store: Store) -> None:
    segment = put(store, "o-1", 7)
    seen = array(segment)
    for number in range(4):
        put(store, f"o-{number + 2}")
    assert os.path.islink(segment[0])
    assert (seen == 7).all()


def test_one_that_is_larger_than_the_store_lies_on_disk_from_the_start(store: Store, tmp_path: Path) -> None:
    segment = put(store, "o-1", 5, size=5 * MB)
    assert os.path.islink(segment[0])
    assert (array(segment) == 5).all()


def test_removal_leaves_nothing_in_memory_or_on_disk(store: Store, tmp_path: Path) -> None:
    for path, _ in [put(store, f"o-{number}") for number in range(6)]:
        spill.remove(path)
        spill.remove(path)
    assert os.listdir(tmp_path / "disk") == []
    assert [name for name in os.listdir(store.path) if "o-" in name] == []


def test_one_that_is_freed_while_it_moves_stays_freed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = put(store, "o-1")
    put(store, "o-2")
    age(first)
    exchange = spill._exchange

    def freed_before(one: str, other: str) -> None:
        if other == first[0]:
            os.unlink(other)
        exchange(one, other)

    monkeypatch.setattr(spill, "_exchange", freed_before)
    put(store, "o-3", size=MB + 100_000)
    assert not os.path.lexists(first[0])
    assert not [name for name in os.listdir(tmp_path / "disk") if name.startswith("o-1")]
    assert not [name for name in os.listdir(store.path) if name.startswith(".link")]


def test_what_a_killed_writer_has_left_makes_room(store: Store, tmp_path: Path) -> None:
    script = (
        "import os, sys; from runner.objects import store; from runner.objects.serialization import serialize\n"
        "store._write_all = lambda *_: os.kill(os.getpid(), 9)\n"
        "store.Store(sys.argv[1]).write(sys.argv[2], serialize(bytes(int(sys.argv[3]))))"
    )
    for name, size in (("o-1", MB), ("o-2", 5 * MB)):  # the second one straight to disk
        subprocess.run([sys.executable, "-c", script, store.path, name, str(size)])
    first = put(store, "o-3")
    assert sorted(unfinished(tmp_path)) == ["disk/o-2", "store/o-1"]
    with open(tmp_path / "store" / f"o-4{spill.UNFINISHED}", "wb") as file:  # this one lives
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(bytes(MB))
        file.flush()
        put(store, "o-5", size=MB // 2)
        assert unfinished(tmp_path) == ["store/o-4"]
        assert not os.path.islink(first[0])


def unfinished(tmp_path: Path) -> list[str]:
    found = [path.relative_to(tmp_path) for path in tmp_path.glob(f"*/*{spill.UNFINISHED}")]
    return [f"{path.parent}/{'-'.join(path.name.split('-')[:2]).partition('.')[0]}" for path in found]


def test_a_full_disk_is_a_typed_error_and_leaves_nothing(tmp_path: Path) -> None:
    store = bounded(tmp_path, 2 * MB, reserve_bytes=1 << 60)
    put(store, "o-1")
    with pytest.raises(StoreFullError, match="object_store_memory"):
        put(store, "o-2", size=2 * MB)
    with pytest.raises(StoreFullError, match="in reserve"):
        put(store, "o-3", size=9 * MB)
    assert sorted(name.split("-")[1] for name in os.listdir(store.path) if name.startswith("o-")) == ["1"]


def test_the_whole_store_goes_with_what_it_has_on_disk(store: Store, tmp_path: Path) -> None:
    put(store, "o-1", size=5 * MB)
    spill.clear(store.path)
    assert list(tmp_path.iterdir()) == []
