"""Which machine holds which bundle of a placement group. Pure: the same question is asked of what is free, and of what could be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from runner.core.resources import Resources, amount_of, missing
from runner.core.values import CPU, GPU, UNIT, Shape, make_shape

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")
BUNDLES_MAX = 1_000

T = TypeVar("T")
Bundle = tuple[int, Shape]  # its index, and what it needs


@dataclass(slots=True, eq=False)
class Room(Generic[T]):
    """What is free at one place. `count`: bundles of the group that are there already."""

    place: T
    order: int
    resources: Resources
    count: int = 0
    is_mine: bool = False  # whether `resources` is a copy, which may change

    def take(self, shape: Shape) -> tuple[int, ...]:
        """Put a bundle there, which must fit; returns its GPUs."""
        if not self.is_mine:
            self.resources, self.is_mine = self.resources.copy(), True
        gpu_ids = self.resources.pick_gpus(amount_of(shape, GPU))
        self.resources.take(shape, gpu_ids)
        self.count += 1
        return gpu_ids


@dataclass(frozen=True, slots=True)
class Plan(Generic[T]):
    """Where the bundles go: all of them, or none, and then which of them there is no room for."""

    places: tuple[tuple[int, T, tuple[int, ...]], ...]  # index, place, GPUs
    lacking: tuple[Shape, ...] = ()


def plan(strategy: str, bundles: Sequence[Bundle], rooms: Sequence[Room[T]]) -> Plan[T]:
    """`strategy`: PACK (few places), SPREAD (many), STRICT_PACK (one place) or STRICT_SPREAD (one place each).

    Costs O((bundles + places) x shapes x log places), but for STRICT_SPREAD where places are scarce.
    """
    # Scarce and large things first: what is left over is easier to place.
    ordered = sorted(bundles, key=lambda each: (-amount_of(each[1], GPU), -_size(each[1]), each[0]))
    if strategy == "STRICT_SPREAD":
        return _one_each(ordered, rooms)
    if strategy in {"PACK", "STRICT_PACK"}:
        together = _in_one(ordered, rooms)
        if together.places or strategy == "STRICT_PACK":
            return together
    return _greedy(ordered, rooms, is_packed=strategy == "PACK")


def _size(shape: Shape) -> int:
    return amount_of(shape, CPU) + sum(1 for _ in shape)


def total_of(shapes: Sequence[Shape]) -> Shape:
    """What one machine must have to hold all of them; GPUs in whole numbers from one on."""
    total: dict[str, int] = {}
    for shape in shapes:
        for name, amount in shape:
            total[name] = total.get(name, 0) + amount
    gpus = total.get(GPU, 0)
    if gpus > UNIT:
        total[GPU] = -(-gpus // UNIT) * UNIT
    return make_shape(total)


def _in_one(bundles: Sequence[Bundle], rooms: Sequence[Room[T]]) -> Plan[T]:
    shapes = [shape for _, shape in bundles]
    whole = {name: amount for name, amount in total_of(shapes) if name != GPU}
    # Where some of the group are already, the rest may go; but not anywhere else.
    used = [room for room in rooms if room.count]
    for room in sorted(used or rooms, key=lambda each: (each.resources.load(shapes[0]), each.order)):
        if all(room.resources.free.get(name, 0) >= amount for name, amount in whole.items()):
            trial = Room(room.place, room.order, room.resources, room.count)
            placed: list[tuple[int, T, tuple[int, ...]]] = []
            for index, shape in bundles:
                if not trial.resources.fits(shape):
                    break
                placed.append((index, room.place, trial.take(shape)))
            if len(placed) == len(bundles):
                return Plan(tuple(placed))
    return Plan((), (total_of(shapes),))


def _greedy(bundles: Sequence[Bundle], rooms: Sequence[Room[T]], *, is_packed: bool) -> Plan[T]:
    rooms = [Room(room.place, room.order, room.resources, room.count) for room in rooms]
    heaps: dict[Shape, list[tuple[int, float, int, Room[T]]]] = {}
    for _, shape in bundles:
        if shape not in heaps:
            heaps[shape] = [_entry(room, shape, is_packed=is_packed) for room in rooms if room.resources.fits(shape)]
            heapify(heaps[shape])
    placed: list[tuple[int, T, tuple[int, ...]]] = []
    lacking: list[Shape] = []
    for index, shape in bundles:
        heap = heaps[shape]
        # What a place has only gets less: one that does not fit now never will.
        while heap and (not heap[0][3].resources.fits(shape) or heap[0][0] != _rank(heap[0][3], is_packed=is_packed)):
            heappop(heap)
        if not heap:
            lacking.append(shape)
            continue
        room = heap[0][3]
        placed.append((index, room.place, room.take(shape)))
        for other, entries in heaps.items():
            heappush(entries, _entry(room, other, is_packed=is_packed))
    return Plan((), tuple(lacking)) if lacking else Plan(tuple(placed))


def _rank(room: Room[T], *, is_packed: bool) -> int:
    return -min(room.count, 1) if is_packed else room.count


def _entry(room: Room[T], shape: Shape, *, is_packed: bool) -> tuple[int, float, int, Room[T]]:
    # Packed: the same place again, while it lasts. The order decides between equals, so rooms are never compared.
    return _rank(room, is_packed=is_packed), room.resources.load(shape), room.order, room


def _one_each(bundles: Sequence[Bundle], rooms: Sequence[Room[T]]) -> Plan[T]:
    """A matching: whoever finds all its places taken asks those who have them whether they can move."""
    free = [room for room in rooms if not room.count]
    able: dict[Shape, list[int]] = {}
    for _, shape in bundles:
        if shape not in able:
            fits = [i for i, room in enumerate(free) if room.resources.fits(shape)]
            able[shape] = sorted(fits, key=lambda i: (free[i].resources.load(shape), free[i].order))
    holder: dict[int, int] = {}  # room -> position of its bundle
    lacking = [shape for position, (_, shape) in enumerate(bundles) if not _find(position, bundles, able, holder)]
    if lacking:
        return Plan((), tuple(lacking))
    places = ((bundles[p][0], free[room].place, free[room].take(bundles[p][1])) for room, p in holder.items())
    return Plan(tuple(sorted(places, key=lambda each: each[0])))


def _find(start: int, bundles: Sequence[Bundle], able: dict[Shape, list[int]], holder: dict[int, int]) -> bool:
    """One more bundle into the matching: breadth first over rooms, then the moves along the path that was found."""
    came: dict[int, tuple[int, int | None]] = {}  # room -> who wants it, and the room that this one would leave
    queue: list[tuple[int, int | None]] = [(start, None)]
    for position, leaves in queue:
        for room in able[bundles[position][1]]:
            if room in came:
                continue
            came[room] = (position, leaves)
            if room not in holder:
                target: int | None = room
                while target is not None:
                    holder[target], target = came[target]
                return True
            queue.append((holder[room], room))
    return False


def never_fits(shape: Shape, totals: Sequence[Shape]) -> bool:
    """Whether no machine of these can hold it."""
    return all(missing(shape, dict(total)) for total in totals)
