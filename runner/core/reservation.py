"""A bundle of a placement group as it stands on a machine: resources set aside, and what of them is free."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.core.machine import Machine, MachineState
from runner.core.resources import Resources
from runner.core.task import Task
from runner.core.values import Shape
from runner.core.wants import Key, Want, shape_of
from runner.ids import TaskId

if TYPE_CHECKING:
    from runner.core.groups import Group


@dataclass(slots=True, eq=False)
class Reservation:
    """Attempts of the group take from it as others do from a machine. Changed only by applying facts."""

    group: Group
    index: int  # of the bundle
    machine: Machine
    shape: Shape
    gpu_ids: tuple[int, ...]
    order: int  # in which the group's were made
    resources: Resources = field(init=False)
    awake: dict[TaskId, Task] = field(default_factory=dict)  # unblocked attempts that wait for CPUs, first come first
    slots: int = 0
    is_over: bool = False  # takes nothing new; given back when its last attempt has ended
    version: int = 0  # of its entries in the placement heaps

    def __post_init__(self) -> None:
        self.resources = Resources.part(self.shape, self.gpu_ids)

    def will_do(self, key: Key) -> bool:
        """Whether a task of this queue may start here now."""
        if self.is_over or self.awake or self.machine.state is not MachineState.READY:
            return False
        return isinstance(key, Want) and key.bundle in (-1, self.index) and self.resources.fits(key.shape)

    def load_for(self, key: Key) -> float:
        """How busy it is; the least wins."""
        return self.resources.load(shape_of(key))
