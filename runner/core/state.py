"""Everything the core knows. Changed only by the `apply_*` modules."""

from __future__ import annotations

from collections import OrderedDict, deque
from heapq import heappush
from math import inf
from typing import Any

from runner.core.actors import Actor, ActorState, ActorTable
from runner.core.clients import Client, Function
from runner.core.commands import (
    Command,
    DropCheckpoint,
    ForgetTask,
    FreeSegment,
    NoteMachineState,
    NoteTaskState,
    NotifyActor,
)
from runner.core.groups import Group, GroupTable
from runner.core.machine import COUNTED, Machine, MachineState, Slot
from runner.core.objects import ObjectTable
from runner.core.pool import Pool
from runner.core.queues import Queues
from runner.core.reservation import Reservation
from runner.core.sleep import Stage
from runner.core.task import Task, TaskState
from runner.core.values import CoreConfig, FailureRecord, Labels, PoolRecord, SegmentRecord, Shape, TaskRecord
from runner.core.wants import Key
from runner.ids import ClientId, FunctionId, MachineId, ObjectId, TaskId

# Kinds of timers.
BACKOFF, BOOT, LEASE, CLIENT, SCALE, GROUP, SLEEP = 1, 2, 3, 4, 5, 6, 7
_WARM_MAX = 4096


class State:
    """The tables, and what applying the facts of one event leaves to be done.

    `commands`, `dirty_machines`, `dirty_slots` and `is_placement_due` are the
    outcome of applying facts; the event's decision consumes them, a replay
    throws them away.
    """

    def __init__(self, config: CoreConfig) -> None:
        self.config = config
        self.tasks: dict[TaskId, Task] = {}
        self.machines: dict[MachineId, Machine] = {}
        self.machine_order = 0
        self.destroyed: deque[MachineId] = deque()  # the newest ones, still in `machines` for listings
        self.objects = ObjectTable()
        self.actors = ActorTable()
        self.groups = GroupTable()
        self.clients: dict[ClientId, Client] = {}
        self.functions: dict[FunctionId, Function] = {}
        self.packages: dict[str, bytes] = {}
        self.queues = Queues()
        self.task_counts = dict.fromkeys(TaskState, 0)
        self.task_order = 0
        self.next_slot = 1
        self.pools: dict[str, Pool] = {}
        self.is_elastic = False  # whether what waits changes how many machines there are
        self.asleep = 0  # machines of pools: what waits wakes them
        self.configured: tuple[PoolRecord, ...] = ()  # as the last start said; machines may have been added since
        self.capacity: dict[tuple[Shape, Labels], int] = {}  # machines that count for feasibility
        self.verdicts: dict[Key, bool] = {}  # cache of feasibility
        self.hosts: dict[str, dict[Machine, None]] = {}  # machines that have registered and are not gone
        self.warm: OrderedDict[str, MachineId] = OrderedDict()  # by affinity key: where its newest attempt went
        # ---- of this coordinator, not of the journal ----
        self.now_s = 0.0  # of the event being handled
        self.provider = ""
        self.is_fleet_known = False  # what machines there will be; until then nothing is unschedulable
        self.is_budget_spent = False
        self.is_plan_due = False
        self.planned_s = -inf
        self.replan_s = -inf  # of the timer that makes up for a plan which came too soon after another
        self.plan_timer_s = inf  # of the next one that waits for time to change the plan
        self.timers: list[tuple[float, int, str]] = []  # heap; entries may be out of date
        self.commands: list[Command] = []
        self.dirty_machines: dict[Machine, None] = {}
        self.dirty_slots: dict[Slot, None] = {}
        self.dirty_bundles: dict[Reservation, None] = {}
        self.is_placement_due = False

    def set_timer(self, due_s: float, kind: int, id_: str) -> None:
        heappush(self.timers, (due_s, kind, id_))

    # ---- tasks ----
    def move_task(self, task: Task, to: TaskState) -> None:
        self.task_counts[task.state] -= 1
        self.task_counts[to] += 1
        task.move(to)

    def enqueue(self, task: Task, *, first: bool = False) -> None:
        self.move_task(task, TaskState.QUEUED)
        # Behind others of its shape it cannot be placed if they could not.
        if self.queues.add(task, first=first):
            self.is_placement_due = True
        if self.is_elastic or self.asleep:
            self.is_plan_due = True

    def note_task(self, task: Task, **more: Any) -> None:
        """Tell watchers where the task is now."""
        record = task.record
        label, machine_id = task.state.label, task.last_machine_id
        self.commands.append(
            NoteTaskState(
                record.task_id, record.name, record.client_id, label, task.attempt, machine_id, task.failure, **more
            )
        )

    def current(self, machine_id: MachineId, generation: int, task_id: TaskId, attempt: int) -> Task | None:
        """The task, if this is its current attempt and the machine is still the one it was sent to."""
        task = self.tasks.get(task_id)
        if task is None or task.attempt != attempt:
            return None
        machine = task.machine
        if machine is None or machine.machine_id != machine_id or machine.generation != generation:
            return None
        return task if machine.is_live else None

    # ---- actors ----
    def move_actor(self, task: Task, to: ActorState, failure: FailureRecord | None = None) -> None:
        """Its incarnation has changed: tell who watches. Nothing for other tasks, and for a move to where it is."""
        actor = self.actors.by_id.get(task.task_id)
        if actor is None or actor.state is to:
            return
        actor.move(to)
        actor.failure = failure
        if to is ActorState.DEAD:
            self.actors.free_name(actor)
        self.tell_watchers(actor)

    def tell_watchers(self, actor: Actor) -> None:
        self.commands += [actor_notice(client_id, actor) for client_id in actor.watchers]

    # ---- places ----
    def group_of(self, record: TaskRecord) -> Group | None:
        """The placement group that it is to run in, if that is known."""
        return None if record.wishes is None else self.groups.by_id.get(record.wishes.group_id)

    def touch(self, slot: Slot) -> None:
        """What is free where it takes its resources from has changed."""
        if slot.bundle is None:
            self.dirty_machines[slot.machine] = None
        else:
            self.dirty_bundles[slot.bundle] = None

    def give_bundle_back(self, bundle: Reservation) -> None:
        """Nobody uses it any more, and nobody will."""
        machine = bundle.machine
        del machine.reservations[bundle]
        machine.resources.give(bundle.shape, bundle.gpu_ids)
        self.dirty_machines[machine] = None
        self.is_placement_due = True
        self.note_idleness(machine)

    def note_warm(self, affinity_key: str, machine_id: MachineId) -> None:
        """A task with this key goes there: the next one rather too."""
        if affinity_key:
            self.warm[affinity_key] = machine_id
            self.warm.move_to_end(affinity_key)
            if len(self.warm) > _WARM_MAX:
                self.warm.popitem(last=False)

    # ---- objects ----
    def sweep(self) -> None:
        """Let go of what belongs to freed objects. To be called after anything that can free."""
        freed = self.objects.freed
        while freed:
            obj = freed.pop()
            if obj.value is not None and obj.value.segment is not None:
                self._free_segment(obj.object_id, obj.value.segment)
            if obj.maker is not None:
                obj.maker.live_returns -= 1
                self.forget_if_over(obj.maker)
        dropped = self.objects.dropped
        while dropped:
            self._free_segment(*dropped.pop())

    def _free_segment(self, object_id: ObjectId, segment: SegmentRecord) -> None:
        self.commands.append(FreeSegment(object_id, segment))
        machine = self.machines.get(segment.machine_id)
        if machine is not None and machine.state in (MachineState.DRAINING, MachineState.SUSPENDING):
            self.dirty_machines[machine] = None  # it waited for that, maybe

    def forget_if_over(self, task: Task) -> None:
        """Drop the record of a settled task without returns; those of runs stay. To be followed by `sweep`."""
        if task.live_returns or not task.is_settled() or task.record.is_run:
            return
        if self.tasks.pop(task.record.task_id, None) is None:
            return  # freeing its last return has done it
        self.task_counts[task.state] -= 1
        if task.lineage is not None:
            self.drop_lineage(task)
        if task.record.actor is not None:
            self.actors.by_id.pop(task.task_id, None)
        if task.stream is not None and (reader := self.clients.get(task.record.client_id)) is not None:
            reader.streams.pop(task.task_id, None)
        if task.checkpoint is not None:
            self.commands.append(DropCheckpoint(task.record.task_id, task.checkpoint))
        self.commands.append(ForgetTask(task.record.task_id))

    def drop_lineage(self, task: Task) -> None:
        """It will not run again. To be followed by `sweep`."""
        lineage, task.lineage = task.lineage or (), None
        self.objects.drop_lineage(lineage)
        self.release_function(task)

    def release_function(self, task: Task) -> None:
        """It needs its function no longer. To be followed by `sweep`."""
        function, task.function = task.function, None
        if function is not None:
            function.uses -= 1
            if not function.clients:
                self.drop_function_if_unused(function)

    def drop_function_if_unused(self, function: Function) -> None:
        """To be followed by `sweep`."""
        if not function.clients and not function.uses:
            del self.functions[function.function_id]
            self.objects.unpin(function.pinned)

    # ---- machines ----
    def leave_host(self, machine: Machine) -> None:
        """Nothing on its host is there through it any more."""
        on_host = self.hosts.get(machine.host_id)
        if on_host is not None and machine in on_host:
            del on_host[machine]
            if not on_host:
                del self.hosts[machine.host_id]

    def move_machine(self, machine: Machine, to: MachineState, reason: str = "") -> None:
        was_counted = machine.state in COUNTED
        pool = self.pools.get(machine.pool)
        if pool is not None:
            pool.counts[machine.state] -= 1
            pool.counts[to] += 1
            pool.came += to is MachineState.READY
            if to is MachineState.SUSPENDED:
                pool.asleep[machine] = None
            else:
                pool.asleep.pop(machine, None)
            self.asleep += (to is MachineState.SUSPENDED) - (machine.state is MachineState.SUSPENDED)
            if to is MachineState.STOPPING and machine.has_served:
                pool.lived()
        machine.move(to, reason)
        self.note_idleness(machine)
        if was_counted != (to in COUNTED):
            self.count_capacity(machine, -1 if was_counted else 1)
        self.dirty_machines[machine] = None
        self.is_placement_due = self.is_plan_due = True
        self.commands.append(NoteMachineState(machine.machine_id, to.label, machine.generation, reason))

    def note_idleness(self, machine: Machine) -> None:
        """What it runs, or its state, has changed."""
        pool = self.pools.get(machine.pool)
        if pool is not None:
            if self.is_elastic:
                self.is_plan_due = True
            if machine.state is not MachineState.READY or machine.slots or machine.reservations:
                pool.idle.pop(machine, None)
            else:
                pool.idle.setdefault(machine, self.now_s)

    def count_capacity(self, machine: Machine, change: int) -> None:
        kind = machine.shape, machine.labels
        count = self.capacity.get(kind, 0) + change
        if count:
            self.capacity[kind] = count
        else:
            del self.capacity[kind]
        self.verdicts.clear()
        self.is_placement_due = True


def actor_notice(client_id: ClientId, actor: Actor) -> NotifyActor:
    """What this watcher is told now."""
    return NotifyActor(
        client_id,
        actor.actor_id,
        actor.state.label,
        actor.task.attempt,
        actor.host_id,
        actor.address,
        actor.secret,
        actor.failure,
        _is_asleep(actor.task.machine),
    )


def _is_asleep(machine: Machine | None) -> bool:
    return machine is not None and machine.sleep is not None and machine.sleep.stage is Stage.SAVED
