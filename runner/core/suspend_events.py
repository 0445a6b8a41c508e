"""Events of suspending and resuming machines."""

from __future__ import annotations

from dataclasses import dataclass

from runner.ids import MachineId


@dataclass(frozen=True, slots=True)
class SuspendRequested:
    """Somebody wants this machine to sleep. What runs is waited for, or with `interrupts` given back."""

    machine_id: MachineId
    interrupts: bool = False


@dataclass(frozen=True, slots=True)
class ResumeRequested:
    """Somebody wants it back. Also calls off a suspend that has not happened yet."""

    machine_id: MachineId


@dataclass(frozen=True, slots=True)
class AgentIsQuiet:
    """Nothing runs on the machine, and nothing will begin."""

    machine_id: MachineId
    generation: int
    snapshot: int


@dataclass(frozen=True, slots=True)
class AgentPrepared:
    """Hooks have run, all reports are in, the agent has hung up: the last that this generation says."""

    machine_id: MachineId
    generation: int
    snapshot: int


@dataclass(frozen=True, slots=True)
class AgentRefused:
    """The machine cannot be suspended now; its agent goes on as before."""

    machine_id: MachineId
    generation: int
    snapshot: int
    reason: str


@dataclass(frozen=True, slots=True)
class MachineSuspended:
    """The provider answered `suspend`."""

    machine_id: MachineId
    snapshot: int


@dataclass(frozen=True, slots=True)
class MachineSuspendFailed:
    machine_id: MachineId
    snapshot: int
    reason: str


@dataclass(frozen=True, slots=True)
class MachineStarted:
    """The provider answered `start`: its agent should be heard soon."""

    machine_id: MachineId
    snapshot: int


@dataclass(frozen=True, slots=True)
class MachineResumeFailed:
    """The provider could not start it from its snapshot."""

    machine_id: MachineId
    snapshot: int
    reason: str


@dataclass(frozen=True, slots=True)
class AgentAwoke:
    """It has registered again and its hooks have run; with a failure this memory is not to be used."""

    machine_id: MachineId
    generation: int
    snapshot: int
    failure: str = ""


@dataclass(frozen=True, slots=True)
class MachineSurveyed:
    """What the provider says of a machine that an earlier coordinator had suspended or was resuming."""

    machine_id: MachineId
    found: str  # "suspended", "running", "stopped", "gone"


SuspendEvent = (
    SuspendRequested
    | ResumeRequested
    | AgentIsQuiet
    | AgentPrepared
    | AgentRefused
    | MachineSuspended
    | MachineSuspendFailed
    | MachineStarted
    | MachineResumeFailed
    | AgentAwoke
    | MachineSurveyed
)
