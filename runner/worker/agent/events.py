"""What an agent's decisions are made from, and what they are: events in, commands out, both immutable."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

from runner.core.values import FailureKind
from runner.worker.agent.suspend_words import SuspendCommand, SuspendEvent

# (task id, attempt number)
Key = tuple[str, int]


class StopReason(enum.IntEnum):
    """Same numbers as the wire's StopReason."""

    CANCELLED = 1
    TIMEOUT = 2
    FENCED = 3  # no longer current: nobody wants a report
    DRAIN = 4
    RELEASED = 5  # an actor that nobody can call any more: it ends gracefully, without fault
    LEASE = 100  # the agent's own: nobody has heard of it for too long
    MEMORY = 101  # the agent's own: over the task's memory limit


class Environment(NamedTuple):
    """What an executor is made for; attempts share executors of an equal environment."""

    env_vars: tuple[tuple[str, str], ...] = ()
    package_ids: tuple[str, ...] = ()
    layer: frozenset[str] = frozenset()  # what its template must have: see templates.py
    threads: int = 1
    visible_gpus: str | None = None  # CUDA_VISIBLE_DEVICES; None: left alone
    template_s: float = 0.0  # for the code of user templates, whose ids are in `layer`; 0: no limit


class Attempt(NamedTuple):
    """One attempt as assigned. `payload` is the shell's and not read here."""

    key: Key
    slot: int
    environment: Environment
    function_id: str
    label: str  # for messages: "task t-1 (lr=0.1) attempt 2"
    timeout_s: float = 0.0  # 0: none
    max_calls: int = 0  # of its function in one executor; 0: no limit
    memory_bytes: int = 0  # 0: no limit
    is_run: bool = False
    payload: Any = None
    grace_s: float = 0.0  # of an actor, from the request to end to SIGTERM; 0: it is none
    startup_timeout_s: float = 0.0  # until its function runs; 0: none
    may_retry: bool = False  # it would be tried again after a kill, as far as is known here


class ExitCause(NamedTuple):
    """How a process ended: by exit or by signal."""

    exit_code: int | None = None
    signal_number: int = 0
    signal_name: str = ""


class Fault(NamedTuple):
    """Why an attempt has no result, when its executor could not tell."""

    kind: FailureKind
    message: str
    used_bytes: int = 0  # of memory, where that is why
    traceback: str = ""


# ---- events: from the coordinator ----
class AttemptAssigned(NamedTuple):
    attempt: Attempt


class StopRequested(NamedTuple):
    key: Key
    reason: StopReason
    force: bool = False


class AttemptResumed(NamedTuple):
    """A blocked attempt has its CPUs again."""

    key: Key


class DrainRequested(NamedTuple):
    """Take nothing more, finish what runs (or stop it: it comes back uncharged), then exit."""

    reason: str
    stop_running: bool = False


class ExitRequested(NamedTuple):
    reason: str


class LayerWanted(NamedTuple):
    modules: frozenset[str]


class Registered(NamedTuple):
    """The coordinator knows this agent; the lease runs."""


class HeartbeatAcked(NamedTuple):
    """The coordinator has received what was sent at `sent_s`."""

    sent_s: float


# ---- events: from this machine ----
class ExecutorReady(NamedTuple):
    number: int
    pid: int


class ExecutorEnded(NamedTuple):
    """The attempt on it is over. `outcome` is the executor's report and not read here."""

    number: int
    serial: int
    outcome: Any
    was_interrupted: bool = False
    left_children: bool = False


class ExecutorBlocked(NamedTuple):
    number: int
    serial: int


class ExecutorUnblocked(NamedTuple):
    number: int
    serial: int


class ExecutorExited(NamedTuple):
    number: int
    cause: ExitCause
    was_oom: bool = False  # the kernel says that it killed for memory


class SpawnFailed(NamedTuple):
    number: int
    text: str


class StageReached(NamedTuple):
    """Of an attempt whose start has a time limit: what it is at; empty: its function runs."""

    number: int
    serial: int
    stage: str


class MemoryExceeded(NamedTuple):
    number: int
    serial: int
    used_bytes: int
    users: str = ""  # for people: who uses most of the machine's memory


class MemoryLow(NamedTuple):
    """The machine has hardly any memory left: the kernel would soon kill whom it likes."""

    used_bytes: int
    total_bytes: int
    users: str  # as above
    used_by: Mapping[int, int]  # bytes by pid of executors


class LayerReady(NamedTuple):
    modules: frozenset[str]


class LayerFailed(NamedTuple):
    modules: frozenset[str]


class TemplateFailed(NamedTuple):
    """The code of a user template has raised."""

    names: frozenset[str]
    message: str
    traceback: str


class TemplateUnfit(NamedTuple):
    """The code of a user template has run, but its process must not be forked."""

    names: frozenset[str]
    reason: str


class TemplateExited(NamedTuple):
    """The process of a user template is gone. `label` names the template for people."""

    number: int
    label: str
    cause: ExitCause
    was_oom: bool = False


class ClockGapSeen(NamedTuple):
    """The machine was suspended or stalled: what it believes about its lease may be old."""


class Ticked(NamedTuple):
    """Nothing but time passed."""


Event = (
    AttemptAssigned
    | StopRequested
    | AttemptResumed
    | DrainRequested
    | ExitRequested
    | LayerWanted
    | Registered
    | HeartbeatAcked
    | ExecutorReady
    | ExecutorEnded
    | ExecutorBlocked
    | ExecutorUnblocked
    | ExecutorExited
    | SpawnFailed
    | StageReached
    | MemoryExceeded
    | MemoryLow
    | LayerReady
    | LayerFailed
    | TemplateFailed
    | TemplateUnfit
    | TemplateExited
    | ClockGapSeen
    | Ticked
    | SuspendEvent
)


# ---- commands ----
class SpawnExecutor(NamedTuple):
    """Fork executor `number` from the template that has `template` imported; its first attempt makes it that environment's."""

    number: int
    template: frozenset[str]


class RunAttempt(NamedTuple):
    number: int
    serial: int
    attempt: Attempt


class InterruptExecutor(NamedTuple):
    """Interrupt attempt `serial` and no other."""

    number: int
    serial: int


class EndActor(NamedTuple):
    """Ask an actor to end: its exit hooks run, then its attempt ends."""

    number: int
    serial: int


class Signal(enum.Enum):
    TERM = "SIGTERM"
    KILL = "SIGKILL"


class SignalGroup(NamedTuple):
    number: int
    signal: Signal


class RetireExecutor(NamedTuple):
    """Ask an idle executor to exit."""

    number: int


class ResumeExecutor(NamedTuple):
    number: int
    serial: int


class LoadLayer(NamedTuple):
    modules: frozenset[str]


class MakeTemplate(NamedTuple):
    """Have the process `number` forked from the template `parent`, and the code of the user templates among `names` run in it."""

    number: int
    names: frozenset[str]
    parent: frozenset[str]


class KillTemplate(NamedTuple):
    number: int


class EndTemplate(NamedTuple):
    """End a user template that is ready, with what was forked from it."""

    names: frozenset[str]


class TellTemplateUnused(NamedTuple):
    """Executors are made without this user template: a warning says so to who uses it next."""

    names: frozenset[str]
    reason: str


class ReportStarted(NamedTuple):
    key: Key
    number: int
    is_run: bool


class ReportEnded(NamedTuple):
    """Exactly one of `outcome` (the executor's) and `fault` is set. `number` is 0 when no executor had it."""

    key: Key
    number: int
    outcome: Any
    fault: Fault | None
    duration_s: float
    is_last: bool = True  # nothing waits behind it on its slot: until this is told, that stands idle


class ReportReturned(NamedTuple):
    key: Key
    reason: str


class ReportBlocked(NamedTuple):
    key: Key


class ReportUnblocked(NamedTuple):
    key: Key


class ReportExecutorGone(NamedTuple):
    number: int


class ExitAgent(NamedTuple):
    reason: str


Command = (
    SpawnExecutor
    | RunAttempt
    | InterruptExecutor
    | EndActor
    | SignalGroup
    | RetireExecutor
    | ResumeExecutor
    | LoadLayer
    | MakeTemplate
    | KillTemplate
    | EndTemplate
    | TellTemplateUnused
    | ReportStarted
    | ReportEnded
    | ReportReturned
    | ReportBlocked
    | ReportUnblocked
    | ReportExecutorGone
    | ExitAgent
    | SuspendCommand
)
