"""Pools: machines of one kind, and between which numbers a coordinator keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from runner.errors import BadOptionsError
from runner.options import parse_amount, parse_memory, parse_resources
from runner.placing import parse_labels

DEFAULT_POOL = "default"
IDLE_SHUTDOWN_S = 30.0
IDLE = ("shutdown", "suspend")  # what becomes of a machine without work
ACCELERATOR = "accelerator_type:"
# Labels that machines have without being given any.
POOL_LABEL, REGION_LABEL, ACCELERATOR_LABEL = "runner.io/pool", "runner.io/region", "runner.io/accelerator-type"


@dataclass(frozen=True, slots=True)
class Pool:
    """Machines of one kind.

    At least `min` and at most `max` exist; in between as many as queued work can use, and `buffer` idle ones more while
    there is work. One that has had nothing to do for `idle_shutdown_s` seconds goes, down to `min`; with
    `idle="suspend"` it sleeps instead, and wakes when there is work for it.

    Raises:
        BadOptionsError: a value cannot work.
    """

    name: str = DEFAULT_POOL
    min: int = 0
    max: int | None = None  # None: as many as `min` or `start` say, at least one
    start: int | None = None  # booted at the start; None: `min`
    buffer: int = 0
    idle_shutdown_s: float = IDLE_SHUTDOWN_S
    single_use: bool = False  # a machine serves one task and goes
    idle: str = "shutdown"  # or "suspend": see docs/suspend.md
    max_suspended_s: float | None = None  # one that has slept for so long is destroyed, down to `min`; None: no limit
    # ---- one machine ----
    num_cpus: float | None = None  # None: what the provider gives (local: this computer's, shared among `max`)
    num_gpus: int | None = None  # None: local: an even part of this computer's; elsewhere none
    memory: int | str | None = (
        None  # bytes or "8GiB"; None: local: a share of 70 % of this computer's; else not counted
    )
    resources: Mapping[str, float] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)  # for `label_selector`
    accelerator_type: str | None = (
        None  # the kind of its GPUs, as "H100"; None: what this computer has, elsewhere not told
    )
    size: str = ""  # the provider's name for such a machine, as "performance-4x"; empty: chosen by CPUs and memory

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise BadOptionsError(f"a pool is named {self.name!r}; expected letters, digits, - and _")
        for what in ("min", "max", "start", "buffer", "num_gpus"):
            self._check_count(what)
        if not self.idle_shutdown_s >= 0:
            raise BadOptionsError(
                f"pool {self.name}: idle_shutdown_s is {self.idle_shutdown_s!r}; expected seconds >= 0"
            )
        self._check_idle()
        if not self.min <= self.first <= self.most:
            raise BadOptionsError(
                f"pool {self.name}: min={self.min}, start={self.first}, max={self.most} cannot work; "
                f"expected min <= start <= max"
            )
        if self.num_cpus is not None:
            parse_amount(f"num_cpus of pool {self.name}", self.num_cpus)
        parse_memory(f"memory of pool {self.name}", self.memory)
        parse_resources(f"resources of pool {self.name}", self.resources)
        parse_labels(f"labels of pool {self.name}", self.labels)
        kind: object = self.accelerator_type
        if kind is not None and (not isinstance(kind, str) or not kind):
            raise BadOptionsError(f"pool {self.name}: accelerator_type is {kind!r}; expected a name, such as 'H100'")

    def _check_count(self, what: str) -> None:
        value = getattr(self, what)
        optional = what not in {"min", "buffer"}
        if value is None and optional:
            return
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise BadOptionsError(f"pool {self.name}: {what} is {value!r}; expected a whole number >= 0")

    def _check_idle(self) -> None:
        if self.idle not in IDLE:
            raise BadOptionsError(f"pool {self.name}: idle is {self.idle!r}; expected one of {', '.join(IDLE)}")
        if self.idle == "suspend" and self.single_use:
            raise BadOptionsError(
                f"pool {self.name}: idle='suspend' and single_use=True contradict each other: a machine that goes after its"
                " first task has nothing to wake for; leave one of them out"
            )
        limit_s: object = self.max_suspended_s
        if limit_s is None:
            return
        if not isinstance(limit_s, int | float) or isinstance(limit_s, bool) or not limit_s > 0:
            raise BadOptionsError(
                f"pool {self.name}: max_suspended_s is {limit_s!r}; expected seconds > 0, or None for no limit"
            )

    @property
    def first(self) -> int:
        """How many are booted at the start."""
        return self.min if self.start is None else self.start

    @property
    def most(self) -> int:
        """How many there may be."""
        return max(self.first, 1) if self.max is None else self.max

    @property
    def memory_bytes(self) -> int:
        """Per machine; 0: not counted."""
        return parse_memory("memory", self.memory) or 0

    @property
    def all_resources(self) -> dict[str, float]:
        """The custom ones, and the one that says what its GPUs are."""
        kind = {} if self.accelerator_type is None else {f"{ACCELERATOR}{self.accelerator_type}": 1.0}
        return {**self.resources, **kind}

    @property
    def all_labels(self) -> dict[str, str]:
        """Its own, and those that every pool gives to its machines."""
        kind = {} if self.accelerator_type is None else {ACCELERATOR_LABEL: self.accelerator_type}
        return {**self.labels, POOL_LABEL: self.name, **kind}

    def with_machine(
        self, *, num_cpus: float, num_gpus: int, memory: int | None = None, accelerator_type: str | None = None
    ) -> Pool:
        """The same pool where what was left open is said."""
        has_gpus = bool(num_gpus if self.num_gpus is None else self.num_gpus)
        return replace(
            self,
            accelerator_type=self.accelerator_type or (accelerator_type if has_gpus else None),
            num_cpus=num_cpus if self.num_cpus is None else self.num_cpus,
            num_gpus=num_gpus if self.num_gpus is None else self.num_gpus,
            memory=memory if self.memory is None else self.memory,
        )

    def to_dict(self) -> dict[str, Any]:
        """A map that msgpack and JSON can hold."""
        packed = {each.name: getattr(self, each.name) for each in fields(self)}
        packed["resources"], packed["labels"] = dict(self.resources), dict(self.labels)
        return packed

    @classmethod
    def from_dict(cls, packed: Mapping[str, Any]) -> Pool:
        """The inverse of `to_dict`.

        Raises:
            BadOptionsError: an unknown key or a value that cannot work.
        """
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(packed) - known):
            raise BadOptionsError(
                f"pool settings {', '.join(unknown)} are unknown; known are {', '.join(sorted(known))}"
            )
        return cls(**packed)


def fixed_pool(machines: object, **of_each: Any) -> Pool:
    """What `machines=N` means: N machines, replaced when they are lost."""
    if not isinstance(machines, int) or isinstance(machines, bool) or machines < 0:
        raise BadOptionsError(
            f"machines={machines!r} cannot work: expected a whole number >= 0, a Pool, or several Pools"
        )
    return Pool(min=machines, max=machines, **of_each)


def check_pools(pools: tuple[Pool, ...]) -> tuple[Pool, ...]:
    """The pools of one cluster.

    Raises:
        BadOptionsError: none, or two of one name.
    """
    if not pools:
        raise BadOptionsError("there is no pool; a cluster has at least one")
    names = [pool.name for pool in pools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadOptionsError(f"more than one pool is named {', '.join(twice)}; give each Pool(name=...) its own")
    return pools
