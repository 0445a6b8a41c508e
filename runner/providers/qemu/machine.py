"""One machine, as its provider knows it."""

from __future__ import annotations

from dataclasses import dataclass

from runner.ids import MachineId
from runner.providers.base import MachineState, ProviderMachine
from runner.providers.process_tag import Process
from runner.providers.qemu import snapshot
from runner.providers.qemu.folder import MachineFolder, Made
from runner.providers.qemu.process import QemuProcess


@dataclass(slots=True, eq=False)
class Machine:
    """A machine that this provider has made or taken over."""

    made: Made
    folder: MachineFolder
    process: QemuProcess | None = None
    is_creating: bool = False

    @property
    def state(self) -> MachineState:
        if self.is_creating:
            return MachineState.CREATING
        # Also where QEMU has not ended yet: it has stopped the guest, and it is never let go on.
        if snapshot.exists(self.folder.path):
            return MachineState.SUSPENDED
        return MachineState.STOPPED if self.process is None else MachineState.RUNNING

    @property
    def record(self) -> ProviderMachine:
        made = self.made
        detail = f"micro-VM ({made.build.accel}, {made.build.memory_mib} MiB)"
        return ProviderMachine(made.name, made.unique_id, self.state, made.created_unix_s, detail)


def describe(name: MachineId, folder: MachineFolder | None, process: Process | None) -> ProviderMachine:
    """A machine that this provider has not made: by its folder, or where that is gone by its process."""
    made = None if folder is None else folder.read()
    if made is not None and folder is not None:
        state = MachineState.RUNNING if process is not None else MachineState.STOPPED
        if snapshot.exists(folder.path):
            state = MachineState.SUSPENDED
        return ProviderMachine(name, made.unique_id, state, made.created_unix_s, "of an earlier coordinator")
    if process is not None:
        detail = f"pid {process.pid}, its folder is gone"
        return ProviderMachine(name, process.identity, MachineState.RUNNING, process.started_unix_s(), detail)
    return ProviderMachine(name, "", MachineState.CREATING, 0.0, "its creation was not finished")
