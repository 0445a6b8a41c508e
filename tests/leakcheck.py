"""Fails a test that leaves processes, threads, file descriptors, shared memory or temporary files behind.

The test session gets a temporary folder and a runner home of its own, and a
mark in the environment that every process it starts inherits, orphans too: what
carries the mark, or lies in the folder, is ours. A module- or session-scoped
fixture that starts something postpones the check to the end of its life.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pytest

MARK = "RUNNER_TEST_SESSION"
# How long things that were told to end may take; a cluster whose client was killed has 10 s.
GRACE_S = 5.0
SESSION_GRACE_S = 11.0
SHM = "/dev/shm"
OURS_IN_SHM = "runner-"
# pytest's own folders and those of its plugins.
TMP_ALLOWED = ("pytest-of-", "home", "hypothesis", "torchinductor_")
# One poller per process, kept by grpc.aio from the first channel to the interpreter's end.
THREADS_ALLOWED = ("_poll_wrapper", "grpc", "asyncio-waitpid")
# gRPC's core keeps its event engine's descriptors for the life of the process.
FDS_ALLOWED = ("anon_inode:[eventpoll]", "anon_inode:[eventfd]", "/dev/urandom", "/dev/random", "/dev/null")


@dataclass(frozen=True)
class Snapshot:
    """What exists at one moment."""

    pids: frozenset[int]
    threads: frozenset[threading.Thread]
    fds: dict[int, str]
    shm: frozenset[str]
    tmp: frozenset[str]

    @classmethod
    def take(cls) -> Snapshot:
        """Cheap: a few directory listings; processes are looked into only when they are new."""
        return cls(
            pids=frozenset(int(name) for name in os.listdir("/proc") if name.isdigit()),
            threads=frozenset(threading.enumerate()),
            fds=_fds(),
            shm=frozenset(name for name in os.listdir(SHM) if name.startswith(OURS_IN_SHM)),
            tmp=frozenset(os.listdir(tempfile.gettempdir())),
        )


def _fds() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:  # the listing's own descriptor
            continue
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _is_ours(pid: int) -> bool:
    # The block is the one of the last exec: what a process does to os.environ later does not show, and forks share it.
    return f"{MARK}={os.environ[MARK]}".encode() in _read(pid, "environ").split(b"\0")


def _is_zombie(pid: int) -> bool:
    return _read(pid, "stat").rpartition(b")")[2].split()[:1] == [b"Z"]


def _unreaped(before: Snapshot) -> list[int]:
    """Dead children of this process that nobody waited for."""
    found = []
    for task in os.listdir("/proc/self/task"):
        children = _read(os.getpid(), f"task/{task}/children").split()
        found += [int(pid) for pid in children if int(pid) not in before.pids and _is_zombie(int(pid))]
    return found


def _describe(pid: int) -> str:
    command = _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
    return f"pid {pid}: {command[:120] or '(no command line)'}"


def _leaked_pids(before: Snapshot) -> list[int]:
    now = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    return sorted(pid for pid in now - before.pids if _is_ours(pid) and not _is_zombie(pid))


def _other_sessions_run() -> bool:
    """Whether a coordinator or a test session that is not ours is alive: then a new segment folder may be its own."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    mine = _ancestors()
    commands = (_read(pid, "cmdline") for pid in pids if pid not in mine and not _is_ours(pid))
    return any(b"runner.coordinator" in command or b"pytest" in command for command in commands)


def _ancestors() -> set[int]:
    """This process, which got the mark after its start, and those that started it."""
    found, pid = set(), os.getpid()
    while pid > 1:
        found.add(pid)
        pid = int(_read(pid, "stat").rpartition(b")")[2].split()[1])
    return found


def leaks(before: Snapshot) -> list[str]:
    """One line for each thing that was not there before."""
    now = Snapshot.take()
    found = [f"process {_describe(pid)}" for pid in _leaked_pids(before)]
    found += [f"child process {pid} ended, but nobody waited for it" for pid in _unreaped(before)]
    for thread in now.threads - before.threads:
        target = getattr(getattr(thread, "_target", None), "__name__", "")
        if thread.is_alive() and not any(word in f"{thread.name} {target}" for word in THREADS_ALLOWED):
            found.append(f"thread {thread.name!r} (daemon={thread.daemon})")
    for fd, target in now.fds.items():
        if before.fds.get(fd) != target and not target.startswith(FDS_ALLOWED):
            found.append(f"file descriptor {fd} -> {target}")
    shm = now.shm - before.shm
    if shm and not _other_sessions_run():
        found += [f"shared memory {SHM}/{name}" for name in sorted(shm)]
    tmp = [name for name in now.tmp - before.tmp if not name.startswith(TMP_ALLOWED)]
    return found + [f"temporary file {os.path.join(tempfile.gettempdir(), name)}" for name in sorted(tmp)]


def wait_for_none(before: Snapshot, grace_s: float, kinds: tuple[str, ...] = ("",)) -> list[str]:
    """The leaks (of these kinds: the lines' first words) that are still there after the grace."""
    deadline_s = time.monotonic() + grace_s
    while True:
        found = [line for line in leaks(before) if line.startswith(kinds)]
        if not found or time.monotonic() > deadline_s:
            return found
        gc.collect()
        time.sleep(0.02)


def clean_up(before: Snapshot) -> None:
    """Kill what is left, so that the next test starts clean."""
    for pid in _leaked_pids(before):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for pid in _unreaped(before):
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


@dataclass(eq=False)  # pytest keeps its plugins in sets
class LeakCheck:
    """The pytest plugin; registered by tests/conftest.py."""

    session_before: Snapshot | None = None
    before: Snapshot | None = None
    folder: str = ""
    # Fixtures of wider scope that brought processes, threads or descriptors and still live.
    holders: dict[tuple[str, str], int] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def start(self) -> None:
        """Point temporary files and runner's home into a folder of this session."""
        # Short: the path of a Unix socket has 107 bytes at most.
        self.folder = tempfile.mkdtemp(prefix="rt-")
        os.environ[MARK] = os.path.basename(self.folder)
        os.environ["TMPDIR"] = tempfile.tempdir = self.folder
        os.environ["RUNNER_HOME"] = os.path.join(self.folder, "home")
        for name in ("RUNNER_ADDRESS", "RUNNER_TOKEN", "RUNNER_TOKEN_FILE", "RUNNER_CA"):
            os.environ.pop(name, None)
        self.session_before = Snapshot.take()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        if fixturedef.scope == "function":
            return (yield)
        before = Snapshot.take()
        result = yield
        now = Snapshot.take()
        grown = now.threads - before.threads or set(now.fds) - set(before.fds)
        if grown or any(_is_ours(pid) for pid in now.pids - before.pids):
            self.holders[fixturedef.baseid, fixturedef.argname] = 1
        return result

    @pytest.hookimpl
    def pytest_fixture_post_finalizer(self, fixturedef: Any, request: Any) -> None:
        self.holders.pop((fixturedef.baseid, fixturedef.argname), None)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        if not self.holders:
            self.before = Snapshot.take()
        yield

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        yield
        before = self.before
        if self.holders or before is None:
            return
        excused = item.get_closest_marker("leaks") is not None or item.nodeid in self.failed
        found = wait_for_none(before, GRACE_S)
        if not found:
            return
        clean_up(before)
        if not excused:
            lines = "\n  ".join(found)
            pytest.fail(f"{item.nodeid} left behind, {GRACE_S:g} s after its end:\n  {lines}", pytrace=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, None, None]:
        yield
        if self.session_before is None:
            return
        # Threads and descriptors of pytest's plugins come with the first test; each test was checked for them.
        found = wait_for_none(self.session_before, SESSION_GRACE_S, ("process", "child process", "shared memory"))
        clean_up(self.session_before)
        if found:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            self.leftovers = found

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for line in getattr(self, "leftovers", []):
            terminalreporter.write_line(f"LEFT BEHIND by the session: {line}", red=True)

    def pytest_unconfigure(self) -> None:
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            tempfile.tempdir = None
