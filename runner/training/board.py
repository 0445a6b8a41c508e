"""What is known of some runs and their machines: events in, rows out. No clock, no terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

LOG_LINES_KEPT = 200

# The coordinator's task states in the words of the view.
STATE_WORDS = {
    "waiting": "waiting",
    "queued": "queued",
    "assigned": "starting",
    "running": "running",
    "backoff": "retrying",
    "succeeded": "done",
    "failed": "failed",
    "cancelled": "cancelled",
}
SETTLED = frozenset({"done", "failed", "cancelled"})


class RunEvent(Protocol):
    """What `runner.stream` yields; only the fields that belong to `kind` are meaningful."""

    @property
    def kind(self) -> str: ...
    @property
    def time_s(self) -> float: ...
    @property
    def task_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def values(self) -> Mapping[str, Any]: ...
    @property
    def text(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def machine_id(self) -> str: ...
    @property
    def failure(self) -> str: ...
    @property
    def lines_dropped(self) -> int: ...
    @property
    def phases(self) -> Mapping[str, float]: ...


class Point(NamedTuple):
    """One report. `epoch` is the reported value of that name (a fraction within an epoch), else the step."""

    epoch: float
    step: int
    values: Mapping[str, Any]


class LogLine(NamedTuple):
    time_s: float
    name: str
    text: str


@dataclass
class Row:
    """One run. Times are unix seconds at the coordinator; 0.0 = not yet."""

    task_id: str
    name: str
    state: str = "queued"
    points: list[Point] = field(default_factory=list)
    attempt: int = 0
    machine_id: str = ""
    started_s: float = 0.0  # of the first attempt
    ended_s: float = 0.0
    resumes: list[float] = field(default_factory=list)  # epochs at which a later attempt went on
    failure: str = ""

    @property
    def is_settled(self) -> bool:
        return self.state in SETTLED

    @property
    def epoch(self) -> float:
        return self.points[-1].epoch if self.points else 0.0

    def last(self, metric: str) -> float | None:
        """The newest reported number of this name."""
        for point in reversed(self.points):
            value = number(point.values.get(metric))
            if value is not None:
                return value
        return None

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """(epoch, value) of every report that has this metric as a number."""
        pairs = ((point.epoch, number(point.values.get(metric))) for point in self.points)
        return [(epoch, value) for epoch, value in pairs if value is not None]

    def duration_s(self, now_s: float) -> float:
        """From the start of the first attempt to the end, or to now."""
        return max(0.0, (self.ended_s or now_s) - self.started_s) if self.started_s else 0.0


@dataclass
class MachineRow:
    machine_id: str
    state: str
    phases: dict[str, float] = field(default_factory=dict)  # seconds since requested, in the order they were reached

    @property
    def ready_s(self) -> float:
        """Seconds from the request to the registration; for one that is not that far, to its newest phase."""
        return self.phases.get("registered", max(self.phases.values(), default=0.0))


class Board:
    """Rows of runs and machines; `apply` is the only mutator."""

    def __init__(self, runs: Iterable[tuple[str, str]] = ()) -> None:
        """`runs`: (task id, name) of runs to show before their first event, in the order of the rows."""
        self.rows: dict[str, Row] = {task_id: Row(task_id, name or task_id) for task_id, name in runs}
        self.machines: dict[str, MachineRow] = {}
        self.log: deque[LogLine] = deque(maxlen=LOG_LINES_KEPT)
        self.started_s = 0.0  # time of the earliest event
        self.now_s = 0.0  # time of the newest

    def apply(self, event: RunEvent) -> None:
        """Take in one event. Kinds that the board does not show change nothing."""
        # Events of machines and of runs come in two streams, each in its own order.
        self.started_s = min(self.started_s or event.time_s, event.time_s)
        self.now_s = max(self.now_s, event.time_s)
        if event.kind == "machine":
            self._machine(event)
        elif event.kind == "fleet":
            self.log.append(LogLine(event.time_s, "fleet", printable(event.text)))
        elif event.task_id:
            row = self.rows.setdefault(event.task_id, Row(event.task_id, event.name or event.task_id))
            handler = getattr(self, f"_{event.kind}", None)
            if handler is not None:
                handler(row, event)

    def _state(self, row: Row, event: RunEvent) -> None:
        row.state = STATE_WORDS.get(event.state.lower(), event.state.lower())
        row.machine_id = event.machine_id or row.machine_id
        if row.state == "running":
            row.started_s = row.started_s or event.time_s
        if row.is_settled:
            row.ended_s = event.time_s
            row.failure = event.failure

    def _attempt(self, row: Row, event: RunEvent) -> None:
        """A new attempt goes on after the checkpoint of step `event.step`, or (-1) from the beginning."""
        row.machine_id = event.machine_id or row.machine_id
        row.started_s = row.started_s or event.time_s
        if event.attempt > 1:
            row.points = [point for point in row.points if point.step <= event.step]
            row.resumes.append(row.epoch)
        row.attempt = event.attempt

    def _metrics(self, row: Row, event: RunEvent) -> None:
        epoch = number(event.values.get("epoch"))
        row.points.append(Point(float(event.step) if epoch is None else epoch, event.step, dict(event.values)))

    def _log(self, row: Row, event: RunEvent) -> None:
        self.log.append(LogLine(event.time_s, row.name, printable(event.text)))

    def _log_gap(self, row: Row, event: RunEvent) -> None:
        self.log.append(LogLine(event.time_s, row.name, f"({event.lines_dropped} lines were not kept)"))

    def _machine(self, event: RunEvent) -> None:
        machine = self.machines.setdefault(event.machine_id, MachineRow(event.machine_id, ""))
        machine.state = event.state.lower()
        if event.phases:
            machine.phases = dict(sorted(event.phases.items(), key=lambda item: item[1]))

    def running_on(self, machine_id: str) -> list[str]:
        """Names of the runs that a machine works on now."""
        return [row.name for row in self.rows.values() if row.machine_id == machine_id and row.state == "running"]

    @property
    def is_settled(self) -> bool:
        return all(row.is_settled for row in self.rows.values())


def number(value: Any) -> float | None:
    """`value` as a float if it is a number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def printable(text: str) -> str:
    """The last state of a line that a progress bar rewrote, without control characters."""
    last = text.rstrip("\r\n").rpartition("\r")[2]
    return "".join(char if char.isprintable() else " " for char in last.replace("\t", "    "))
