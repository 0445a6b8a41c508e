"""What a machine costs by the hour: the table that comes with the package, and the user's own over it."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from runner.core.values import CPU, MEMORY, UNIT, Shape
from runner.errors import BadOptionsError

GB = 1 << 30  # providers sell memory in units of 1024**3 bytes and call them GB
_NUMBERS = ("hour", "stopped_hour", "suspended_hour", "memory_gb_hour", "cpus", "memory_gb", "memory_gb_max")
_PROVIDER_KEYS = frozenset(
    {
        "as_of",
        "source",
        "is_free",
        "region",
        "kind",
        "memory_gb_hour",
        "stopped_hour",
        "suspended_hour",
        "sizes",
        "regions",
    }
)
_SIZE_KEYS = frozenset({"hour", "stopped_hour", "suspended_hour", "cpus", "memory_gb", "memory_gb_max"})


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars an hour of one machine. Billed by the second, in each of these states."""

    running: float
    stopped: float
    suspended: float
    as_of: str  # the day on which somebody read it, as "2026-10-09"
    source: str
    size: str = ""
    region: str = ""  # empty: not known yet; it is the price of `home`
    home: str = ""


@dataclass(frozen=True, slots=True)
class Wanting:
    """What is asked of a machine. Memory of `shape` above what a size includes costs extra."""

    shape: Shape
    sizes: tuple[str, ...] = ()  # the first that holds `shape`; empty: the cheapest that does
    kind: str = ""  # how the names of sizes begin that are taken then; empty: as the table says


class PriceTable:
    """All prices that are known. Immutable."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._table = table

    def find(self, provider: str, wanted: Wanting, region: str = "") -> Price | None:
        """The price of one machine; None when it is not known. Without a `region` it is that of the table's own."""
        of_provider = self._table.get(provider)
        if of_provider is None:
            return None
        as_of, source = str(of_provider.get("as_of", "")), str(of_provider.get("source", ""))
        if of_provider.get("is_free"):
            return Price(0.0, 0.0, 0.0, as_of, source, region=region)
        home = of_provider.get("region", "")
        factor = 1.0 if region in {"", home} else of_provider.get("regions", {}).get(region)
        sizes = of_provider.get("sizes", {})
        kind = wanted.kind or of_provider.get("kind", "")
        candidates = wanted.sizes or [name for name in sizes if name.startswith(kind)]
        offers = [(_hour(of_provider, sizes.get(name, {}), wanted.shape), name) for name in candidates]
        known = [(hour, name) for hour, name in offers if hour is not None]
        if factor is None or not known:
            return None
        hour, name = known[0] if wanted.sizes else min(known)
        stopped, suspended = (
            sizes[name].get(key, of_provider.get(key, hour)) for key in ("stopped_hour", "suspended_hour")
        )
        # Storage costs the same everywhere; only what runs has a regional price.
        return Price(hour * factor, stopped, suspended, as_of, source, name, region, home)


def _hour(of_provider: Mapping[str, Any], size: Mapping[str, Any], shape: Shape) -> float | None:
    """Dollars an hour in the table's own region; None when unknown or when `shape` does not fit."""
    if "hour" not in size:
        return None
    amounts = dict(shape)
    if amounts.get(CPU, 0) > size.get("cpus", float("inf")) * UNIT:
        return None
    memory_gb = amounts.get(MEMORY, 0) / GB
    extra_gb = memory_gb - size.get("memory_gb", memory_gb)
    if extra_gb <= 0:
        return float(size["hour"])
    if "memory_gb_hour" not in of_provider or memory_gb > size.get("memory_gb_max", float("inf")):
        return None
    hour: float = size["hour"] + extra_gb * of_provider["memory_gb_hour"]
    return hour


@functools.cache
def load_prices(prices_file: Path | None = None) -> PriceTable:
    """The prices that come with the package, with those of the user's file (RUNNER_PRICES) over them.

    Raises:
        BadOptionsError: the file cannot be read, or holds something else than prices.
    """
    own = tomllib.loads(resources.files("runner.providers").joinpath("prices.toml").read_text(encoding="utf-8"))
    if prices_file is None:
        return PriceTable(own)
    try:
        theirs = tomllib.loads(prices_file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadOptionsError(f"RUNNER_PRICES names {prices_file}, which cannot be read as prices: {error}") from None
    for provider, of_provider in theirs.items():
        _check(str(prices_file), provider, of_provider)
        # Prices of the user's are not of the day and the page of ours.
        of_provider.setdefault("as_of", "")
        of_provider.setdefault("source", str(prices_file))
    return PriceTable(_laid_over(own, theirs))


def _check(path: str, provider: str, of_provider: Any) -> None:
    where = f"RUNNER_PRICES ({path}): [{provider}]"
    _check_map(where, of_provider, _PROVIDER_KEYS)
    for name, size in of_provider.get("sizes", {}).items():
        _check_map(f"{where} sizes.{name}", size, _SIZE_KEYS)
    for region, factor in of_provider.get("regions", {}).items():
        _check_number(f"{where} regions", region, factor)


def _check_map(where: str, values: Any, known: frozenset[str]) -> None:
    if not isinstance(values, dict):
        raise BadOptionsError(f"{where} is {values!r}; expected a table with {', '.join(sorted(known))}")
    for key, value in values.items():
        if key not in known:
            raise BadOptionsError(f"{where} has {key!r}, which is unknown; known are {', '.join(sorted(known))}")
        if key in _NUMBERS:
            _check_number(where, key, value)
        if key in {"sizes", "regions"} and not isinstance(value, dict):
            raise BadOptionsError(f"{where} {key} is {value!r}; expected a table")
        if key == "is_free" and not isinstance(value, bool):
            raise BadOptionsError(f"{where} {key} is {value!r}; expected true or false")


def _check_number(where: str, key: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise BadOptionsError(f"{where} {key} is {value!r}; expected a number >= 0")


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both_maps = isinstance(value, Mapping) and isinstance(below.get(key), Mapping)
        merged[key] = _laid_over(below[key], value) if both_maps else value
    return merged
