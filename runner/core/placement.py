"""Where a task may go: the least loaded machine that fits, or behind a short task on a busy slot.

Both choices are heaps with lazy deletion, so that an event costs O(shapes x log n)
and never a scan. An entry counts only while its version is the thing's version.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush
from math import inf
from typing import Generic, Protocol, TypeVar

from runner.core.machine import Slot
from runner.core.resources import is_cpu_only
from runner.core.task import Block, Task
from runner.core.values import CoreConfig, Shape
from runner.core.wants import Key

# Shapes in use are few; a client that makes up a new one per task must not make every event slow.
_SHAPES_MAX = 32
_STALE_MIN = 64


class Place(Protocol):
    """What tasks are placed on: a machine, or a bundle that is reserved on one."""

    version: int

    @property
    def order(self) -> int: ...
    def will_do(self, key: Key) -> bool: ...
    def load_for(self, key: Key) -> float: ...


P = TypeVar("P", bound=Place)


class PlaceIndex(Generic[P]):
    """Places by load, one heap per queue that is in use."""

    def __init__(self) -> None:
        self._heaps: dict[Key, list[tuple[float, int, int, P]]] = {}

    def touch(self, place: P, places: Collection[P]) -> None:
        """What it has free, or its state, has changed."""
        place.version += 1
        for key, heap in self._heaps.items():
            if place.will_do(key):
                heappush(heap, (place.load_for(key), place.order, place.version, place))
                if len(heap) > 2 * len(places) + _STALE_MIN:
                    heap[:] = self._build(key, places)

    def best(self, key: Key, places: Collection[P], wanted: Collection[Key]) -> P | None:
        """The least loaded one that fits; keys outside `wanted` may be dropped from the index."""
        heap = self._heaps.get(key)
        if heap is None:
            if len(self._heaps) >= _SHAPES_MAX:
                self._heaps = {known: kept for known, kept in self._heaps.items() if known in wanted}
            heap = self._heaps[key] = self._build(key, places)
        while heap:
            _, _, version, place = heap[0]
            if version == place.version:
                return place
            heappop(heap)
        return None

    def _build(self, key: Key, places: Iterable[P]) -> list[tuple[float, int, int, P]]:
        heap = [(each.load_for(key), each.order, each.version, each) for each in places if each.will_do(key)]
        heapify(heap)
        return heap


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
            or slot.bundle is not None
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
