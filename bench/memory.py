"""How much memory a tree of processes holds, shared pages counted once."""

from __future__ import annotations

import os
import re


def tree(root_pid: int) -> list[int]:
    """The process and all its descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(parent, []).append(int(name))
    found, todo = [], [root_pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def pss_bytes(pid: int) -> int:
    """Proportional set size: private pages plus this process's share of the shared ones."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            found = re.search(r"^Pss:\s+(\d+) kB", file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def tree_pss_mb(root_pid: int) -> tuple[float, int]:
    """PSS of the tree in MB (10^6 bytes), and the number of its processes."""
    pids = tree(root_pid)
    return sum(map(pss_bytes, pids)) / 1e6, len(pids)
