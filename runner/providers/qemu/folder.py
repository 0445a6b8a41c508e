"""What is on disk of one machine: one folder in the cluster's state directory, for its owner only.

    machine.json   what it was made as
    boot           its boot configuration, with the join token; QEMU hands it to the guest
    control        QEMU's socket, while it runs
    snapshot       its memory, while it is suspended

The folder is there as long as the machine exists.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgpack

from runner.ids import MachineId
from runner.providers.base import BootConfig
from runner.providers.qemu.command import Build

CONTROL = "control"
_RECORD, _BOOT = "machine.json", "boot"


@dataclass(frozen=True, slots=True)
class Made:
    """What a machine was made as; `build`: as it was started last."""

    name: MachineId
    unique_id: str
    created_unix_s: float
    build: Build


class MachineFolder:
    """One machine's folder; the methods are file operations and block for no longer than those."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def boot_file(self) -> Path:
        return self.path / _BOOT

    @property
    def control(self) -> Path:
        return self.path / CONTROL

    def create(self, made: Made, boot: BootConfig) -> None:
        """Make it anew; whatever was there before is gone.

        Raises:
            OSError: it cannot be written.
        """
        self.remove()
        self.path.mkdir(mode=0o700, parents=True)
        self._write(_BOOT, msgpack.packb(boot.to_dict()))
        # Last: a folder without it is one that a killed coordinator was making, and no machine.
        self.note(made)

    def note(self, made: Made) -> None:
        """Write down what it is now.

        Raises:
            OSError: it cannot be written.
        """
        said = {"unique_id": made.unique_id, "created_unix_s": made.created_unix_s, "build": made.build.to_dict()}
        self._write(f"{_RECORD}.new", json.dumps(said).encode())
        (self.path / f"{_RECORD}.new").replace(self.path / _RECORD)

    def read(self) -> Made | None:
        """What it was made as; None where no machine is."""
        try:
            said = json.loads((self.path / _RECORD).read_text(encoding="utf-8"))
            build = Build.from_dict(said["build"])
            return Made(MachineId(self.path.name), said["unique_id"], said["created_unix_s"], build)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def remove(self) -> None:
        """Take it away with everything in it. Idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _write(self, name: str, data: bytes) -> None:
        fd = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)


def names_in(parent: Path) -> tuple[MachineId, ...]:
    """The names of all machines' folders, also of those that are not complete."""
    if not parent.is_dir():
        return ()
    return tuple(sorted(MachineId(each.name) for each in parent.iterdir() if each.is_dir()))
