"""What lies in the store of a machine that shares none with its coordinator: values that it alone has, or that are on their
way to the coordinator, and copies."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import OrderedDict

from runner.errors import StoreFullError
from runner.objects import spill
from runner.worker.agent.events import Key


class LocalStore:
    """Keeps the sum of copies and of values on their way under a limit: copies that were used least recently go first.

    The machine's own values stay until they are freed; those for which memory has no room lie on disk, see
    `runner.objects.spill`.
    Unlinking is safe under the views of those who have one mapped.
    """

    def __init__(self, path: str, limit_bytes: int) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._pinned: dict[str, int] = {}  # local path: size, of what nobody else has yet
        self._own: dict[str, int] = {}  # local path: size, of what was made here and only this machine has
        self._copies: OrderedDict[str, tuple[str, int]] = OrderedDict()  # the coordinator's path: (local path, size)

    @property
    def used_bytes(self) -> int:
        """What is accounted for now."""
        return self._used_bytes

    def reserve(self, name: str, size_bytes: int) -> str:
        """Make room for a file; returns the path to write it to. It stays until `keep` or `give_back`.

        Raises:
            StoreFullError: it does not fit beside what cannot go.
        """
        while self._used_bytes + size_bytes > self._limit_bytes and self._copies:
            self._remove(self._copies.popitem(last=False)[1])
        if self._used_bytes + size_bytes > self._limit_bytes:
            raise StoreFullError(
                f"the machine's object store {self.path} has no room for {name}: it needs {size_bytes} bytes, of"
                f" {self._limit_bytes} are {self._used_bytes} in use; make smaller values or give the machine more memory"
            )
        path = os.path.join(self.path, f"{name}-{secrets.token_hex(4)}")
        self._pinned[path] = size_bytes
        self._used_bytes += size_bytes
        return path

    def is_reserved(self, path: str, size_bytes: int) -> bool:
        """Whether `reserve` gave this path for so much."""
        return self._pinned.get(path, -1) == size_bytes

    def hold(self, path: str) -> None:
        """The reserved file is a value that this machine alone has: it stays until `drop`."""
        size_bytes = self._own[path] = self._pinned.pop(path)
        self._used_bytes -= size_bytes

    def own_bytes(self, path: str) -> int | None:
        """The size of a value that this machine alone has; None: it has none there."""
        return self._own.get(path)

    @property
    def has_own(self) -> bool:
        """Whether anything would be lost with this machine."""
        return bool(self._own)

    def keep(self, path: str, source: str) -> None:
        """The file is now a copy of `source`, which somebody else has: it may go when room is needed."""
        size_bytes = self._own.pop(path, None)
        if size_bytes is None:
            size_bytes = self._pinned.pop(path)
        else:
            self._used_bytes += size_bytes
        self.drop(source)
        self._copies[source] = (path, size_bytes)

    def give_back(self, path: str) -> None:
        """The reserved file is not wanted any more."""
        size_bytes = self._pinned.pop(path, None)
        if size_bytes is not None:
            self._remove((path, size_bytes))

    def find(self, source: str) -> str | None:
        """The local copy, as the one used last."""
        copy = self._copies.get(source)
        if copy is None:
            return None
        self._copies.move_to_end(source)
        return copy[0]

    def drop(self, source: str) -> None:
        """The value is freed: what the coordinator or another machine has at `source`, or this machine itself."""
        if self._own.pop(source, None) is not None:
            with contextlib.suppress(OSError):
                spill.remove(source)
            return
        copy = self._copies.pop(source, None)
        if copy is not None:
            self._remove(copy)

    def _remove(self, file: tuple[str, int]) -> None:
        path, size_bytes = file
        self._used_bytes -= size_bytes
        with contextlib.suppress(OSError):
            spill.remove(path)


def attempt_folder(artefact_path: str, key: Key) -> str:
    """Where an attempt's checkpoints lie on a machine that shares no files with its coordinator."""
    return os.path.join(artefact_path, f"{key[0]}.{key[1]}")
