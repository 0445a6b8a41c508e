"""The core's one door: events in, facts and commands out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from runner.core.commands import Command
from runner.core.events import Event
from runner.core.facts import Fact
from runner.core.values import CoreConfig, FailureRecord, ValueRecord
from runner.core.views import MachineView, TaskView
from runner.ids import ClientId, MachineId, ObjectId, TaskId


class Decision(NamedTuple):
    """What one event led to: facts to journal first, then commands to carry out, both in order."""

    facts: list[Fact]
    commands: list[Command]


class Cluster:
    """Tasks, machines, objects and clients of one cluster.

    Deterministic in (config, events with their times). Timers (leases, backoffs, boot deadlines, client
    leases) fire only on `ClockAdvanced`: the shell sends it last in a turn when `next_wakeup_s()` is due,
    so that frames which waited are handled before anything expires.
    """

    def __init__(self, config: CoreConfig | None = None) -> None:
        raise NotImplementedError

    def handle(self, event: Event, now_s: float) -> Decision:
        """Decide about one event at core time `now_s`; the facts have been applied when it returns."""
        raise NotImplementedError

    def replay(self, facts: Iterable[Fact]) -> None:
        """Apply journalled facts, in order, to a new cluster. Decides nothing and commands nothing."""
        raise NotImplementedError

    def apply(self, fact: Fact) -> None:
        raise NotImplementedError

    def next_wakeup_s(self) -> float | None:
        """Core time at which `ClockAdvanced` is due; None: never."""
        raise NotImplementedError

    def check(self) -> None:
        """Assert every invariant. For tests and debug builds: looks at everything."""
        raise NotImplementedError

    def snapshot(self) -> dict[str, Any]:
        """All durable state as plain data; equal for a live cluster and its replay."""
        raise NotImplementedError

    # ---- questions; none changes anything ----
    def is_current(self, machine_id: MachineId, generation: int, task_id: TaskId, attempt: int) -> bool:
        """Whether this fence names the attempt that may speak for the task now."""
        raise NotImplementedError

    def generation_of(self, machine_id: MachineId) -> int:
        """0: unknown or never registered."""
        raise NotImplementedError

    def is_machine_live(self, machine_id: MachineId, generation: int) -> bool:
        """Whether an agent of this generation may talk to us (ready or draining)."""
        raise NotImplementedError

    def has_client(self, client_id: ClientId) -> bool:
        raise NotImplementedError

    def frame_seq(self, client_id: ClientId) -> int:
        """Number of the last applied frame of this client; 0 before the first or when unknown."""
        raise NotImplementedError

    def unfinished_tasks(self, client_id: ClientId | None = None) -> int:
        """How many tasks (of this client, or at all) have not settled."""
        raise NotImplementedError

    def object_outcome(self, object_id: ObjectId) -> ValueRecord | FailureRecord | None:
        """None while pending; an OBJECT_LOST failure when unknown or freed."""
        raise NotImplementedError

    def task(self, task_id: TaskId) -> TaskView | None:
        raise NotImplementedError

    def tasks(
        self, *, state: str = "", name: str = "", runs_only: bool = False, after: str = "", limit: int = 100
    ) -> tuple[list[TaskView], str]:
        """One page in order of submission, and the token of the next page ("" at the end)."""
        raise NotImplementedError

    def machine(self, machine_id: MachineId) -> MachineView | None:
        raise NotImplementedError

    def machines(self, *, after: str = "", limit: int = 100) -> tuple[list[MachineView], str]:
        raise NotImplementedError

    def task_counts(self) -> dict[str, int]:
        """Number of tasks by state label, without zeros."""
        raise NotImplementedError

    def machine_counts(self) -> dict[str, int]:
        raise NotImplementedError

    def resources(self) -> tuple[dict[str, int], dict[str, int]]:
        """Total and available amounts of the ready machines, in units (memory in bytes)."""
        raise NotImplementedError

    def object_count(self) -> int:
        raise NotImplementedError

    def client_count(self) -> int:
        """Connected sessions that are not executors'."""
        raise NotImplementedError

    def why_waiting(self, task_id: TaskId) -> str:
        """One sentence for people; "" when it is not waiting."""
        raise NotImplementedError

    def story(self, id_: str) -> str:
        """What has happened to a task or machine, one line per step."""
        raise NotImplementedError
