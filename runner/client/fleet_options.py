"""What a cluster of this process's own is made of: checked here, before anything is started."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from runner.coordinator.config import PROVIDERS, check_provider
from runner.errors import BadOptionsError
from runner.options import parse_amount, parse_memory, parse_resources
from runner.placing import parse_labels
from runner.pools import Pool, check_pools, fixed_pool

_OF_POOL = ("num_cpus", "num_gpus", "memory", "resources", "labels", "idle")


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """See `runner.init`."""

    provider: str = "local"
    machines: int | Pool | Sequence[Pool] = 1
    num_cpus: float | None = None
    num_gpus: int | None = None
    memory: int | str | None = None
    resources: Mapping[str, float] | None = None
    labels: Mapping[str, str] | None = None
    idle: str | None = None
    preload: tuple[str, ...] = ()
    provider_options: Mapping[str, Any] | None = field(default=None, repr=False)
    image: str | None = None
    region: str | Sequence[str] | None = None
    max_cost: float | None = None
    strict: bool = False
    object_store_memory: int | str | None = None

    @property
    def is_default(self) -> bool:
        return self == FleetOptions()

    def to_config(self) -> dict[str, Any]:
        """Fields of a CoordinatorConfig.

        Raises:
            BadOptionsError: a value cannot work.
        """
        if self.provider not in PROVIDERS:
            raise BadOptionsError(f"provider={self.provider!r} is unknown; known is: {', '.join(PROVIDERS)}.")
        options = provider_options(self.provider_options, self.image, self.region)
        if self.provider != "local" or options:  # it has none, and is not loaded in vain
            check_provider(self.provider, options)
        strict: object = self.strict
        if not isinstance(strict, bool):
            raise BadOptionsError(f"strict={self.strict!r} cannot work: expected True or False.")
        return {
            "provider": self.provider,
            "provider_options": options,
            "pools": self._pools(),
            "max_cost": parse_max_cost(self.max_cost),
            "strict": strict,
            "preload": self.preload,
            "store_bytes": parse_memory("object_store_memory", self.object_store_memory),
        }

    def _pools(self) -> tuple[Pool, ...]:
        machines: object = self.machines
        if isinstance(machines, Pool):
            machines = (machines,)
        if isinstance(machines, Sequence) and not isinstance(machines, str | bytes):
            return self._checked(tuple(machines))
        if not _is_whole(machines) or machines < 1:
            raise BadOptionsError(
                f"machines={machines!r} cannot work: expected a whole number >= 1, a Pool, or several Pools."
                " With Pool(min=0, max=...) machines come with the work."
            )
        if self.num_gpus is not None and (not _is_whole(self.num_gpus) or self.num_gpus < 0):
            raise BadOptionsError(f"num_gpus={self.num_gpus!r} cannot work: expected a whole number >= 0 per machine.")
        pool = fixed_pool(
            machines,
            num_cpus=None if self.num_cpus is None else parse_amount("num_cpus", self.num_cpus),
            num_gpus=self.num_gpus,
            memory=parse_memory("memory", self.memory),
            resources=parse_resources("resources", self.resources),
            labels=parse_labels("labels", self.labels),
            idle="shutdown" if self.idle is None else self.idle,
        )
        return (pool,)

    def _checked(self, pools: tuple[Any, ...]) -> tuple[Pool, ...]:
        others = [each for each in pools if not isinstance(each, Pool)]
        if others:
            raise BadOptionsError(f"machines has {others[0]!r} in it; expected a Pool, several Pools, or a number.")
        said = [name for name in _OF_POOL if getattr(self, name) is not None]
        if said:
            raise BadOptionsError(
                f"{', '.join(said)}: what a machine has is said in its pool, as in"
                f" init(machines=Pool({said[0]}={getattr(self, said[0])!r}, ...))."
            )
        return check_pools(pools)


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def provider_options(given: object, image: object, region: object) -> dict[str, Any]:
    """One map of a provider's options, in which `image` and `region` (one name or several) have their place.

    Raises:
        BadOptionsError: no such map, or something is said twice.
    """
    if given is None:
        given = {}
    if not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given):
        raise BadOptionsError(f"provider_options is a {type(given).__name__}; expected a dict of names and values.")
    options = dict(given)
    if image is not None and (not isinstance(image, str) or not image):
        raise BadOptionsError(f"image={image!r} cannot work: expected the name of an image.")
    regions = [region] if isinstance(region, str) else region
    if regions is not None and not (isinstance(regions, Sequence) and regions and all(map(_is_name, regions))):
        raise BadOptionsError(f'region={region!r} cannot work: expected a name, such as "iad", or several.')
    for name, value in (("image", image), ("regions", None if regions is None else list(regions))):
        if value is None:
            continue
        if name in options:
            raise BadOptionsError(f"provider_options has {name!r}, and {name.removesuffix('s')}= says it again.")
        options[name] = value
    return options


def estimate(config: Mapping[str, Any], prices_file: Path | None) -> list[str]:
    """What the fleet of a CoordinatorConfig's fields will cost, for people; empty when it is free.

    Raises:
        BadOptionsError: `max_cost` could not be kept, or the file of prices is wrong.
    """
    if config["provider"] == "local" and prices_file is None:
        return []  # and the table is not loaded in vain
    from runner.coordinator.estimate import check_max_cost, estimate_lines, price_pools

    priced = price_pools(config["provider"], config["pools"], config["provider_options"], prices_file)
    check_max_cost(priced, config["max_cost"])
    return estimate_lines(priced)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def parse_max_cost(value: Any) -> float | None:
    """US dollars; None: no bound."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise BadOptionsError(f"max_cost={value!r} cannot work: expected US dollars, more than 0, or None.")
    return float(value)
