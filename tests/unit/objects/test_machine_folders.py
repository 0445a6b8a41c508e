"""The folders of machines on other hosts: private, and gone with the machine or with the next one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runner.objects import machine_folders
from runner.objects.machine_folders import MachineFolders, remove_folders, sweep


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    memory, disk = tmp_path / "memory", tmp_path / "disk"
    for place in (memory, disk):
        place.mkdir()
    monkeypatch.setattr(machine_folders, "_SHARED_MEMORY", memory)
    monkeypatch.setattr("tempfile.tempdir", str(disk))
    return memory, disk


def left(places: tuple[Path, Path]) -> list[str]:
    return sorted(str(path.relative_to(place.parent)) for place in places for path in place.iterdir())


def test_they_are_private_and_go_with_the_machine(places: tuple[Path, Path]) -> None:
    folders = MachineFolders("c1", "m-1")
    assert left(places) == ["disk/runner-c1-m-1", "memory/runner-c1-m-1"]
    for path in (folders.store, folders.artefacts, os.path.dirname(folders.store)):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert 0 < folders.store_bytes_max < os.statvfs(folders.store).f_frsize * os.statvfs(folders.store).f_blocks
    folders.remove()
    folders.remove()
    assert left(places) == []


def test_values_lie_on_disk_where_there_is_no_shared_memory(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine_folders, "_SHARED_MEMORY", tmp_path / "none")
    folders = MachineFolders("c1", "m-1")
    assert left(places) == ["disk/runner-c1-m-1"]
    assert folders.store.startswith(str(places[1]))
    folders.remove()


def test_what_a_killed_machine_left_goes_and_what_lives_or_is_no_machines_stays(places: tuple[Path, Path]) -> None:
    living = MachineFolders("c1", "m-1")
    dead = MachineFolders("c1", "m-2")
    for fd in dead._locks:  # as the kernel does when the process ends
        os.close(fd)
    dead._locks.clear()
    coordinators = places[0] / "runner-c1"
    coordinators.mkdir()
    (coordinators / ".lock").write_bytes(b"embedded")
    (places[1] / "runner-notes").mkdir()
    sweep()
    assert left(places) == ["disk/runner-c1-m-1", "disk/runner-notes", "memory/runner-c1", "memory/runner-c1-m-1"]
    living.remove()


def test_a_second_machine_of_the_same_name_is_refused() -> None:
    folders = MachineFolders("c1", "m-1")
    with pytest.raises(BlockingIOError):
        MachineFolders("c1", "m-1")
    folders.remove()


def test_others_can_remove_them(places: tuple[Path, Path]) -> None:
    folders = MachineFolders("c1", "m-1")
    remove_folders("c1", "m-1")
    assert left(places) == []
    folders.remove()
