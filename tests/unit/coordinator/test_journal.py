"""The journal: what was committed comes back, what was torn is dropped, what is damaged is refused."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.coordinator.journal import Journal, JournalCorruptError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def write(path: Path, count: int) -> None:
    journal = Journal(path)
    for n in range(count):
        journal.commit([[1, f"fact {n}", b"\x00\xff"], [2, n]], float(n), 1000.0 + n)
    journal.close()


def read(path: Path) -> list[list[Any]]:
    journal = Journal(path)
    try:
        return list(journal.replay())
    finally:
        journal.close()


def test_turns_come_back_in_order(path: Path) -> None:
    write(path, 3)
    journal = Journal(path)
    assert not journal.is_empty()
    turns = list(journal.replay())
    assert [[list(fact) for fact in turn] for turn in turns] == [
        [[1, f"fact {n}", b"\x00\xff"], [2, n]] for n in range(3)
    ]
    assert (journal.last_now_s, journal.last_unix_s) == (2.0, 1002.0)
    journal.close()


def test_a_new_journal_is_empty(path: Path) -> None:
    journal = Journal(path)
    assert journal.is_empty()
    assert list(journal.replay()) == []
    assert (journal.last_now_s, journal.last_unix_s) == (0.0, 0.0)
    journal.close()


def test_what_was_committed_survives_without_a_close(path: Path, tmp_path: Path) -> None:
    """As after kill -9: the files are taken as they lie."""
    journal = Journal(path)
    journal.commit([[1]], 1.0, 1.0)
    journal.commit([[2]], 2.0, 2.0)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob("journal.db*"):
        shutil.copy(file, copy)
    assert [list(turn[0]) for turn in read(copy / "journal.db")] == [[1], [2]]
    journal.close()


@pytest.mark.parametrize("cut_bytes", [1, 100, 5000])
def test_a_truncated_log_loses_only_its_end(path: Path, tmp_path: Path, cut_bytes: int) -> None:
    journal = Journal(path)
    for n in range(20):
        journal.commit([[n, b"x" * 500]], float(n), float(n))
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob("journal.db*"):
        shutil.copy(file, copy)
    journal.close()
    wal = copy / "journal.db-wal"
    wal.write_bytes(wal.read_bytes()[:-cut_bytes])
    numbers = [turn[0][0] for turn in read(copy / "journal.db")]
    assert numbers == list(range(len(numbers)))
    assert 15 <= len(numbers) < 20


def test_a_torn_last_turn_is_dropped_for_good(path: Path) -> None:
    write(path, 3)
    damage(path, 3)
    assert len(read(path)) == 2
    assert len(read(path)) == 2


def test_damage_before_the_end_is_refused(path: Path) -> None:
    write(path, 3)
    damage(path, 2)
    with pytest.raises(JournalCorruptError, match="turn 2 of 3"):
        read(path)


def test_a_file_that_is_no_journal_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(JournalCorruptError, match="restore it from a copy"):
        Journal(path)


def test_counters_never_repeat(path: Path) -> None:
    journal = Journal(path)
    assert list(journal.take_numbers("machine", 2)) == [1, 2]
    journal.close()
    journal = Journal(path)
    assert list(journal.take_numbers("machine", 2)) == [3, 4]
    journal.close()


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """Writes beyond 256 KiB fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_an_error_and_what_was_committed_stays(path: Path, file_size_limit: None) -> None:
    journal = Journal(path)
    committed = 0
    with pytest.raises(sqlite3.Error):
        for n in range(1000):
            journal.commit([[n, b"x" * 4000]], float(n), float(n))
            committed += 1
    journal.close()
    assert committed > 10
    assert len(read(path)) == committed


def test_the_reserve_is_kept(path: Path) -> None:
    journal = Journal(path, reserve_bytes=0)
    assert journal.has_room()
    journal.close()
    journal = Journal(path, reserve_bytes=1 << 62)
    assert not journal.has_room()
    journal.close()


def test_power_durability_syncs(path: Path) -> None:
    journal = Journal(path, durability="power")
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    journal.close()


def damage(path: Path, n: int) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE turns SET facts = zeroblob(length(facts)) WHERE n = ?", (n,))
    db.close()
