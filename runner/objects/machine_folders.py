"""The folders of a machine that shares no files with its coordinator: values in memory, checkpoints on disk.

They go with the machine's end; what a killed one left behind goes when the next one starts on that host.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from runner.objects import spill
from runner.objects.file_locks import lock_file

_SHARED_MEMORY = Path("/dev/shm")
_PREFIX = "runner-"
_LOCK = ".lock"  # held by the living
_MARK = b"machine"
# Of what is free at the start; the rest is the tasks' own.
_STORE_SHARE = 0.5


class MachineFolders:
    """`store` for values, `artefacts` for checkpoints; both private to this machine."""

    def __init__(self, cluster_id: str, machine_id: str) -> None:
        """Make them.

        Raises:
            OSError: they cannot be made.
        """
        sweep()
        self._tops = _tops(cluster_id, machine_id)
        self._locks = [_make(top) for top in self._tops]
        self.store = str(self._tops[0] / "store")
        self.artefacts = str(self._tops[-1] / "artefacts")
        for path in (self.store, self.artefacts):
            os.makedirs(path, mode=0o700, exist_ok=True)
        self.store_bytes_max = int(shutil.disk_usage(self.store).free * _STORE_SHARE)
        spill.set_bounds(self.store, spill.Bounds(self.store_bytes_max, str(self._tops[-1] / "spilled")))

    def remove(self) -> None:
        """Everything goes. Idempotent."""
        for top in self._tops:
            shutil.rmtree(top, ignore_errors=True)
        for fd in self._locks:
            os.close(fd)
        self._locks.clear()


def remove_folders(cluster_id: str, machine_id: str) -> None:
    """Remove those of a machine of this host that is gone."""
    for top in _tops(cluster_id, machine_id):
        shutil.rmtree(top, ignore_errors=True)


def sweep() -> None:
    """Remove what machines left that were killed."""
    for parent in {_SHARED_MEMORY, Path(tempfile.gettempdir())}:
        for top in parent.glob(f"{_PREFIX}*"):
            try:
                if top.stat().st_uid != os.getuid() or (top / _LOCK).read_bytes() != _MARK:
                    continue
                fd = lock_file(top / _LOCK)
            except OSError:
                continue  # its machine lives, or it is something else
            shutil.rmtree(top, ignore_errors=True)
            os.close(fd)


def _tops(cluster_id: str, machine_id: str) -> list[Path]:
    name = f"{_PREFIX}{cluster_id}-{machine_id}"
    disk = Path(tempfile.gettempdir()) / name
    has_memory = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK)
    return [_SHARED_MEMORY / name, disk] if has_memory else [disk]


def _make(top: Path) -> int:
    with contextlib.suppress(FileExistsError):
        top.mkdir(mode=0o700)
    if top.stat().st_uid != os.getuid():
        raise PermissionError(f"{top} belongs to somebody else; remove it")
    fd = lock_file(top / _LOCK)
    os.write(fd, _MARK)
    return fd
