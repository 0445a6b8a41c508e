"""Facts about suspending and resuming machines."""

from __future__ import annotations

from typing import NamedTuple

from runner.ids import MachineId


class SuspendBegan(NamedTuple):
    """Snapshots of a machine are numbered 1, 2, 3, ..."""

    machine_id: MachineId
    snapshot: int
    reason: str
    interrupts: bool


class SuspendAdvanced(NamedTuple):
    """The suspend, or the resume, has reached this stage."""

    machine_id: MachineId
    stage: int
    reason: str


class SuspendCalledOff(NamedTuple):
    """Before the agent has hung up: it goes on as if nothing had been."""

    machine_id: MachineId
    reason: str


class SnapshotSaved(NamedTuple):
    machine_id: MachineId
    now_s: float


class SnapshotUsed(NamedTuple):
    """The snapshot is used up, from before the provider is asked to resume it: it is never asked twice."""

    machine_id: MachineId
    reason: str
    now_s: float


class SnapshotDropped(NamedTuple):
    """The machine boots cold: what was in its memory is gone, or not to be used."""

    machine_id: MachineId
    reason: str
    now_s: float


class MachineAwoke(NamedTuple):
    """Resumed, or back from a suspend that did not take place: work may come."""

    machine_id: MachineId
    reason: str


class ResumeWanted(NamedTuple):
    """As soon as it can be."""

    machine_id: MachineId


SuspendFact = (
    SuspendBegan
    | SuspendAdvanced
    | SuspendCalledOff
    | SnapshotSaved
    | SnapshotUsed
    | SnapshotDropped
    | MachineAwoke
    | ResumeWanted
)
