"""Where a task may go: the least loaded machine that fits, or behind a short task on a busy slot.

Both choices are heaps with lazy deletion, so that an event costs O(shapes x log n)
and never a scan. An entry counts only while its version is the thing's version.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush
from math import inf

from runner.core.machine import Machine, Slot
from runner.core.resources import is_cpu_only
from runner.core.task import Block, Task
from runner.core.values import CoreConfig, Shape
from runner.core.wants import Key, Want, shape_of

# Shapes in use are few; a client that makes up a new one per task must not make every event slow.
_SHAPES_MAX = 32
_STALE_MIN = 64
_SLOT_LOAD = 1e-6


class MachineIndex:
    """Machines by load, one heap per queue that is in use."""

    def __init__(self) -> None:
        self._heaps: dict[Key, list[tuple[float, int, int, Machine]]] = {}

    def touch(self, machine: Machine, machines: Collection[Machine]) -> None:
        """What it has free, or its state, has changed."""
        machine.version += 1
        for key, heap in self._heaps.items():
            if machine.will_do(key):
                heappush(heap, (_load(machine, key), machine.order, machine.version, machine))
                if len(heap) > 2 * len(machines) + _STALE_MIN:
                    heap[:] = self._build(key, machines)

    def best(self, key: Key, machines: Collection[Machine], wanted: Collection[Key]) -> Machine | None:
        """The least loaded machine that fits; keys outside `wanted` may be dropped from the index."""
        heap = self._heaps.get(key)
        if heap is None:
            if len(self._heaps) >= _SHAPES_MAX:
                self._heaps = {known: kept for known, kept in self._heaps.items() if known in wanted}
            heap = self._heaps[key] = self._build(key, machines)
        while heap:
            _, _, version, machine = heap[0]
            if version == machine.version:
                return machine
            heappop(heap)
        return None

    def _build(self, key: Key, machines: Iterable[Machine]) -> list[tuple[float, int, int, Machine]]:
        heap = [(_load(m, key), m.order, m.version, m) for m in machines if m.will_do(key)]
        heapify(heap)
        return heap


def _load(machine: Machine, key: Key) -> float:
    if isinstance(key, Want) and key.spread:
        return float(len(machine.slots))
    # Actors hold no CPUs by default: between equals, the one with fewer of them.
    return machine.resources.load(shape_of(key)) + len(machine.slots) * _SLOT_LOAD


class SlotIndex:
    """Slots that short tasks may be chained to, least work first, one heap per shape."""

    def __init__(self, config: CoreConfig) -> None:
        self._depth_max = config.chain_depth_max
        self._target_s = config.chain_target_s
        self._heaps: dict[Shape, list[tuple[float, int, int, Slot]]] = {}
        self._size_max = _STALE_MIN

    def touch(self, slot: Slot) -> None:
        """Its attempts have changed."""
        slot.version += 1
        tasks, work_s = slot.tasks, slot.work_s
        if (
            not 0 < len(tasks) <= self._depth_max
            or work_s > self._target_s
            or slot.is_closed
            or tasks[0].block is not Block.NONE
            or tasks[0].record.actor is not None
            or not is_cpu_only(slot.shape)
        ):
            return
        heap = self._heaps.setdefault(slot.shape, [])
        heappush(heap, (work_s, slot.slot_id, slot.version, slot))
        if len(heap) > self._size_max:
            heap[:] = [entry for entry in heap if entry[2] == entry[3].version]
            heapify(heap)
            self._size_max = max(self._size_max, 2 * len(heap))

    def best(self, task: Task) -> Slot | None:
        """The slot where this queued task would wait least, if short enough."""
        if task.record.actor is not None:  # nothing ever comes behind it, and it behind nothing
            return None
        heap = self._heaps.get(task.shape)
        while heap:
            work_s, _, version, slot = heap[0]
            if version == slot.version and slot.machine.can_take(()):
                return slot if work_s + expected_duration_s(task) <= self._target_s else None
            heappop(heap)
        return None


def expected_duration_s(task: Task) -> float:
    """Mean of the function's earlier calls; infinite while unknown, so that nothing waits behind it."""
    function = task.function
    return inf if function is None or function.mean_s is None else function.mean_s
