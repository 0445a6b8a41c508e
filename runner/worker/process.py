"""What Linux tells about processes, and how they are made to end with their parents."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Iterable
from typing import Any

from runner.worker.agent.events import ExitCause
from runner.worker.frames import PACKET_BYTES_MAX, PACKET_FDS_MAX, Frame, Kind, decode_packet, encode

CUDA_DEVICE = "/dev/nvidia-uvm"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def become_subreaper() -> None:
    """Orphans among the descendants become this process's children, so that it can find and end them."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent_pid: int) -> None:
    """Be killed when the parent ends; exits at once if it already has.

    The kernel means the parent's *thread*: whoever forks must do so in its main thread.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent_pid:
        os._exit(1)


def outlive_parent() -> None:
    """Undo `die_with_parent`."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def prefer_for_oom_kill() -> None:
    """Let the kernel take this process before the agent and the templates when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("500")


def spare_from_oom_kill() -> None:
    """Undo `prefer_for_oom_kill`."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("0")


def kill_group(leader_pid: int) -> None:
    """SIGKILL every process of the group; the leader must be this process's unreaped child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader_pid, signal.SIGKILL)


def children_of(pid: int) -> list[int]:
    """The direct children, zombies included."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
    except FileNotFoundError:
        # The process is gone, or the kernel lacks CONFIG_PROC_CHILDREN.
        return [child for child in _all_pids() if _parent_of(child) == pid] if os.path.isdir(f"/proc/{pid}") else []
    except ProcessLookupError:
        return []
    return found


def descendants_of(pid: int) -> list[int]:
    """Children, their children, and so on; a moment's picture."""
    found: list[int] = []
    todo = [pid]
    while todo:
        children = children_of(todo.pop())
        found += children
        todo += children
    return found


def has_child() -> bool:
    """Whether this process has a living child; reaps the dead ones."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True


def is_running(pid: int) -> bool:
    """Whether there is such a process; zombies are none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def has_cuda_open(pid: int) -> bool:
    """Whether a process has used CUDA: the driver's device for unified memory is open then, and in no other process."""
    folder = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{name}") == CUDA_DEVICE:
                    return True
    return False


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident memory of the processes; pages they share count once for each."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
            pages += int(file.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def pss_bytes(pids: Iterable[int]) -> int:
    """Memory of the processes with shared pages divided among their users; milliseconds per process."""
    total_kib = 0
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            total_kib += next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
    return total_kib * 1024


def machine_memory() -> tuple[int, int]:
    """Bytes in use that nobody can take back, and bytes there are: of this control group, or of the host, whichever is fuller."""
    found = [_host_memory(), *_group_memory()]
    return max(found, key=lambda pair: pair[0] / pair[1])


def memory_total() -> int:
    """Bytes of memory that processes here can have: the host's, or the control group's where that has less."""
    return min(total for _, total in (_host_memory(), *_group_memory()))


def _host_memory() -> tuple[int, int]:
    with open("/proc/meminfo", encoding="ascii") as file:
        kib = {line.partition(":")[0]: int(line.split()[1]) for line in file}
    total = kib["MemTotal"] * 1024
    return total - kib.get("MemAvailable", kib["MemFree"]) * 1024, total


def _group_memory() -> list[tuple[int, int]]:
    """Of the control group that this process sees as its root, under both versions of them; none without a limit."""
    found: list[tuple[int, int]] = []
    for limit, usage, stat, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file "),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file "),
    ):
        with contextlib.suppress(OSError, ValueError):
            total, used = (int(_read(f"/sys/fs/cgroup/{name}")) for name in (limit, usage))  # "max" is no number
            lines = _read(f"/sys/fs/cgroup/{stat}").splitlines()
            used -= next((int(line.split()[1]) for line in lines if line.startswith(cache)), 0)
            if 0 < total < 1 << 60:  # the first version says a very large number for no limit
                found.append((used, total))
    return found


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def oom_kills() -> int:
    """How often the kernel has killed for memory, here or in this control group; rises only."""
    total = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    return total


def exit_cause(wait_status: int) -> ExitCause:
    """A wait status in words."""
    if os.WIFSIGNALED(wait_status):
        number = os.WTERMSIG(wait_status)
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = f"signal {number}"
        return ExitCause(signal_number=number, signal_name=name)
    return ExitCause(exit_code=os.waitstatus_to_exitcode(wait_status))


def send_packet(sock: socket.socket, kind: Kind, *fields: Any, fds: tuple[int, ...] = ()) -> None:
    """One frame as one packet, with descriptors.

    Raises:
        OSError: the other end is gone.
    """
    data = encode(kind, *fields)
    if fds:
        socket.send_fds(sock, [data], fds)
    else:
        sock.send(data)


def receive_packet(sock: socket.socket) -> tuple[Frame, list[int]] | None:
    """The next frame and its descriptors; None at the end. Non-blocking sockets raise BlockingIOError.

    Raises:
        ProtocolViolationError: the packet holds no frame.
    """
    try:
        data, fds, _, _ = socket.recv_fds(sock, PACKET_BYTES_MAX, PACKET_FDS_MAX)
    except ConnectionResetError:
        return None
    if not data:
        return None
    return decode_packet(data), fds


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl({option}): {os.strerror(error)}")


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _parent_of(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None
