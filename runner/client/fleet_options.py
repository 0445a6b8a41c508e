"""What a cluster of this process's own is made of: checked here, before anything is started."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runner.coordinator.config import PROVIDERS, check_provider
from runner.errors import BadOptionsError
from runner.options import parse_amount, parse_memory, parse_resources
from runner.pools import Pool, check_pools, fixed_pool

_OF_POOL = ("num_cpus", "num_gpus", "memory", "resources")


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """See `runner.init`."""

    provider: str = "local"
    machines: int | Pool | Sequence[Pool] = 1
    num_cpus: float | None = None
    num_gpus: int | None = None
    memory: int | str | None = None
    resources: Mapping[str, float] | None = None
    preload: tuple[str, ...] = ()
    provider_options: Mapping[str, Any] | None = field(default=None, repr=False)
    image: str | None = None
    region: str | Sequence[str] | None = None
    max_cost: float | None = None
    strict: bool = False

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
        if not isinstance(self.strict, bool):
            raise BadOptionsError(f"strict={self.strict!r} cannot work: expected True or False.")
        return {
            "provider": self.provider,
            "provider_options": options,
            "pools": self._pools(),
            "max_cost": parse_max_cost(self.max_cost),
            "strict": self.strict,
            "preload": self.preload,
        }

    def _pools(self) -> tuple[Pool, ...]:
        machines = self.machines
        if isinstance(machines, Pool):
            machines = (machines,)
        if isinstance(machines, Sequence) and not isinstance(machines, str | bytes):
            return self._checked(tuple(machines))
        if not isinstance(machines, int) or isinstance(machines, bool) or machines < 1:
            raise BadOptionsError(
                f"machines={machines!r} cannot work: expected a whole number >= 1, a Pool, or several Pools."
                " With Pool(min=0, max=...) machines come with the work."
            )
        if self.num_gpus is not None and (
            not isinstance(self.num_gpus, int) or isinstance(self.num_gpus, bool) or self.num_gpus < 0
        ):
            raise BadOptionsError(f"num_gpus={self.num_gpus!r} cannot work: expected a whole number >= 0 per machine.")
        pool = fixed_pool(
            machines,
            num_cpus=None if self.num_cpus is None else parse_amount("num_cpus", self.num_cpus),
            num_gpus=self.num_gpus,
            memory=parse_memory("memory", self.memory),
            resources=parse_resources("resources", self.resources),
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


def provider_options(
    given: Mapping[str, Any] | None, image: str | None, region: str | Sequence[str] | None
) -> dict[str, Any]:
    """One map of a provider's options, in which `image` and `region` have their place.

    Raises:
        BadOptionsError: no such map, or something is said twice.
    """
    if given is not None and (not isinstance(given, Mapping) or not all(isinstance(key, str) for key in given)):
        raise BadOptionsError(f"provider_options={given!r} cannot work: expected a dict of names and values.")
    options = dict(given or {})
    regions = [region] if isinstance(region, str) else region
    if regions is not None and (not regions or not all(isinstance(each, str) and each for each in regions)):
        raise BadOptionsError(f'region={region!r} cannot work: expected a name, such as "iad", or several.')
    if image is not None and (not isinstance(image, str) or not image):
        raise BadOptionsError(f"image={image!r} cannot work: expected the name of an image.")
    for name, value in (("image", image), ("regions", None if regions is None else list(regions))):
        if value is None:
            continue
        if name in options:
            raise BadOptionsError(f"provider_options has {name!r}, and {name.removesuffix('s')}= says it again.")
        options[name] = value
    return options


def parse_max_cost(value: Any) -> float | None:
    """US dollars; None: no bound."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value) or value <= 0:
        raise BadOptionsError(f"max_cost={value!r} cannot work: expected US dollars, more than 0, or None.")
    return float(value)
