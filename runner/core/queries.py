"""Questions about the state. None changes anything."""

from __future__ import annotations

from itertools import islice, takewhile

from runner.core.actors import ActorState
from runner.core.groups import Group, GroupState
from runner.core.machine import BOOTING, Machine, MachineState
from runner.core.resources import describe, missing
from runner.core.sleep import Stage
from runner.core.state import State
from runner.core.task import Task, TaskState
from runner.core.values import FailureRecord, ValueRecord
from runner.core.views import GroupView, MachineView, PoolView, TaskView
from runner.ids import MachineId, ObjectId, TaskId

_NAMES_SHOWN = 3
_UNDECIDED = frozenset({Stage.PREPARING, Stage.SAVING})


def task_view(state: State, task: Task) -> TaskView:
    record = task.record
    function = state.functions.get(record.function_id)
    return TaskView(
        record.task_id,
        record.name,
        record.client_id,
        record.function_id,
        "" if function is None else function.name,
        task.state.label,
        task.attempt,
        task.last_machine_id,
        record.is_run,
        record.submitted_unix_s,
        task.started_s,
        task.ended_s,
        task.checkpoint,
        task.failure,
        record.num_returns,
    )


def tasks_page(
    state: State, *, label: str, name: str, runs_only: bool, after: str, limit: int
) -> tuple[list[TaskView], str]:
    """In order of submission. The token is the order of the last one shown, so a page never repeats or skips."""
    start = int(after) if after else -1
    chosen = (
        task
        for task in state.tasks.values()
        if task.order > start
        and (not runs_only or task.record.is_run)
        and (not name or task.record.name == name)
        and (not label or task.state.label == label)
    )
    page = list(islice(chosen, limit + 1))
    token = str(page[limit - 1].order) if len(page) > limit else ""
    return [task_view(state, task) for task in page[:limit]], token


def machine_view(machine: Machine) -> MachineView:
    return MachineView(
        machine.machine_id,
        machine.state.label,
        machine.generation,
        machine.shape,
        machine.resources.available(),
        machine.provider,
        machine.provider_machine_id,
        machine.host_id,
        dict(machine.phases),
        machine.reason,
        machine.requested_s,
        len(machine.attempts()),
        machine.pool,
        machine.labels,
        machine.is_single_use,
        tuple(sorted({reservation.group.record.group_id for reservation in machine.reservations})),
        machine.snapshot,
        _sleep_text(machine),
        machine.sleep.suspended_s if machine.sleep is not None and machine.sleep.stage is Stage.SAVED else None,
        "" if machine.wake is None else machine.wake[0],
        machine.wake[2] if machine.wake is not None else machine.sleep.slept_s if machine.sleep is not None else 0.0,
    )


_STAGES = {
    Stage.EMPTYING: "its values are brought away",
    Stage.PREPARING: "runs its hooks and delivers what is left",
    Stage.SAVING: "is being saved",
    Stage.CALLED_OFF: "called off, waits for its agent",
    Stage.STARTING: "starts, waits for its agent",
    Stage.WAKING: "runs its hooks",
}


def _sleep_text(machine: Machine) -> str:
    sleep = machine.sleep
    if sleep is None or sleep.stage is Stage.SAVED:
        return ""
    text = _waits_for(machine) if sleep.stage is Stage.QUIETING else _STAGES[sleep.stage]
    return f"{text}; wanted back already" if sleep.is_wanted and sleep.stage in _UNDECIDED else text


def _waits_for(machine: Machine) -> str:
    """What an agent waits for that has been told to become quiet. Actors may sleep between their calls."""
    running = [task for task in machine.attempts() if task.state is TaskState.RUNNING and task.record.actor is None]
    if len(running) == 1:
        task = running[0]
        name = f" ({task.record.name})" if task.record.name else ""
        return f"waits for task {task.task_id}{name} to end"
    if running:
        return f"waits for {len(running)} tasks to end"
    return "waits for calls of its actors to end" if machine.attempts() else "waits for its agent"


def pools(state: State) -> list[PoolView]:
    return [
        PoolView(p.record, p.coming, p.ready, len(p.asleep), len(p.idle), p.going, p.problem, p.is_hopeless, p.limit)
        for p in state.pools.values()
    ]


def machines_since(state: State, order: int, pool: str) -> list[MachineId]:
    """The pool's machines that were added after the one of this order."""
    added = takewhile(lambda machine: machine.order > order, reversed(state.machines.values()))
    return [machine.machine_id for machine in added if machine.pool == pool][::-1]


def machines_page(state: State, after: str, limit: int) -> tuple[list[MachineView], str]:
    start = int(after) if after else -1
    page = list(islice((machine for machine in state.machines.values() if machine.order > start), limit + 1))
    token = str(page[limit - 1].order) if len(page) > limit else ""
    return [machine_view(machine) for machine in page[:limit]], token


def machine_counts(state: State) -> dict[str, int]:
    counts: dict[str, int] = {}
    for machine in state.machines.values():
        counts[machine.state.label] = counts.get(machine.state.label, 0) + 1
    return counts


def resources(state: State) -> tuple[dict[str, int], dict[str, int]]:
    total: dict[str, int] = {}
    available: dict[str, int] = {}
    for machine in state.machines.values():
        if machine.state is MachineState.READY:
            for name, amount in machine.resources.total.items():
                total[name] = total.get(name, 0) + amount
                available[name] = available.get(name, 0) + machine.resources.free[name]
    return total, available


def object_outcome(state: State, object_id: ObjectId) -> ValueRecord | FailureRecord | None:
    obj = state.objects.by_id.get(object_id)
    return None if obj is None else obj.value if obj.value is not None else obj.failure


def group_view(group: Group) -> GroupView:
    ids = tuple("" if each is None else str(each.machine.machine_id) for each in group.places)
    reason = group.failure.message if group.failure is not None else _lacks(group)
    return GroupView(group.record, group.state.label, group.attempt, ids, reason)


def _lacks(group: Group) -> str:
    if group.state is GroupState.CREATED:
        return ""
    return f"no room for {'; '.join(describe(each) for each in group.lacking[:_NAMES_SHOWN]) or 'it yet'}"


def why_waiting(state: State, task: Task) -> str:
    """One sentence for people; "" when it is not waiting for anything."""
    match task.state:
        case TaskState.WAITING:
            return _missing_inputs(state, task)
        case TaskState.QUEUED:
            return _no_room(state, task)
        case TaskState.BACKOFF:
            return f"waits before another try; {task.lines[-1]}"
        case TaskState.ASSIGNED if task.slot is not None and task.slot.tasks[0] is not task:
            return f"next on {task.last_machine_id} after task {task.slot.tasks[0].task_id}"
        case TaskState.ASSIGNED:
            return f"sent to {task.last_machine_id}, which has not started it yet"
        case _:
            return ""


def _missing_inputs(state: State, task: Task) -> str:
    by_id = state.objects.by_id
    ids = [i for i in task.record.dependencies if i not in by_id or by_id[i].value is None]
    more = f" and {len(ids) - _NAMES_SHOWN} more" if len(ids) > _NAMES_SHOWN else ""
    return f"waits for its arguments {', '.join(ids[:_NAMES_SHOWN])}{more}"


def _no_room(state: State, task: Task) -> str:
    group = state.group_of(task.record)
    if group is not None:
        if group.state is not GroupState.CREATED:
            return f"waits for {group.story()}, which is {group.state.label}: {_lacks(group)}"
        return f"needs {describe(task.shape)}; the bundles of {group.story()} are in use"
    shape = task.shape
    able = [m for m in state.machines.values() if not missing(shape, m.resources.total)]
    ready = sum(machine.state is MachineState.READY for machine in able)
    booting = sum(machine.state in BOOTING for machine in able)
    if ready:
        queue = state.queues.by_key[task.key]
        return (
            f"needs {describe(shape)}; all {ready} machines that can hold it are busy; {queue.live} such tasks queued"
        )
    if booting:
        return f"needs {describe(shape)}; {booting} machines that can hold it are booting"
    for pool in state.pools.values():
        if pool.problem and not missing(shape, dict(pool.record.shape)):
            return f"needs {describe(shape)}; pool {pool.record.name} cannot grow now: {pool.problem}"
    return f"needs {describe(shape)}; no machine that can hold it has been requested yet"


def story(state: State, id_: str) -> str:
    task = state.tasks.get(TaskId(id_))
    if task is not None:
        return task.story()
    machine = next((machine for key, machine in state.machines.items() if key == id_), None)
    if machine is not None:
        return machine.story()
    obj = state.objects.by_id.get(ObjectId(id_))
    return f"{id_} is not known" if obj is None else obj.story()


def is_machine_live(machine: Machine | None, generation: int) -> bool:
    return machine is not None and machine.is_live and machine.generation == generation


def is_admitted(machine: Machine | None, agent_instance_id: str) -> bool:
    """Whether this agent is the one that speaks for the machine now."""
    return machine is not None and machine.is_live and machine.agent_instance_id == agent_instance_id


def must_ask_again(machine: Machine | None) -> bool:
    """Whether the agent that is being suspended cannot be told yet what has become of that."""
    return machine is not None and machine.sleep is not None and machine.sleep.stage in _UNDECIDED


def is_asleep(machine: Machine | None) -> bool:
    """Whether what it is told now would wait until somebody resumes it."""
    if machine is None or machine.sleep is None or machine.sleep.is_wanted:
        return False
    return machine.sleep.stage is Stage.SAVED or machine.sleep.stage in _UNDECIDED


def actor_place(state: State, actor_id: TaskId, incarnation: int) -> tuple[MachineId, int] | None:
    """Machine and generation of this incarnation; None when it is over or does not take calls."""
    actor = state.actors.by_id.get(actor_id)
    if actor is None or actor.state is not ActorState.ALIVE or actor.task.attempt != incarnation:
        return None
    machine = actor.task.machine
    return None if machine is None else (machine.machine_id, machine.generation)
