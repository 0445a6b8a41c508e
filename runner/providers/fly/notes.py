"""What is known about each machine's life, one file each: our own calls and the provider's events. Outlives the machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

from runner.ids import MachineId
from runner.providers.fly.model import Event
from runner.providers.fly.records import describe_event, oldest_first

_LINES_MAX = 50


class Notes:
    """Lines about machines, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[MachineId, set[str]] = {}

    def add(self, name: MachineId, line: str) -> None:
        """Note something that was done or seen."""
        self._write(name, [f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} provider: machine {name} {line}"])

    def absorb(self, name: MachineId, events: Iterable[Event]) -> None:
        """Note those events of the machine that are new."""
        seen = self._seen.setdefault(name, set())
        lines = []
        for event in oldest_first(events):
            line = describe_event(event)
            key = event.text("id") or line
            if key not in seen:
                seen.add(key)
                lines.append(line)
        self._write(name, lines)

    def forget(self, name: MachineId) -> None:
        """It is gone: no event of it comes any more. Its lines stay."""
        self._seen.pop(name, None)

    def last(self, name: MachineId) -> tuple[str, ...]:
        """The last lines; none for a machine that never was."""
        try:
            lines = (self._folder / f"{name}.log").read_text(errors="replace").splitlines()
        except OSError:
            return ()
        return tuple(lines[-_LINES_MAX:])

    def _write(self, name: MachineId, lines: list[str]) -> None:
        if not lines:
            return
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self._folder / f"{name}.log").open("a") as log:
                log.writelines(f"{line}\n" for line in lines)
