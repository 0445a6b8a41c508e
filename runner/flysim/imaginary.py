"""Programs that are not there: machines whose configuration names nothing that this computer can run."""

from __future__ import annotations

from collections.abc import Callable

from runner.flysim.records import Boot, Command, Freeze, Kill, Thaw

# (machine id, life, exit code, signal)
OnExit = Callable[[str, int, int, int], None]


class ImaginaryProcesses:
    """They run until they are signalled, and then end at once. A frozen one ends by SIGKILL only."""

    def __init__(self, on_exit: OnExit) -> None:
        self._on_exit = on_exit
        self._running: dict[str, int] = {}  # machine id: life
        self._frozen: set[str] = set()

    def carry_out(self, command: Command) -> None:
        """Do as told; word of an end comes before this returns."""
        machine_id = command.machine_id
        if isinstance(command, Boot):
            self._running[machine_id] = command.life
            return
        if self._running.get(machine_id) != command.life:
            return
        if isinstance(command, Freeze):
            self._frozen.add(machine_id)
        elif isinstance(command, Thaw):
            self._frozen.discard(machine_id)
        elif isinstance(command, Kill):
            self._end(machine_id, 9)
        elif machine_id not in self._frozen:
            self._end(machine_id, command.number)

    def _end(self, machine_id: str, number: int) -> None:
        self._frozen.discard(machine_id)
        self._on_exit(machine_id, self._running.pop(machine_id), 128 + number, number)
