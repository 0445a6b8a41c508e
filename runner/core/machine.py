"""The machine's state machine and record, and the slots on it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner.core.resources import Resources
from runner.core.sleep import CONNECTED, Sleep
from runner.core.task import Task
from runner.core.values import Labels, Shape
from runner.core.wants import Key, Want, matches, shape_of
from runner.errors import IllegalTransitionError
from runner.ids import FunctionId, MachineId, ObjectId, TaskId

if TYPE_CHECKING:
    from runner.core.reservation import Reservation

_SLOT_LOAD = 1e-6
_BUSY_LOAD = 0.1  # three of them are less than one task: see `Resources.load`


class MachineState(enum.IntEnum):
    """Where a machine is in its life. Numbers are in journals."""

    REQUESTED = 1  # wanted; the provider has not been asked
    CREATING = 2  # the provider has been asked
    BOOTING = 3  # exists; its agent has not registered
    READY = 4
    DRAINING = 5  # finishes what it has, gets nothing new
    STOPPING = 6  # emptied; the provider was asked to destroy it
    DESTROYED = 7
    SUSPENDING = 8
    SUSPENDED = 9
    RESUMING = 10
    BOOT_FAILED = 11
    LOST = 12  # given up: silent for too long, or known to be dead
    DESTROYING = 13  # lost; the provider was asked to destroy what may be left

    @property
    def label(self) -> str:
        """The name on the wire and in listings."""
        return self.name.lower()


_M = MachineState
TRANSITIONS: dict[MachineState, frozenset[MachineState]] = {
    _M.REQUESTED: frozenset({_M.CREATING, _M.BOOT_FAILED, _M.LOST}),
    _M.CREATING: frozenset({_M.BOOTING, _M.BOOT_FAILED, _M.STOPPING, _M.LOST}),
    _M.BOOTING: frozenset({_M.READY, _M.BOOT_FAILED, _M.STOPPING, _M.LOST}),
    _M.READY: frozenset({_M.DRAINING, _M.SUSPENDING, _M.LOST}),
    _M.DRAINING: frozenset({_M.STOPPING, _M.LOST}),
    _M.SUSPENDING: frozenset({_M.SUSPENDED, _M.READY, _M.LOST}),
    _M.SUSPENDED: frozenset({_M.RESUMING, _M.STOPPING, _M.LOST}),
    _M.RESUMING: frozenset({_M.READY, _M.BOOTING, _M.LOST}),
    _M.STOPPING: frozenset({_M.DESTROYED, _M.LOST}),
    _M.BOOT_FAILED: frozenset({_M.DESTROYED, _M.LOST}),
    _M.LOST: frozenset({_M.READY, _M.DESTROYING}),
    _M.DESTROYING: frozenset({_M.DESTROYED}),
    _M.DESTROYED: frozenset(),
}

# An agent of the current generation may speak in these, unless it has hung up: see `Machine.is_live`.
LIVE = frozenset({_M.READY, _M.DRAINING, _M.SUSPENDING, _M.RESUMING})
# On its way to sleep, asleep, or on its way back.
SLEEPY = frozenset({_M.SUSPENDING, _M.SUSPENDED, _M.RESUMING})
BOOTING = frozenset({_M.REQUESTED, _M.CREATING, _M.BOOTING})
# Its shape counts when we judge whether a task can ever run.
COUNTED = BOOTING | {_M.READY, _M.SUSPENDING, _M.SUSPENDED, _M.RESUMING}
# Nothing is left of it, or soon will be.
ENDED = frozenset({_M.STOPPING, _M.BOOT_FAILED, _M.LOST, _M.DESTROYING, _M.DESTROYED})


@dataclass(slots=True, eq=False)
class Slot:
    """One allocation. Its attempts run one after the other; the first may be running."""

    slot_id: int
    machine: Machine
    shape: Shape
    gpu_ids: tuple[int, ...]
    bundle: Reservation | None = None  # of a placement group; None: the machine's own resources
    tasks: list[Task] = field(default_factory=list)
    work_s: float = 0.0  # expected duration of all its attempts
    is_closed: bool = False  # the agent gave an attempt back: the first one takes longer than expected
    version: int = 0  # of its entry in the heap of open slots

    @property
    def place(self) -> Machine | Reservation:
        """What it takes its resources from."""
        return self.machine if self.bundle is None else self.bundle


@dataclass(slots=True, eq=False)
class Machine:
    """One machine. Changed only by applying facts, but for `heard_s`."""

    machine_id: MachineId
    order: int
    shape: Shape
    provider: str
    requested_s: float
    resources: Resources
    pool: str = ""
    labels: Labels = ()
    is_single_use: bool = False
    has_served: bool = False  # an attempt was assigned
    joined_s: float = 0.0
    boot_due_s: float = 0.0
    state: MachineState = MachineState.REQUESTED
    generation: int = 0
    agent_instance_id: str = ""
    provider_machine_id: str = ""
    host_id: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    snapshot: int = 0  # number of the newest suspend
    sleep: Sleep | None = None  # set in SLEEPY states
    wake: tuple[str, int, float] | None = None  # of what its agent woke last: kind, snapshot, how long it had slept
    slots: dict[int, Slot] = field(default_factory=dict)
    lent: int = 0  # CPUs of blocked attempts, which come back for them: nothing that stays may take them
    reservations: dict[Reservation, None] = field(default_factory=dict)  # of placement groups
    awake: dict[TaskId, Task] = field(default_factory=dict)  # unblocked attempts that wait for CPUs, first come first
    sent_functions: set[FunctionId] = field(default_factory=set)
    sent_packages: set[str] = field(default_factory=set)
    emptying: set[ObjectId] = field(default_factory=set)  # what it was told to hand over before it ends; volatile
    version: int = 0  # of its entries in the placement heaps
    # When we last heard from it. Volatile: leases start anew with the coordinator, so it is in no journal.
    heard_s: float = 0.0
    lease_due_s: float = 0.0  # of its one valid timer; volatile too
    trail: list[str] = field(default_factory=lambda: ["requested"])

    @property
    def is_live(self) -> bool:
        """Whether an agent of the current generation may speak."""
        return self.state in LIVE and (self.sleep is None or self.sleep.stage in CONNECTED)

    def can_take(self, shape: Shape) -> bool:
        """Whether a new allocation may start here now; resuming attempts go first."""
        if self.is_single_use and self.has_served:
            return False
        return self.state is MachineState.READY and not self.awake and self.resources.fits(shape)

    def will_do(self, key: Key) -> bool:
        """Whether a task of this queue may start here now."""
        if not isinstance(key, Want):
            return self.can_take(key)
        return self.can_take(key.shape) and (not key.labels or matches(self.labels, key.labels))

    def load_for(self, key: Key) -> float:
        """How busy it is for tasks of this queue; the least wins."""
        if isinstance(key, Want) and key.spread:
            # Between machines with as many tasks: an actor without CPUs counts less than a task that has some.
            return len(self.slots) + self.resources.load(shape_of(key)) * _BUSY_LOAD
        # Actors hold no CPUs by default: between equals, the one with fewer of them.
        return self.resources.load(shape_of(key)) + len(self.slots) * _SLOT_LOAD

    def attempts(self) -> list[Task]:
        return [task for slot in self.slots.values() for task in slot.tasks]

    def move(self, to: MachineState, reason: str) -> None:
        """Change state.

        Raises:
            IllegalTransitionError: the table does not list the move; carries the machine's story.
        """
        if to not in TRANSITIONS[self.state]:
            raise IllegalTransitionError(f"machine {self.machine_id}: {self.state.label} -> {to.label}\n{self.story()}")
        self.state = to
        self.trail.append(f"{to.label} ({reason})" if reason else to.label)
        if reason:
            self.reason = reason

    def story(self) -> str:
        """What has happened to it, for people."""
        head = f"machine {self.machine_id} ({self.provider}) generation {self.generation}: " + " -> ".join(self.trail)
        return "\n".join([head, *(f"runs {task.task_id} attempt {task.attempt}" for task in self.attempts())])
