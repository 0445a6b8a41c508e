"""Amounts of one machine: fixed point, whole GPUs by id, fractions of a GPU packed on one id."""

from __future__ import annotations

from collections.abc import Iterable

from runner.core.values import CPU, GPU, MEMORY, UNIT, Shape


class Resources:
    """What a machine has and what of it is free. Never below zero: that is a bug of the caller."""

    __slots__ = ("free", "gpu_free", "total")

    def __init__(self, shape: Shape) -> None:
        self.total = dict(shape)
        self.free = dict(shape)
        self.gpu_free = [UNIT] * (self.total.get(GPU, 0) // UNIT)

    @classmethod
    def part(cls, shape: Shape, gpu_ids: tuple[int, ...]) -> Resources:
        """A part of a machine, with some of its GPUs, under their ids there."""
        part = cls(())
        part.total, part.free = dict(shape), dict(shape)
        if gpu_ids:
            share = min(part.total[GPU], UNIT)
            part.gpu_free = [share if gpu in gpu_ids else 0 for gpu in range(max(gpu_ids) + 1)]
        return part

    def copy(self) -> Resources:
        """One that may change without this one."""
        copy = Resources(())
        copy.total, copy.free, copy.gpu_free = self.total, dict(self.free), list(self.gpu_free)
        return copy

    def fits(self, shape: Shape) -> bool:
        """Whether this much is free now."""
        free = self.free
        for name, amount in shape:
            if free.get(name, 0) < amount or (name == GPU and not self._fits_gpu(amount)):
                return False
        return True

    def load(self, shape: Shape) -> float:
        """How busy the machine is for a task of this shape; the least wins.

        Machines with GPUs look full to tasks without one: the GPU would wait for its CPUs.
        """
        total = self.total.get(CPU, 0)
        busy = 1.0 - self.free[CPU] / total if total else 1.0
        if self.gpu_free:
            busy += 1.0 - self.free[GPU] / self.total[GPU] if any(name == GPU for name, _ in shape) else 2.0
        return busy

    def pick_gpus(self, amount: int) -> tuple[int, ...]:
        """The ids that `take` should get for this amount, which must fit."""
        if amount == 0:
            return ()
        if amount >= UNIT:
            whole = [gpu for gpu, free in enumerate(self.gpu_free) if free == UNIT]
            return tuple(whole[: amount // UNIT])
        # The fullest one that still fits, so that whole ones stay whole.
        return (min((free, gpu) for gpu, free in enumerate(self.gpu_free) if free >= amount)[1],)

    def take(self, shape: Shape, gpu_ids: Iterable[int]) -> None:
        for name, amount in shape:
            self.free[name] -= amount
        self._move_gpus(shape, gpu_ids, -1)

    def give(self, shape: Shape, gpu_ids: Iterable[int]) -> None:
        for name, amount in shape:
            self.free[name] += amount
        self._move_gpus(shape, gpu_ids, 1)

    def available(self) -> Shape:
        return tuple(sorted(self.free.items()))

    def _fits_gpu(self, amount: int) -> bool:
        if amount < UNIT:
            return any(free >= amount for free in self.gpu_free)
        return sum(free == UNIT for free in self.gpu_free) * UNIT >= amount

    def _move_gpus(self, shape: Shape, gpu_ids: Iterable[int], sign: int) -> None:
        for gpu in gpu_ids:
            self.gpu_free[gpu] += sign * min(dict(shape)[GPU], UNIT)


def missing(shape: Shape, total: dict[str, int]) -> list[str]:
    """For people: what a machine with `total` lacks, at best, for one task of this shape."""
    lacks = [
        f"{describe_amount(n, a)} (has {describe_amount(n, total.get(n, 0))})" for n, a in shape if total.get(n, 0) < a
    ]
    gpus = dict(shape).get(GPU, 0)
    if gpus > UNIT and gpus % UNIT:
        lacks.append(f"{describe_amount(GPU, gpus)} (more than one GPU must be a whole number)")
    return lacks


def amount_of(shape: Shape, name: str) -> int:
    for key, amount in shape:
        if key == name:
            return amount
    return 0


def only_cpus(shape: Shape) -> Shape:
    """The part that a blocked attempt gives back."""
    return tuple(pair for pair in shape if pair[0] == CPU)


def is_cpu_only(shape: Shape) -> bool:
    return len(shape) == 1 and shape[0][0] == CPU


def describe_amount(name: str, amount: int) -> str:
    if name == MEMORY:
        return f"memory {amount / 2**30:.3g} GiB"
    return f"{name} {amount / UNIT:g}"


def describe(shape: Shape) -> str:
    """For people, such as `CPU 4, memory 8 GiB`."""
    return ", ".join(describe_amount(name, amount) for name, amount in shape) or "nothing"
