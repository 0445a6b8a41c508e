"""What is known of a machine: what it wrote and what its provider said of it, in one file that outlives it; how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from runner.ids import MachineId

_TAIL_BYTES = 64 * 1024
_LINES_MAX = 200


def path_of(log_dir: Path, name: MachineId) -> Path:
    """The file of one machine."""
    return log_dir / f"{name}.log"


def note(path: Path, name: MachineId, event: str) -> None:
    """A line of the provider's among the machine's, so that a log is never empty. A full disk loses it."""
    with contextlib.suppress(OSError), path.open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} provider: machine {name} {event}\n")


def describe_status(status: int) -> str:
    """A wait status in words: `exited with code 1` or `was killed by signal 9 (SIGKILL)`."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"was killed by signal {-code}"


def read_tail(path: Path) -> tuple[str, ...]:
    """The last whole lines of a log; none where there is no file."""
    try:
        with path.open("rb") as log:
            size_bytes = log.seek(0, os.SEEK_END)
            log.seek(max(0, size_bytes - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ()
    if size_bytes > _TAIL_BYTES:
        lines = lines[1:]  # the first one is cut
    return tuple(lines[-_LINES_MAX:])
