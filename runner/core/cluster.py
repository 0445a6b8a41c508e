"""The core's one door: events in, facts and commands out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from runner.core import invariants, queries, snapshot
from runner.core.commands import Command
from runner.core.decide.actors import ACTOR_EVENTS, release_abandoned
from runner.core.decide.clients import CLIENT_EVENTS, unknown_object
from runner.core.decide.fleet import FLEET_EVENTS
from runner.core.decide.groups import GROUP_EVENTS
from runner.core.decide.pools import replan
from runner.core.decide.streams import STREAM_EVENTS
from runner.core.decide.tasks import TASK_EVENTS
from runner.core.events import Event
from runner.core.facts import Fact
from runner.core.lineage import LINEAGE_EVENTS
from runner.core.objects import ObjectState
from runner.core.schedule import Scheduler
from runner.core.state import State
from runner.core.task import TaskState
from runner.core.turn import APPLY, Turn
from runner.core.values import CoreConfig, FailureRecord, ValueRecord
from runner.core.views import GroupView, MachineView, PoolView, TaskView
from runner.ids import ClientId, FunctionId, MachineId, ObjectId, TaskId

EVENTS: dict[type[Any], Callable[[Turn, Any], None]] = {
    **CLIENT_EVENTS,
    **ACTOR_EVENTS,
    **FLEET_EVENTS,
    **STREAM_EVENTS,
    **GROUP_EVENTS,
    **TASK_EVENTS,
    **LINEAGE_EVENTS,
}


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
        self._state = State(config or CoreConfig())
        self._scheduler = Scheduler(self._state)

    def handle(self, event: Event, now_s: float) -> Decision:
        """Decide about one event at core time `now_s`; the facts have been applied when it returns."""
        state = self._state
        state.now_s = now_s
        turn = Turn(state, now_s)
        EVENTS[type(event)](turn, event)
        if state.objects.abandoned:
            release_abandoned(turn)
        if state.is_placement_due or state.dirty_machines or state.dirty_slots or state.dirty_bundles:
            self._scheduler.run(turn)
        if state.is_plan_due:
            self._replan(turn)
        commands, state.commands = state.commands, []
        return Decision(turn.facts, commands)

    def _replan(self, turn: Turn) -> None:
        state = self._state
        if (
            not state.pools or not state.is_fleet_known
        ):  # pools of an earlier start are asked about when this one has spoken
            state.is_plan_due = False
            return
        replan(turn)
        if state.is_placement_due or state.dirty_machines:
            self._scheduler.run(turn)

    def replay(self, facts: Iterable[Fact]) -> None:
        """Apply journalled facts, in order, to a new cluster. Decides nothing and commands nothing."""
        for fact in facts:
            self.apply(fact)

    def apply(self, fact: Fact) -> None:
        """Apply one journalled fact."""
        APPLY[type(fact)](self._state, fact)
        self._state.commands.clear()
        self._state.objects.abandoned.clear()

    def next_wakeup_s(self) -> float | None:
        """Core time at which `ClockAdvanced` is due; None: never."""
        timers = self._state.timers
        return timers[0][0] if timers else None

    def check(self) -> None:
        """Assert every invariant. For tests and debug builds: looks at everything."""
        invariants.check(self._state)

    def snapshot(self) -> dict[str, Any]:
        """All durable state as plain data; equal for a live cluster and its replay."""
        return snapshot.snapshot(self._state)

    # ---- questions; none changes anything ----
    def is_current(self, machine_id: MachineId, generation: int, task_id: TaskId, attempt: int) -> bool:
        """Whether this fence names the attempt that may speak for the task now."""
        return self._state.current(machine_id, generation, task_id, attempt) is not None

    def generation_of(self, machine_id: MachineId) -> int:
        """0: unknown or never registered."""
        machine = self._state.machines.get(machine_id)
        return 0 if machine is None else machine.generation

    def is_machine_live(self, machine_id: MachineId, generation: int) -> bool:
        """Whether an agent of this generation may talk to us (ready or draining)."""
        return queries.is_machine_live(self._state.machines.get(machine_id), generation)

    def is_admitted(self, machine_id: MachineId, agent_instance_id: str) -> bool:
        """Whether this agent is the one that speaks for the machine now."""
        return queries.is_admitted(self._state.machines.get(machine_id), agent_instance_id)

    def must_ask_again(self, machine_id: MachineId) -> bool:
        """Whether an agent that is being suspended cannot be told yet what has become of that."""
        return queries.must_ask_again(self._state.machines.get(machine_id))

    def is_asleep(self, machine_id: MachineId) -> bool:
        """Whether what it is told now would wait until somebody resumes it."""
        return queries.is_asleep(self._state.machines.get(machine_id))

    def wake_of(self, machine_id: MachineId) -> tuple[str, int, float] | None:
        """What its agent has woken of: "resumed", "cold" or "cancelled", the snapshot's number, seconds asleep. None: of nothing."""
        machine = self._state.machines.get(machine_id)
        return None if machine is None else machine.wake

    def has_client(self, client_id: ClientId) -> bool:
        return client_id in self._state.clients

    def frame_seq(self, client_id: ClientId) -> int:
        """Number of the last applied frame of this client; 0 before the first or when unknown."""
        client = self._state.clients.get(client_id)
        return 0 if client is None else client.frame_seq

    def unfinished_tasks(self, client_id: ClientId | None = None) -> int:
        """How many tasks (of this client, or at all) have not settled."""
        if client_id is None:
            return sum(count for kind, count in self._state.task_counts.items() if kind < TaskState.SUCCEEDED)
        client = self._state.clients.get(client_id)
        return 0 if client is None else len(client.tasks)

    def object_outcome(self, object_id: ObjectId) -> ValueRecord | FailureRecord | None:
        """None while pending; an OBJECT_LOST failure when unknown or freed."""
        if object_id not in self._state.objects.by_id:
            return unknown_object(object_id)
        return queries.object_outcome(self._state, object_id)

    def is_lost(self, object_id: ObjectId) -> bool:
        """Whether it had a value that is gone, and can be or is being made again."""
        obj = self._state.objects.by_id.get(object_id)
        return obj is not None and (
            obj.state is ObjectState.EVICTED
            or (obj.state is ObjectState.PENDING and obj.maker is not None and obj.maker.reruns > 0)
        )

    def object_state(self, object_id: ObjectId) -> str:
        """Label: "pending", "ready", "failed", "evicted"; "" when unknown or freed."""
        obj = self._state.objects.by_id.get(object_id)
        return "" if obj is None else obj.state.name.lower()

    def actor_place(self, actor_id: TaskId, incarnation: int) -> tuple[MachineId, int] | None:
        """Machine and generation of this incarnation of an actor; None when it is over or does not take calls."""
        return queries.actor_place(self._state, actor_id, incarnation)

    def function_name(self, function_id: FunctionId) -> str:
        """Empty for one that is not known."""
        function = self._state.functions.get(function_id)
        return "" if function is None else function.name

    def task(self, task_id: TaskId) -> TaskView | None:
        task = self._state.tasks.get(task_id)
        return None if task is None else queries.task_view(self._state, task)

    def tasks(
        self, *, state: str = "", name: str = "", runs_only: bool = False, after: str = "", limit: int = 100
    ) -> tuple[list[TaskView], str]:
        """One page in order of submission, and the token of the next page ("" at the end)."""
        return queries.tasks_page(self._state, label=state, name=name, runs_only=runs_only, after=after, limit=limit)

    def machine(self, machine_id: MachineId) -> MachineView | None:
        machine = self._state.machines.get(machine_id)
        return None if machine is None else queries.machine_view(machine)

    def machines(self, *, after: str = "", limit: int = 100) -> tuple[list[MachineView], str]:
        return queries.machines_page(self._state, after, limit)

    def pools(self) -> list[PoolView]:
        return queries.pools(self._state)

    def groups(self, group_id: str = "") -> list[GroupView]:
        """The placement group of this id, or all."""
        by_id = self._state.groups.by_id
        chosen = by_id.values() if not group_id else [by_id[group_id]] if group_id in by_id else []
        return [queries.group_view(group) for group in chosen]

    def newest_machine(self) -> int:
        """The order of the machine that was added last."""
        return self._state.machine_order - 1

    def machines_since(self, order: int, pool: str) -> list[MachineId]:
        """The pool's machines that were added after the one of this order."""
        return queries.machines_since(self._state, order, pool)

    def task_counts(self) -> dict[str, int]:
        """Number of tasks by state label, without zeros."""
        return {kind.label: count for kind, count in self._state.task_counts.items() if count}

    def machine_counts(self) -> dict[str, int]:
        return queries.machine_counts(self._state)

    def resources(self) -> tuple[dict[str, int], dict[str, int]]:
        """Total and available amounts of the ready machines, in units (memory in bytes)."""
        return queries.resources(self._state)

    def object_count(self) -> int:
        return len(self._state.objects.by_id)

    def client_count(self) -> int:
        """Connected sessions that are not executors'."""
        clients = self._state.clients.values()
        return sum(client.executor_id is None and client.lease_until_s is None for client in clients)

    def is_wanted(self) -> bool:
        """Whether a client is connected, or work is unfinished that no client's end would cancel."""
        if self.client_count():
            return True
        owned = sum(len(client.tasks) for client in self._state.clients.values())
        return self.unfinished_tasks() > owned

    def why_waiting(self, task_id: TaskId) -> str:
        """One sentence for people; "" when it is not waiting."""
        task = self._state.tasks.get(task_id)
        return "" if task is None else queries.why_waiting(self._state, task)

    def story(self, id_: str) -> str:
        """What has happened to a task or machine, one line per step."""
        return queries.story(self._state, id_)
