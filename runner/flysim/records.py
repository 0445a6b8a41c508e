"""What the cloud keeps: apps, machines, versions, leases, volumes, hosts; and what it tells the processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.flysim.states import TRANSITIONS, State


class IllegalMoveError(Exception):
    """A move that the table does not list: a bug of the simulator."""


@dataclass(slots=True, eq=False)
class Host:
    """One computer of a region. [1.4 host_status]"""

    name: str
    region: str
    room: int  # machines
    memory_mb: int
    status: str = "ok"  # or unknown, unreachable
    images: set[str] = field(default_factory=set)  # pulled before


@dataclass(slots=True, eq=False)
class App:
    """A name for machines. [1.2 apps]"""

    app_id: str
    name: str
    org: str
    network: str
    created_s: float
    secrets: dict[str, str] = field(default_factory=dict)  # values are base64
    secrets_version: int = 0
    ips: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Lease:
    """Who alone may change a machine until `expires_s`. [1.2 lease]"""

    nonce: str
    expires_s: float
    owner: str
    description: str
    version: str


@dataclass(slots=True)
class Version:
    """One configuration of a machine. [1.4 instance_id]"""

    instance_id: str
    config: dict[str, Any]
    created_s: float


@dataclass(slots=True, eq=False)
class Volume:
    """A disk, tied to one host. [1.2 volumes]"""

    volume_id: str
    app: str
    name: str
    region: str
    host: Host
    size_gb: int
    created_s: float
    machine_id: str = ""  # that mounts it


@dataclass(slots=True, eq=False)
class Machine:
    """One machine. `life` numbers its boots: word of an earlier process is old. [1.4 machine]"""

    machine_id: str
    app: str
    name: str
    region: str
    host: Host
    created_s: float
    visible_s: float  # from then on get, wait and list know it
    versions: list[Version]
    metadata: dict[str, str]
    updated_s: float = 0.0
    state: State = State.CREATING
    since_s: float = 0.0  # in this state
    destroyed_s: float = 0.0
    epoch: int = 0  # of its one valid timer
    life: int = 0
    is_alive: bool = False  # a process of this life runs, or is frozen
    has_snapshot: bool = False
    is_cordoned: bool = False
    will_launch: bool = True
    restarts_s: list[float] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)  # newest first
    lease: Lease | None = None
    trail: list[State] = field(default_factory=lambda: [State.CREATING])

    @property
    def config(self) -> dict[str, Any]:
        return self.versions[-1].config

    @property
    def instance_id(self) -> str:
        return self.versions[-1].instance_id

    @property
    def memory_mb(self) -> int:
        return int(self.config["guest"]["memory_mb"])

    def move(self, to: State, now_s: float) -> None:
        """Change state.

        Raises:
            IllegalMoveError: the table does not list the move.
        """
        if to not in TRANSITIONS[self.state]:
            story = " -> ".join(state.value for state in self.trail)
            raise IllegalMoveError(f"machine {self.machine_id}: {self.state.value} -> {to.value}; so far: {story}")
        self.state = to
        self.since_s = self.updated_s = now_s
        self.epoch += 1
        self.trail.append(to)


# ---- what the processes are told; each names the life that it means ----
@dataclass(frozen=True, slots=True)
class Boot:
    """Start the program of this machine."""

    machine_id: str
    life: int
    config: Mapping[str, Any]
    env: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Signal:
    """Signal the main process."""

    machine_id: str
    life: int
    number: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End every process of the machine at once."""

    machine_id: str
    life: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """Stop every process of the machine where it is."""

    machine_id: str
    life: int


@dataclass(frozen=True, slots=True)
class Thaw:
    """Let frozen processes go on."""

    machine_id: str
    life: int


Command = Boot | Signal | Kill | Freeze | Thaw
