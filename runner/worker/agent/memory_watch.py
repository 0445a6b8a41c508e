"""Looks at what attempts with a memory limit use, at what the machine has left, and at what the kernel killed for memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from runner.worker.agent import events as ev
from runner.worker.process import descendants_of, machine_memory, oom_kills, pss_bytes, rss_bytes

POLL_S = 0.25
# After a kill: until its memory is free again, and until anybody looks again.
SETTLE_S = 1.0
_USERS_SHOWN = 5
_MIB = 1 << 20


class Busy(Protocol):
    """An executor and the attempt that it has, if any."""

    pid: int
    serial: int
    attempt: ev.Attempt | None

    @property
    def number(self) -> int: ...


def used_bytes(pid: int, limit_bytes: int) -> int | None:
    """What `pid` and its descendants use, if that is more than the limit; else None.

    First the cheap count, in which shared pages count for each process; only above the limit the exact one.
    """
    pids = [pid, *descendants_of(pid)]
    if rss_bytes(pids) <= limit_bytes:
        return None
    exact = pss_bytes(pids)
    return exact if exact > limit_bytes else None


class User(NamedTuple):
    """What one attempt uses, its children included."""

    used_bytes: int
    pid: int
    label: str


def measure(executors: Iterable[Busy]) -> list[User]:
    """All attempts of the machine, those that use most first."""
    users = [
        User(pss_bytes([each.pid, *descendants_of(each.pid)]), each.pid, each.attempt.label)
        for each in executors
        if each.attempt is not None and each.pid
    ]
    return sorted(users, reverse=True)


def describe_users(users: list[User]) -> str:
    """For people: the attempts that use most memory, and their processes."""
    shown = [f"pid {each.pid} {each.label} {each.used_bytes / _MIB:.0f} MiB" for each in users[:_USERS_SHOWN]]
    more = f", and {len(users) - _USERS_SHOWN} more" if len(users) > _USERS_SHOWN else ""
    return ", ".join(shown) + more


class OomCounter:
    """Whether the kernel has killed for memory since somebody last looked."""

    def __init__(self) -> None:
        self._seen = oom_kills()

    def look(self) -> None:
        """What happened so far explains nothing that happens later."""
        self._seen = oom_kills()

    def has_risen(self) -> bool:
        """True when a kill for memory happened since the last look."""
        return oom_kills() > self._seen


class HostLock:
    """Held by at most one agent of a host, and let go when its process ends: agents share the host's memory."""

    def __init__(self) -> None:
        self._sock: socket.socket | None = None

    def take(self) -> bool:
        """Whether this agent has it now."""
        if self._sock is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                sock.bind(f"\0runner.memory-guard.{os.getuid()}")
            except OSError:
                sock.close()
                return False
            self._sock = sock
        return True

    def drop(self) -> None:
        """Others may have it. Idempotent."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.close()
            self._sock = None


class MemoryWatch:
    """Tells the agent which attempt is over its limit, and when the machine has hardly any memory left."""

    def __init__(
        self, handle: Callable[[ev.Event], None], executors: Callable[[], Iterable[Busy]], *, guard_share: float
    ) -> None:
        """`guard_share`: of the machine's memory; above it the kernel may kill at any time. 0: the kernel is left to."""
        self._handle = handle
        self._executors = executors
        self._guard_share = guard_share
        self._lock = HostLock()
        self._settled_s = 0.0
        self.limited: dict[int, Busy] = {}  # executors whose attempt has a memory limit

    def start(self) -> None:
        """Look now and then, for as long as the loop runs."""
        asyncio.get_running_loop().call_later(POLL_S, self._poll)

    def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(POLL_S, self._poll)
        self._look_at_limits()
        if self._guard_share:
            self.look_at_machine(loop.time())

    def _look_at_limits(self) -> None:
        for each in list(self.limited.values()):
            if each.attempt is not None and each.pid:
                used = used_bytes(each.pid, each.attempt.memory_bytes)
                if used is not None:
                    users = describe_users(measure(self._executors()))
                    self._handle(ev.MemoryExceeded(each.number, each.serial, used, users))

    def look_at_machine(self, now_s: float) -> None:
        """Have the agent end an attempt when there is hardly any memory left, one at a time on a host."""
        if now_s < self._settled_s:
            return
        self._lock.drop()
        used, total = machine_memory()
        busy = [each for each in self._executors() if each.attempt is not None]
        if used > self._guard_share * total and busy and self._lock.take():
            self._settled_s = now_s + SETTLE_S
            users = measure(busy)
            self._handle(
                ev.MemoryLow(used, total, describe_users(users), {each.pid: each.used_bytes for each in users})
            )
