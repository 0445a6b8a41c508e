"""Gives free capacity to queued tasks, after every event that changed either."""

from __future__ import annotations

from runner.core.commands import BringObjects
from runner.core.decide.groups import lose_bundles, place_groups
from runner.core.decide.suspend import emptied
from runner.core.facts import AttemptAssigned, AttemptResumed, MachineMoved
from runner.core.feasibility import is_feasible, unschedulable
from runner.core.lineage import is_supplied
from runner.core.machine import Machine, MachineState
from runner.core.placement import PlaceIndex, SlotIndex
from runner.core.preferences import preferred
from runner.core.queues import KeyQueue
from runner.core.reservation import Reservation
from runner.core.resources import amount_of, is_cpu_only, only_cpus
from runner.core.settle import settle
from runner.core.sleep import Stage
from runner.core.state import State
from runner.core.task import Task
from runner.core.turn import Turn
from runner.core.values import GPU
from runner.core.wants import Key, Want
from runner.ids import MachineId


class Scheduler:
    """Holds the indexes over machines and slots; they can be rebuilt from the state at any time."""

    def __init__(self, state: State) -> None:
        self._machines = PlaceIndex[Machine]()
        self._slots = SlotIndex(state.config)

    def run(self, turn: Turn) -> None:
        """Resume first, then place: an attempt that was blocked comes before queued work."""
        state = turn.state
        for machine in list(state.dirty_machines):
            if machine.awake:
                _resume(turn, machine)
            if machine.reservations and machine.state is not MachineState.READY:
                lose_bundles(turn, machine)
            if (
                machine.is_single_use
                and machine.has_served
                and machine.state is MachineState.READY
                and not machine.slots
                and not machine.reservations
            ):
                turn.record(MachineMoved(machine.machine_id, MachineState.DRAINING, "it has served its one task"))
            if machine.state is MachineState.DRAINING and not machine.slots and _is_empty(turn, machine):
                turn.record(MachineMoved(machine.machine_id, MachineState.STOPPING, "drained"))
            if machine.sleep is not None and machine.sleep.stage is Stage.EMPTYING and _is_empty(turn, machine):
                emptied(turn, machine)
        for bundle in list(state.dirty_bundles) if state.dirty_bundles else ():
            if bundle.awake:
                _resume(turn, bundle)
        if state.groups.waiting:
            place_groups(turn)
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
        if state.dirty_bundles:
            for bundle in state.dirty_bundles:
                bundle.group.index.touch(bundle, bundle.group.standing())
            state.dirty_bundles.clear()
        for slot in state.dirty_slots:
            self._slots.touch(slot)
        state.dirty_slots.clear()

    def _place(self, turn: Turn) -> None:
        state = turn.state
        # Placing only takes capacity, so what does not fit now will not fit later in this turn.
        full: set[Key] = set()
        while len(full) < len(state.queues.by_key):
            for queue in state.queues.in_turn():
                if queue.key in full:
                    continue
                if not is_feasible(state, queue.key):
                    _fail_all(turn, queue)
                elif not self._place_head(turn, queue):
                    full.add(queue.key)
                    continue
                break  # ranks have changed
        state.is_placement_due = False

    def _place_head(self, turn: Turn, queue: KeyQueue) -> bool:
        state, key, task = turn.state, queue.key, queue.head()
        if task.record.dependencies and not is_supplied(turn, task):
            return True  # it has left the queue
        shape = task.shape
        place = self._choose(state, key, task)
        gpu_ids: tuple[int, ...] = ()
        bundle = -1
        if place is not None:
            if isinstance(place, Machine):
                machine = place
            else:
                machine, bundle = place.machine, place.index
            slot_id = state.next_slot
            gpus = amount_of(shape, GPU)
            if gpus:
                gpu_ids = place.resources.pick_gpus(gpus)
        else:
            slot = None if isinstance(key, Want) or not is_cpu_only(shape) else self._slots.best(task)
            if slot is None:
                return False
            slot_id, machine = slot.slot_id, slot.machine
        turn.record(
            AttemptAssigned(task.record.task_id, task.attempt + 1, machine.machine_id, slot_id, gpu_ids, bundle)
        )
        self._flush(state)
        return True

    def _choose(self, state: State, key: Key, task: Task) -> Machine | Reservation | None:
        """Where it would rather be, if there is room; else the least loaded one."""
        if isinstance(key, Want) and key.machine_id:
            named = state.machines.get(MachineId(key.machine_id))
            return named if named is not None and named.will_do(key) else None
        if isinstance(key, Want) and key.group_id:
            group = state.groups.by_id[key.group_id]
            return group.index.best(key, group.standing(), state.queues.by_key)
        best = self._machines.best(key, state.machines.values(), state.queues.by_key)
        if best is not None and (task.record.dependencies or task.record.wishes is not None):
            return preferred(state, task, best)
        return best


def _is_empty(turn: Turn, machine: Machine) -> bool:
    """Whether it has handed over the values that only it has; it is told to do so."""
    there = turn.state.objects.volatile.get(machine.machine_id)
    if not there:
        return True
    news = tuple(object_id for object_id in there if object_id not in machine.emptying)
    if news:
        machine.emptying.update(news)
        turn.state.commands.append(BringObjects(machine.machine_id, machine.generation, news))
    return False


def _resume(turn: Turn, place: Machine | Reservation) -> None:
    for task in list(place.awake.values()):
        if not place.resources.fits(only_cpus(task.shape)):
            return  # first come, first resumed
        turn.record(AttemptResumed(task.task_id))


def _fail_all(turn: Turn, queue: KeyQueue) -> None:
    for task in list(queue.tasks()):
        if not task.is_settled():
            settle(turn, task, unschedulable(turn.state, task))
