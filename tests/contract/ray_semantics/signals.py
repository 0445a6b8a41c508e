"""Words between a test and the code that it sent away: files, so that they pass between any two processes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tests.integration.helpers import wait_until

LIMIT_S = 20.0


@dataclass(frozen=True)
class Gate:
    """Shut until somebody opens it."""

    path: str

    def open(self) -> None:
        with open(self.path, "ab"):
            pass

    def is_open(self) -> bool:
        return os.path.exists(self.path)

    def wait(self, limit_s: float = LIMIT_S) -> None:
        """Return once it is open; an AssertionError if it is not within `limit_s`."""
        wait_until(self.is_open, limit_s, self.path)


@dataclass(frozen=True)
class Tally:
    """Counts in the order of time, whoever counts."""

    path: str

    def add(self) -> int:
        """One more; returns how many there are now."""
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(fd, b"x")
            return os.lseek(fd, 0, os.SEEK_CUR)
        finally:
            os.close(fd)

    def count(self) -> int:
        try:
            return os.path.getsize(self.path)
        except FileNotFoundError:
            return 0


@dataclass(frozen=True)
class Signals:
    """Gates and tallies by name, in one folder."""

    folder: str

    def gate(self, name: str) -> Gate:
        return Gate(os.path.join(self.folder, f"{name}.gate"))

    def tally(self, name: str) -> Tally:
        return Tally(os.path.join(self.folder, f"{name}.tally"))
