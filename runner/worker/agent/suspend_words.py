"""Events and commands of an agent whose machine is suspended and comes back. Immutable."""

from __future__ import annotations

from typing import NamedTuple


# ---- from the coordinator ----
class SuspendAsked(NamedTuple):
    """Take nothing more, give back what has not begun, and say when nothing runs."""

    snapshot: int
    interrupts: bool = False  # what runs is stopped and given back


class PrepareAsked(NamedTuple):
    """Nothing runs: have the hooks run, deliver everything, hang up. `hooks_s`: the time limit of the hooks."""

    snapshot: int
    hooks_s: float


class SuspendCalledOff(NamedTuple):
    snapshot: int


# ---- from this machine ----
class ExecutorParked(NamedTuple):
    """Its attempt runs nothing until it is told to go on."""

    number: int
    serial: int
    snapshot: int


class HooksRun(NamedTuple):
    """All hooks of an executor have run, or one has failed."""

    number: int
    snapshot: int
    is_after: bool
    failure: str = ""


class CudaMoved(NamedTuple):
    """CUDA memory is in the host's (`is_after`: back on the GPUs), or with a failure it is as it was, except in `stuck`."""

    snapshot: int
    is_after: bool
    failure: str = ""
    stuck: tuple[int, ...] = ()  # executors whose CUDA calls may never return


class HungUp(NamedTuple):
    """Everything is delivered and every connection closed: the machine may be suspended at any moment."""


class Awoke(NamedTuple):
    """Registered again. `asleep_s` of this clock went by since it hung up; none of it counts."""

    asleep_s: float
    hooks_s: float  # the time limit of the hooks
    ends_executors: bool = False  # the coordinator has forgotten what ran here and who asked for it


# ---- commands ----
class TellQuiet(NamedTuple):
    """Tell all executors that a suspend waits for a moment when nothing runs."""

    snapshot: int


class TellGoOn(NamedTuple):
    """Tell all executors that the suspend is over, or will not be."""

    snapshot: int


class RunHooks(NamedTuple):
    number: int
    snapshot: int
    is_after: bool


class MoveCuda(NamedTuple):
    """Move CUDA memory of executors to the host's, or (`is_after`) back to the GPUs."""

    snapshot: int
    numbers: tuple[int, ...]
    is_after: bool


class ReportQuiet(NamedTuple):
    snapshot: int


class ReportRefused(NamedTuple):
    snapshot: int
    reason: str


class HangUp(NamedTuple):
    """Say that the machine is prepared, see everything delivered, close every connection, and ask to register again."""

    snapshot: int


class ReportAwake(NamedTuple):
    """The hooks have run. With a failure they have not, and this memory is not to be used."""

    snapshot: int
    failure: str


SuspendEvent = SuspendAsked | PrepareAsked | SuspendCalledOff | ExecutorParked | HooksRun | CudaMoved | HungUp | Awoke
SuspendCommand = TellQuiet | TellGoOn | RunHooks | MoveCuda | ReportQuiet | ReportRefused | HangUp | ReportAwake
