"""The store of a machine on another host: what fits, what goes first, what never does."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import StoreFullError
from runner.worker.local_store import LocalStore


def put(store: LocalStore, source: str, size_bytes: int) -> str:
    path = store.reserve("o-1", size_bytes)
    Path(path).write_bytes(b"x" * size_bytes)
    store.keep(path, source)
    return path


def test_the_copy_used_least_recently_goes_first(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path), 100)
    first, second = put(store, "/a", 40), put(store, "/b", 40)
    assert store.find("/a") == first
    third = put(store, "/c", 40)
    assert (store.find("/a"), store.find("/b"), store.find("/c")) == (first, None, third)
    assert not Path(second).exists()
    assert store.used_bytes == 80


def test_what_nobody_else_has_never_goes(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path), 100)
    own = store.reserve("t-1.0", 70)
    with pytest.raises(StoreFullError, match=r"no room for t-2\.0: it needs 40 bytes, of 100 are 70 in use"):
        store.reserve("t-2.0", 40)
    store.give_back(own)
    assert store.used_bytes == 0
    assert store.is_reserved(store.reserve("t-2.0", 100), 100)


def test_what_is_freed_goes_at_once(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path), 100)
    path = put(store, "/a", 10)
    store.drop("/a")
    store.drop("/unknown")
    assert (store.find("/a"), store.used_bytes, Path(path).exists()) == (None, 0, False)


def test_only_what_was_reserved_counts_as_such(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path), 100)
    path = store.reserve("o-1", 10)
    assert store.is_reserved(path, 10)
    assert not store.is_reserved(path, 11)
    assert not store.is_reserved("/etc/passwd", 10)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 60), st.booleans()), max_size=40))
def test_the_sum_stays_below_the_limit_and_is_what_lies_there(steps: list[tuple[str, int, bool]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder, 100)
        for source, size_bytes, is_dropped in steps:
            put(store, source, size_bytes)
            if is_dropped:
                store.drop(source)
            assert store.used_bytes == sum(path.stat().st_size for path in Path(folder).iterdir()) <= 100
