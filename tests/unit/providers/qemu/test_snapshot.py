"""A snapshot is whole or not there, says what it belongs to, and is used at most once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from runner.providers.qemu import snapshot
from runner.providers.qemu.command import Build
from runner.providers.qemu.snapshot import HEADER_BYTES, SnapshotError

BUILD = Build("7.2.22", "tcg", "image-1", cpus=1, memory_mib=512)
MEMORY = b"memory" * 1000


def save(folder: Path, build: Build = BUILD) -> None:
    with snapshot.writing(folder) as fd:
        os.write(fd, MEMORY)
        assert snapshot.finish(folder, fd, build) == HEADER_BYTES + len(MEMORY)


def test_what_was_saved_is_read_back_without_a_name(tmp_path: Path) -> None:
    save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot"]
    assert (tmp_path / "snapshot").stat().st_mode & 0o777 == 0o600
    with snapshot.consuming(tmp_path, BUILD) as fd:
        assert list(tmp_path.iterdir()) == [], "no guest may run while the snapshot can be found"
        assert os.read(fd, len(MEMORY) + 1) == MEMORY


def test_a_second_use_finds_nothing(tmp_path: Path) -> None:
    save(tmp_path)
    with snapshot.consuming(tmp_path, BUILD):
        pass
    with pytest.raises(SnapshotError, match="there is no snapshot"), snapshot.consuming(tmp_path, BUILD):
        pass


def test_one_that_was_not_finished_is_none(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"), snapshot.writing(tmp_path) as fd:
        os.write(fd, MEMORY)
        raise OSError("full")
    assert list(tmp_path.iterdir()) == []
    with snapshot.writing(tmp_path) as fd:
        os.write(fd, MEMORY)  # and then the coordinator is killed
    assert not snapshot.exists(tmp_path)
    snapshot.discard(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size_bytes", [HEADER_BYTES, HEADER_BYTES + len(MEMORY) - 1, HEADER_BYTES + len(MEMORY) + 1])
def test_another_size_is_refused_and_the_file_is_gone(size_bytes: int, tmp_path: Path) -> None:
    save(tmp_path)
    os.truncate(tmp_path / "snapshot", size_bytes)
    words = rf"has {size_bytes} bytes of {HEADER_BYTES + len(MEMORY)}"
    with pytest.raises(SnapshotError, match=words), snapshot.consuming(tmp_path, BUILD):
        pass
    assert not snapshot.exists(tmp_path)


@pytest.mark.parametrize("block", [b"", b"something else", b"runner snapshot 1\n{", b"runner snapshot 1\n[]"])
def test_what_is_no_snapshot_is_refused_and_gone(block: bytes, tmp_path: Path) -> None:
    (tmp_path / "snapshot").write_bytes(block)
    with pytest.raises(SnapshotError, match=r"no snapshot of this version|cannot be read"):
        with snapshot.consuming(tmp_path, BUILD):
            pass
    assert not snapshot.exists(tmp_path)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (replace(BUILD, qemu="8.2.0"), "qemu 7.2.22, here 8.2.0"),
        (replace(BUILD, image_id="image-2"), "image_id image-1, here image-2"),
        (replace(BUILD, memory_mib=1024, accel="kvm"), "accel tcg, here kvm; memory_mib 512, here 1024"),
    ],
)
def test_another_build_is_refused_and_the_file_is_gone(other: Build, words: str, tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(SnapshotError, match=words), snapshot.consuming(tmp_path, other):
        pass
    assert not snapshot.exists(tmp_path)
