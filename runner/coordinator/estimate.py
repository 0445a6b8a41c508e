"""What a fleet will cost, before anything is booted. Pure and light: client and CLI import it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.core.values import CPU, MEMORY, UNIT, make_shape
from runner.errors import BadOptionsError
from runner.pools import Pool
from runner.providers.prices import Price, PriceTable, Wanting, load_prices

# So much of what runs is set aside when a bound on cost is looked at: time in which machines finish what they do.
RESERVE_S = 300.0


@dataclass(frozen=True, slots=True)
class PoolPrice:
    """One pool, and what a machine of it costs; `price` is None where that is not known."""

    pool: Pool
    price: Price | None


@dataclass(frozen=True, slots=True)
class PoolPrices:
    """The prices of one provider's pools, by its options."""

    table: PriceTable
    provider: str
    options: Mapping[str, Any]

    def of(self, pool: Pool, size: str = "", region: str = "") -> Price | None:
        """What one machine of `pool` costs; `size` and `region` where the provider has said which it is."""
        cpus = 1.0 if pool.num_cpus is None else pool.num_cpus
        shape = make_shape({CPU: round(cpus * UNIT), MEMORY: pool.memory_bytes})
        sizes = tuple(each for each in (size or pool.size,) if each) or self._texts("sizes")
        wanted = Wanting(shape, sizes, str(self.options.get("cpu_kind", "")))
        return self.table.find(self.provider, wanted, region or self._region())

    def _region(self) -> str:
        """Where machines are booted by choice, the first of `iad,us`; empty: the provider decides."""
        return next(iter(self._texts("regions")), "").partition(",")[0]

    def _texts(self, name: str) -> tuple[str, ...]:
        value = self.options.get(name) or ()
        return (value,) if isinstance(value, str) else tuple(map(str, value))


def price_pools(
    provider: str, pools: Sequence[Pool], provider_options: Mapping[str, Any], prices_file: Path | None = None
) -> tuple[PoolPrice, ...]:
    """Each pool with its price.

    Raises:
        BadOptionsError: `prices_file` cannot be read, or holds something else.
    """
    prices = PoolPrices(load_prices(prices_file), provider, provider_options)
    return tuple(PoolPrice(pool, prices.of(pool)) for pool in pools)


def estimate_lines(priced: Sequence[PoolPrice]) -> list[str]:
    """For people: a line for each pool that costs something or whose price is not known, and the sum of several."""
    told = [each for each in priced if each.price is None or each.price.running > 0]
    lines = [_line(each) for each in told]
    known = [each for each in told if each.price is not None]
    if len(known) > 1:
        most = sum(each.pool.most * each.price.running for each in known if each.price is not None)
        lines.append(f"together at most about {dollars(most)} per hour" + (", and what is not known" * (known != told)))
    return lines


def _line(each: PoolPrice) -> str:
    pool, price = each.pool, each.price
    least, most = min(pool.min, pool.first), pool.most
    count = str(most) if least == most else f"{least} to {most}"
    if price is None:
        what = f"of size {pool.size!r}" if pool.size else f"of pool {pool.name}"
        return (
            f"{count} x a machine {what}: its price is not known; a file named by RUNNER_PRICES can give it,"
            " see docs/cost.md"
        )
    where = f" in {price.region}" if price.region else f" (as in {price.home})" if price.home else ""
    about = "about" if least == most else "at most about"
    dated = f"; prices of {price.as_of}" if price.as_of else f"; prices of {price.source}"
    return f"{count} x {price.size or 'a machine'}{where}: {about} {dollars(most * price.running)} per hour{dated}"


def check_max_cost(priced: Sequence[PoolPrice], max_cost: float | None) -> None:
    """Refuse a bound on cost that could not be kept.

    Raises:
        BadOptionsError: a price is not known, or what is to be booted at once would pass the bound within minutes.
    """
    if max_cost is None:
        return
    first = 0.0
    for each in priced:
        if each.price is None:
            raise BadOptionsError(
                f"max_cost={max_cost:g} cannot be kept: the price of a machine of pool {each.pool.name!r}"
                f" (size {each.pool.size or 'by its CPUs and memory'}) is not known. Give it in a file named by"
                " RUNNER_PRICES (docs/cost.md), or leave max_cost out."
            )
        first += each.pool.first * each.price.running
    reserve = first * RESERVE_S / 3600
    if reserve >= max_cost:
        raise BadOptionsError(
            f"max_cost={max_cost:g} is less than what the machines that are booted at first cost in"
            f" {RESERVE_S / 60:.0f} minutes ({dollars(reserve)}). Ask for fewer machines, or allow for more."
        )


def total_text(spent: float, unpriced_machines: int) -> str:
    """What it came to in the end."""
    known = f"the machines have cost {dollars(spent)}"
    if not unpriced_machines:
        return known
    return f"{known}, without {unpriced_machines} machine{'s' * (unpriced_machines > 1)} whose price is not known"


def dollars(amount: float) -> str:
    """`$5.95`; of small amounts two digits: `$0.0031`."""
    if amount == 0 or amount >= 0.1:
        return f"${amount:,.2f}"
    digits = 2
    while round(amount, digits) < 10 ** (1 - digits) and digits < 8:
        digits += 1
    return f"${amount:.{digits}f}"
