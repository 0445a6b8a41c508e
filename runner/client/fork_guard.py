"""What a forked child of a client must not keep: the session, whose threads are gone, and the pipe that keeps a cluster alive."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Guarded(Protocol):
    """Told in the child that it was forked."""

    def forked(self) -> None: ...


_guarded: WeakSet[Guarded] = WeakSet()
_descriptors: set[int] = set()


def guard(each: Guarded) -> None:
    """Call `forked()` on it in every child."""
    _guarded.add(each)


def close_in_children(fd: int) -> None:
    """Close this descriptor in every forked child."""
    _descriptors.add(fd)


def release(fd: int) -> None:
    """The descriptor is being closed by its owner."""
    _descriptors.discard(fd)


def _after_fork_in_child() -> None:
    for fd in _descriptors:
        try:
            os.close(fd)
        except OSError:
            pass
    _descriptors.clear()
    for each in list(_guarded):
        each.forked()
    _guarded.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
