"""Which processes of this host belong to which machine of which cluster: written by machines, read by sweepers.

A tag sits in two places, because each alone loses some processes: the command line, which forks inherit and `ps` shows, and the
environment, which survives `exec` and a change of session. Both are readable for the same user without any file of ours, so that the
machines of a coordinator that died together with its state directory are still found.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runner.ids import ClusterId, MachineId

_TITLE = "runner-machine"
_ENVIRONMENT = "RUNNER_MACHINE"
_PR_SET_NAME = 15
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """One live process. `(pid, start_ticks)` never repeats until the host boots again."""

    pid: int
    start_ticks: int
    session: int
    state: str
    group: int = 0

    @property
    def identity(self) -> str:
        return f"{self.pid}:{self.start_ticks}"

    @property
    def is_session_leader(self) -> bool:
        return self.pid == self.session

    def started_unix_s(self) -> float:
        """To the second: the kernel tells the time of its own start no better."""
        boot_time = next(line for line in (_PROC / "stat").read_text().splitlines() if line.startswith("btime "))
        return int(boot_time.split()[1]) + self.start_ticks / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Seen:
    """A live process and, where it carries the tag of the cluster asked about, its machine."""

    process: Process
    machine_id: MachineId | None


@dataclass(frozen=True, slots=True)
class Tagged(Seen):
    """A process that says it belongs to this machine."""

    machine_id: MachineId
    is_agent: bool  # the machine's first process; what it executed leads no session under the agent's title


@dataclass(frozen=True, slots=True)
class _Tag:
    machine_id: MachineId
    in_title: bool


def tag_this_process(cluster_id: ClusterId, machine_id: MachineId) -> bool:
    """Mark this process and all that it starts from now on. False: only what it executes is marked.

    For a freshly forked, single-threaded machine, before it forks or starts anything. The command line can be overwritten only
    within its old length, so a very short one stays as it was.
    """
    os.environ[_ENVIRONMENT] = f"{cluster_id}/{machine_id}"  # noqa: TID251 - written, not read
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NAME, f"runner {machine_id}".encode()[:15], 0, 0, 0)
    title = f"{_TITLE}\0{cluster_id}\0{machine_id}\0".encode()
    fields = _stat_fields(os.getpid())
    start, end = (
        (int(fields[45]), int(fields[46])) if fields else (0, 0)
    )  # arg_start, arg_end: fields 48 and 49 of proc(5)
    if start == 0 or end - start < len(title):
        return False
    ctypes.memmove(start, title.ljust(end - start, b"\0"), end - start)
    return True


def tag_environment(cluster_id: ClusterId, machine_id: MachineId) -> dict[str, str]:
    """The environment that marks what is executed with it."""
    return {_ENVIRONMENT: f"{cluster_id}/{machine_id}"}


def find_process(pid: int) -> Process | None:
    """The live process with this pid; None when there is none, or only a zombie."""
    fields = _stat_fields(pid)
    if fields is None or fields[0] in "ZX":
        return None
    return Process(pid, start_ticks=int(fields[19]), session=int(fields[3]), state=fields[0], group=int(fields[2]))


def survey(cluster_id: ClusterId) -> list[Seen]:
    """All live processes of this user, with the tags of this cluster."""
    return [_see(process, cluster_id) for process in _own_processes()]


def find_tagged(cluster_id: ClusterId) -> list[Tagged]:
    """All live processes of this cluster's machines: what they forked, executed or left in other sessions."""
    return [seen for seen in survey(cluster_id) if isinstance(seen, Tagged)]


def send_signal(process: Process, number: signal.Signals) -> bool:
    """Signal exactly this process, never a later one with its pid. False: it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle pins the pid; only now does comparing the start time prove anything.
        current = find_process(process.pid)
        if current is None or current.start_ticks != process.start_ticks:
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def _own_processes() -> Iterator[Process]:
    uid = os.getuid()
    for entry in os.scandir(_PROC):
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid != uid:
                continue
        except FileNotFoundError:
            continue
        process = find_process(int(entry.name))
        if process is not None:
            yield process


def _see(process: Process, cluster_id: ClusterId) -> Seen:
    tag = _read_tag(process.pid, cluster_id)
    if tag is None:
        return Seen(process, None)
    return Tagged(process, tag.machine_id, is_agent=tag.in_title and process.is_session_leader)


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of proc(5)'s stat from the third (state) on; the second may contain anything, so the split is at its last `)`."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()


def _read_tag(pid: int, cluster_id: ClusterId) -> _Tag | None:
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        if len(command) >= 3 and command[0] == _TITLE.encode() and command[1] == cluster_id.encode():
            return _Tag(MachineId(command[2].decode()), in_title=True)
        prefix = f"{_ENVIRONMENT}={cluster_id}/".encode()
        for variable in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
            if variable.startswith(prefix):
                return _Tag(MachineId(variable[len(prefix) :].decode()), in_title=False)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return None
