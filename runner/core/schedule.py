"""Gives free capacity to queued tasks, after every event that changed either."""

from __future__ import annotations

from runner.core.facts import AttemptAssigned, AttemptResumed, MachineMoved
from runner.core.machine import Machine, MachineState
from runner.core.placement import MachineIndex, SlotIndex
from runner.core.queues import ShapeQueue
from runner.core.resources import amount_of, describe, is_cpu_only, missing, only_cpus
from runner.core.settle import failure_of, settle
from runner.core.state import State
from runner.core.task import Task
from runner.core.turn import Turn
from runner.core.values import GPU, FailureKind, FailureRecord, Shape

_VERDICTS_MAX = 1024


class Scheduler:
    """Holds the indexes over machines and slots; they can be rebuilt from the state at any time."""

    def __init__(self, state: State) -> None:
        self._machines = MachineIndex()
        self._slots = SlotIndex(state.config)

    def run(self, turn: Turn) -> None:
        """Resume first, then place: an attempt that was blocked comes before queued work."""
        state = turn.state
        for machine in list(state.dirty_machines):
            if machine.awake:
                _resume(turn, machine)
            if (
                machine.is_single_use
                and machine.has_served
                and machine.state is MachineState.READY
                and not machine.slots
            ):
                turn.record(MachineMoved(machine.machine_id, MachineState.DRAINING, "it has served its one task"))
            if machine.state is MachineState.DRAINING and not machine.slots:
                turn.record(MachineMoved(machine.machine_id, MachineState.STOPPING, "drained"))
        self._flush(state)
        if state.is_placement_due:
            state.is_placement_due = False
            self._place(turn)

    def _flush(self, state: State) -> None:
        if state.dirty_machines:
            machines = state.machines.values()
            for machine in state.dirty_machines:
                self._machines.touch(machine, machines)
            state.dirty_machines.clear()
        for slot in state.dirty_slots:
            self._slots.touch(slot)
        state.dirty_slots.clear()

    def _place(self, turn: Turn) -> None:
        state = turn.state
        full: set[Shape] = (
            set()
        )  # placing only takes capacity, so what does not fit now will not fit later in this turn
        while len(full) < len(state.queues.by_shape):
            for queue in state.queues.in_turn():
                if queue.shape in full:
                    continue
                if not is_feasible(state, queue.shape):
                    _fail_all(turn, queue)
                elif not self._place_head(turn, queue):
                    full.add(queue.shape)
                    continue
                break  # ranks have changed
        state.is_placement_due = False

    def _place_head(self, turn: Turn, queue: ShapeQueue) -> bool:
        state, shape, task = turn.state, queue.shape, queue.head()
        machine = self._machines.best(shape, state.machines.values(), state.queues.by_shape)
        gpu_ids: tuple[int, ...] = ()
        if machine is not None:
            slot_id = state.next_slot
            gpus = amount_of(shape, GPU)
            if gpus:
                gpu_ids = machine.resources.pick_gpus(gpus)
        else:
            slot = self._slots.best(task) if is_cpu_only(shape) else None
            if slot is None:
                return False
            slot_id, machine = slot.slot_id, slot.machine
        turn.record(AttemptAssigned(task.record.task_id, task.attempt + 1, machine.machine_id, slot_id, gpu_ids))
        self._flush(state)
        return True


def _resume(turn: Turn, machine: Machine) -> None:
    for task in list(machine.awake.values()):
        if not machine.resources.fits(only_cpus(task.record.shape)):
            return  # first come, first resumed
        turn.record(AttemptResumed(task.task_id))


def _fail_all(turn: Turn, queue: ShapeQueue) -> None:
    for task in list(queue.tasks()):
        if not task.is_settled():
            settle(turn, task, unschedulable(turn.state, task))


def is_feasible(state: State, shape: Shape) -> bool:
    """Whether some machine, present or expected, can ever hold this."""
    verdict = state.verdicts.get(shape)
    if verdict is None:
        if len(state.verdicts) >= _VERDICTS_MAX:
            state.verdicts.clear()
        verdict = not state.is_fleet_known or any(not missing(shape, dict(total)) for total in _totals(state))
        state.verdicts[shape] = verdict
    return verdict


def _totals(state: State) -> set[Shape]:
    """The shapes of machines that there are or may be."""
    growable = () if state.is_budget_spent else (p.record.shape for p in state.pools.values() if p.can_ever_grow)
    return {*state.capacity, *growable}


def unschedulable(state: State, task: Task) -> FailureRecord:
    """What it needs, what is missing, and what the cluster has."""
    shape = task.record.shape
    text = f"task {task.task_id} needs {describe(shape)}, which no machine of this cluster can ever hold"
    totals = _totals(state)
    if totals:
        lacks = min((missing(shape, dict(total)) for total in totals), key=len)
        have = [f"{count} x ({describe(total)})" for total, count in sorted(state.capacity.items())]
        have += [f"machines of ({describe(total)}) on demand" for total in sorted(totals - set(state.capacity))]
        text += f"; missing: {', '.join(lacks)}; the cluster has {'; '.join(have)}"
    else:
        reasons = [machine.reason for machine in state.machines.values() if machine.reason]
        text += ": it has no machines left" + (f" (the last: {reasons[-1]})" if reasons else "")
    if state.is_budget_spent:
        text += "; max_cost is used up, so none is booted"
    return failure_of(task, FailureKind.UNSCHEDULABLE, text)
