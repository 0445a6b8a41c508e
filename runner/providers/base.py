"""What every provider of machines promises, and the records that pass between it and the coordinator."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol

from runner.core.values import CPU, GPU, MEMORY, UNIT, Shape, make_shape
from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId

# How a provider suspends. "snapshot": memory is saved, and neither memory nor CPUs are held. "freeze": it stands still, its
# memory stays where it is and only its CPUs are free; what follows is no resume and is not counted as one. "": not at all.
SuspendKind = Literal["snapshot", "freeze", ""]

# (machine name, why it ended): called in the event loop, once per machine and life.
ExitCallback = Callable[[MachineId, str], None]


@dataclass(frozen=True, slots=True)
class BootConfig:
    """All that an agent needs to join its cluster. Made by the coordinator, passed to the machine as it is.

    `gpus` are the tokens for CUDA_VISIBLE_DEVICES (an index or a UUID) of the devices that belong to this machine; GPU `i` of the
    machine, as in the core's `gpu_ids`, is `gpus[i]`. Amounts in `resources` are whole things, not units.
    """

    coordinator_address: str  # host:port with server TLS, where Join is served
    ca_pem: bytes
    join_token: str = field(repr=False)
    machine_id: MachineId
    cluster_id: ClusterId
    cpus: float = 1.0
    gpus: tuple[str, ...] = ()
    memory_bytes: int = 0  # 0: not counted
    resources: Mapping[str, float] = field(default_factory=dict)
    preload: tuple[str, ...] = ()  # modules that the template imports at boot
    embedded: bool = False  # the machine ends with its life pipe, not with its lease
    heartbeat_s: float = 5.0
    lost_after_s: float = 60.0
    destroy_after_s: float = 120.0
    requested_unix_s: float = 0.0  # boot phases are counted from here
    log_path: str = ""  # stdout and stderr of the agent go here; empty: inherited
    provider_machine_id: str = ""  # where it is known before the boot
    labels: Mapping[str, str] = field(default_factory=dict)  # beside those of its pool
    pull_host: str = (
        "auto"  # where it serves its values to other machines; auto: where it sees its coordinator; empty: nowhere
    )
    owns_clock: bool = False  # a VM: its agent may set the wall clock, which stands still while it is suspended
    cuda_checkpoint: bool = (
        False  # CUDA memory of executors is moved with NVIDIA's program around a suspend, where that is
    )
    host_id: str = ""  # the host that it counts as being on; the coordinator's: it sees store and artefacts at the same paths. Empty: its own

    def shape(self) -> Shape:
        """The machine's total in the core's units."""
        amounts = {name: round(amount * UNIT) for name, amount in self.resources.items()}
        amounts |= {CPU: round(self.cpus * UNIT), GPU: len(self.gpus) * UNIT, MEMORY: self.memory_bytes}
        return make_shape(amounts)

    def to_dict(self) -> dict[str, Any]:
        """A map that msgpack can pack."""
        packed = asdict(self)
        packed["resources"], packed["labels"] = dict(self.resources), dict(self.labels)
        return packed

    @classmethod
    def from_dict(cls, packed: Mapping[str, Any]) -> BootConfig:
        """The inverse of `to_dict`. Unknown keys are ignored, so that an older image boots under a newer coordinator."""
        known = {f.name for f in fields(cls)}
        kept = {name: value for name, value in packed.items() if name in known}
        for name in ("gpus", "preload"):
            kept[name] = tuple(kept.get(name, ()))
        return cls(**kept)


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """One machine to create. `machine_id` is its name at the provider and the idempotency key."""

    cluster_id: ClusterId
    machine_id: MachineId
    shape: Shape
    boot: BootConfig
    pool: str = "default"
    size: str = ""  # the provider's name for such a machine; empty: the smallest that holds `shape`


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a coordinator is going to ask for: `count` machines at once, and `most` in all."""

    pool: str
    shape: Shape
    size: str
    count: int
    most: int


class MachineState(enum.Enum):
    """What the provider knows; whether the agent works is the coordinator's business (ready means registered)."""

    CREATING = "creating"
    RUNNING = "running"
    SUSPENDED = "suspended"
    STOPPED = "stopped"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class ProviderMachine:
    """A machine as its provider sees it."""

    name: MachineId
    provider_machine_id: str  # unique over all time: a reused pid or name is another machine
    state: MachineState
    created_unix_s: float
    detail: str = ""  # the provider's last event in words
    phases: Mapping[str, float] = field(
        default_factory=dict, compare=False
    )  # unix seconds: "image pulled", "started", ...
    region: str = ""
    size: str = ""  # what it was booted as, where the provider names that


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, so that a request which cannot work fails when it is made."""

    gpu_kinds: tuple[str, ...] = ()
    gpus_total: int | None = 0  # None: not known or without limit
    suspend_kind: SuspendKind = ""
    suspend_reason: str = ""  # why not at all, or why in no better way; with a snapshot: what makes it
    regions: tuple[str, ...] = ()
    is_remote: bool = False  # machines are no processes of this computer's user: they outlive the coordinator

    @property
    def suspend(self) -> bool:
        """Whether it can suspend machines, in whatever way."""
        return bool(self.suspend_kind)


class Provider(Protocol):
    """Boots and destroys machines. All methods may be called concurrently from one event loop; none blocks it.

    Failures are `ProviderError` with `phase`, `machine_id` and `log_lines` set. A cancelled call leaves a machine that
    `get` finds or none; the caller then destroys by name.
    """

    @property
    def name(self) -> str:
        """What `init(provider=...)` calls it."""

    def capabilities(self) -> Capabilities:
        """What it can do; cheap after the first call."""

    async def prepare(self, wanted: Sequence[Wanted]) -> tuple[str, ...]:
        """Before the first create: refuse what can never work, and make what machines share. Quick: no image is pulled.

        Returns warnings for people, such as fewer places than machines. Called again after a restart.

        Raises:
            ProviderError: a permanent one: no such image, app, region or size; a token that is refused; GPUs where there
                are none (it names the providers that have them). Or a passing one: the provider does not answer.
        """

    def suspend_obstacle(self, wanted: Wanted) -> str:
        """Why machines like these can never be suspended; empty when they can. Asks nobody: policies are refused by it when set."""

    def on_exit(self, callback: ExitCallback) -> None:
        """Have machines that end reported: once each, with the reason. Those ended by `destroy` or `stop`, or suspended, are not."""

    async def create(self, spec: MachineSpec) -> ProviderMachine:
        """Create the machine and let it boot; returns before the agent has registered.

        Idempotent by name: while a machine of that name and cluster exists it is adopted and returned unchanged.

        Raises:
            ProviderError: nothing was created, or what was created is destroyed again. `is_permanent` where asking
                again is in vain; `is_capacity` where the provider has no room now.
        """

    async def start(self, name: MachineId) -> None:
        """Resume a suspended machine, or start a stopped one cold. No-op while it runs; while it is being suspended it runs on.

        A resume takes the snapshot: there is no second one from it. Where the snapshot is lost this may be a cold start, and
        nothing here tells: the machine's registration does.

        Raises:
            ProviderError: there is no such machine, or it does not come up. What is left of it is `stop`'s or `destroy`'s.
        """

    async def suspend(self, name: MachineId) -> None:
        """Have it stand still: how, and whether its memory is saved, is `capabilities().suspend_kind`. No-op for a suspended one.

        Returns when it is done. Its network connections should be closed by then: they do not survive.

        Raises:
            ProviderError: it cannot be suspended, or was not. The machine then goes on, unless `get` says something else.
        """

    async def stop(self, name: MachineId) -> None:
        """End it but keep its disk, discarding a snapshot; where a machine has no disk this is `destroy`."""

    async def destroy(self, name: MachineId) -> None:
        """End it and everything in it. Idempotent: also succeeds for a machine that is gone or never was.

        When it returns, no process of the machine is left.
        """

    async def get(self, name: MachineId) -> ProviderMachine | None:
        """The machine, or None when none of this name exists (any more)."""

    async def list(self, cluster_id: ClusterId) -> tuple[ProviderMachine, ...]:
        """All machines that carry this cluster's tag, also those made by an earlier coordinator that is gone."""

    async def logs(self, name: MachineId) -> tuple[str, ...]:
        """The last lines about the machine: the provider's events and what it wrote itself (boot and agent, not tasks).

        Kept after it is destroyed.
        """

    async def close(self) -> None:
        """Free what the provider itself holds. Idempotent. Machines are not destroyed, unless they cannot outlive it."""


def provider_error(
    phase: str,
    spec_or_name: MachineSpec | MachineId | str,
    saw: str,
    *,
    advice: str = "",
    log_lines: tuple[str, ...] = (),
    is_permanent: bool = False,
    is_capacity: bool = False,
) -> ProviderError:
    """A ProviderError in the usual order: what failed, which one, what was seen, what to do next."""
    name = spec_or_name.machine_id if isinstance(spec_or_name, MachineSpec) else spec_or_name
    message = f"{phase} of machine {name} failed: {saw}"
    if advice:
        message += f"; {advice}"
    error = ProviderError(message, phase=phase, machine_id=str(name), log_lines=log_lines)
    error.is_permanent = is_permanent
    error.is_capacity = is_capacity
    return error
