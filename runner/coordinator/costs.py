"""What machines have cost until now: a ledger of who ran when at which price. Time comes as an argument."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.coordinator.estimate import RESERVE_S
from runner.providers.prices import Price

log = logging.getLogger(__name__)

COSTS_NAME = "costs.json"  # in the cluster's state directory
# Of machines that are gone, this many are remembered one by one.
_GONE_MAX = 1_000

_FREE, _RUNNING, _STOPPED, _SUSPENDED = "", "running", "stopped", "suspended"
# What a provider charges for in each of the core's states of a machine. Before it is created nothing; then all,
# whether it works or not, until it is known to be gone.
_CHARGED = {
    "requested": _FREE,
    "creating": _FREE,
    "booting": _RUNNING,
    "ready": _RUNNING,
    "draining": _RUNNING,
    "suspending": _RUNNING,
    "suspended": _SUSPENDED,
    "resuming": _RUNNING,
    "stopping": _RUNNING,
    "boot_failed": _RUNNING,
    "lost": _RUNNING,
    "destroying": _RUNNING,
}
_IS_WANTED = frozenset({"requested", "creating"})
_NEVER_WAS = "never was"


@dataclass(slots=True)
class _Entry:
    pool: str
    rates: tuple[float, float, float] | None  # dollars an hour: running, stopped, suspended; None: not known
    state: str = "requested"  # of the core
    since_s: float = 0.0  # unix
    spent: float = 0.0  # until `since_s`

    @property
    def per_hour(self) -> float:
        if self.rates is None:
            return 0.0
        return self.rates[0] if self.state in _IS_WANTED else self._charged

    @property
    def _charged(self) -> float:
        kinds = (_RUNNING, _STOPPED, _SUSPENDED)
        kind = _CHARGED.get(self.state, _FREE)
        return self.rates[kinds.index(kind)] if self.rates is not None and kind else 0.0

    def spent_at(self, now_s: float) -> float:
        return self.spent + max(0.0, now_s - self.since_s) * self._charged / 3600


@dataclass(frozen=True, slots=True)
class CostSummary:
    """US dollars. Machines without a known price are counted, and cost nothing here."""

    spent: float
    per_hour: float  # of what there is and is being booted
    by_pool: Mapping[str, float]
    unpriced: int  # machines without a known price, those that are gone included


class Ledger:
    """All machines of a cluster over its whole life."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._gone: dict[str, float | None] = {}  # by machine, oldest first: what it cost in the end
        self._of_gone: dict[str, float] = {}  # by pool
        self._unpriced_gone = 0

    # ---- what happens ----
    def price(self, machine_id: str, pool: str, price: Price | None, now_s: float) -> None:
        """A machine is wanted, or it has become known what it costs; that holds for all its time."""
        entry = self._entries.setdefault(machine_id, _Entry(pool, None, since_s=now_s))
        rates = None if price is None else (price.running, price.stopped, price.suspended)
        if rates != entry.rates:
            before = entry.rates[0] if entry.rates else 0.0
            spent = entry.spent_at(now_s)
            # What it has cost at the price that was thought to be its own, at the one that is.
            entry.spent = spent * rates[0] / before if rates and before else spent
            entry.since_s = now_s if before else entry.since_s
            entry.rates = rates

    def moved(self, machine_id: str, state: str, now_s: float) -> None:
        """The machine is in this state of the core's from now on. One that was never priced is not known here."""
        entry = self._entries.get(machine_id)
        if entry is None or entry.state == state:
            return
        if state == "boot_failed" and entry.state in _IS_WANTED:
            state = _NEVER_WAS  # the provider has refused it, or has taken it back
        entry.spent, entry.since_s, entry.state = entry.spent_at(now_s), now_s, state
        if state == "destroyed":
            self._end(machine_id, self._entries.pop(machine_id))

    def end_all(self, now_s: float) -> None:
        """Every machine is destroyed."""
        for machine_id in list(self._entries):
            self.moved(machine_id, "destroyed", now_s)

    def _end(self, machine_id: str, entry: _Entry) -> None:
        self._of_gone[entry.pool] = self._of_gone.get(entry.pool, 0.0) + entry.spent
        self._unpriced_gone += entry.rates is None
        self._gone[machine_id] = None if entry.rates is None else entry.spent
        if len(self._gone) > _GONE_MAX:
            del self._gone[next(iter(self._gone))]

    # ---- what it comes to ----
    @property
    def open_count(self) -> int:
        """Machines that are not gone; `summary` looks at each."""
        return len(self._entries)

    def knows(self, machine_id: str) -> bool:
        """Whether this machine was priced, or is gone."""
        return machine_id in self._entries or machine_id in self._gone

    def is_over(self, machine_id: str) -> bool:
        """Whether this machine was known, and is gone."""
        return machine_id in self._gone

    def of_machine(self, machine_id: str, now_s: float) -> float | None:
        """What this machine has cost; None: not known."""
        entry = self._entries.get(machine_id)
        if entry is None:
            return self._gone.get(machine_id)
        return None if entry.rates is None else entry.spent_at(now_s)

    def summary(self, now_s: float) -> CostSummary:
        """Of all machines, now."""
        by_pool = dict(self._of_gone)
        for entry in self._entries.values():
            by_pool[entry.pool] = by_pool.get(entry.pool, 0.0) + entry.spent_at(now_s)
        unpriced = self._unpriced_gone + sum(entry.rates is None for entry in self._entries.values())
        return CostSummary(
            sum(by_pool.values()), sum(entry.per_hour for entry in self._entries.values()), by_pool, unpriced
        )

    # ---- over restarts ----
    def to_dict(self) -> dict[str, Any]:
        """A map that JSON can hold."""
        open_ones = {
            machine_id: [entry.pool, entry.rates and list(entry.rates), entry.state, entry.since_s, entry.spent]
            for machine_id, entry in self._entries.items()
        }
        return {"open": open_ones, "gone": self._of_gone, "unpriced_gone": self._unpriced_gone}

    @classmethod
    def from_dict(cls, packed: Mapping[str, Any]) -> Ledger:
        """The inverse of `to_dict`: what ran goes on running, until it is known to be gone."""
        ledger = cls()
        for machine_id, (pool, rates, state, since_s, spent) in packed["open"].items():
            entry = _Entry(pool, None, state, since_s, spent)
            if rates is not None:
                entry.rates = (float(rates[0]), float(rates[1]), float(rates[2]))
            ledger._entries[machine_id] = entry
        ledger._of_gone = {pool: float(spent) for pool, spent in packed["gone"].items()}
        ledger._unpriced_gone = packed["unpriced_gone"]
        return ledger


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound on what is spent. Machines are not ended for it: nothing more is booted when it comes near."""

    max_cost: float
    dearest_per_hour: float = 0.0  # what one more machine can cost

    def is_spent(self, summary: CostSummary) -> bool:
        """Whether one more machine could pass it, with `RESERVE_S` for all of them to finish what they do."""
        return summary.spent + self._reserve(summary) >= self.max_cost

    def _reserve(self, summary: CostSummary) -> float:
        return (summary.per_hour + self.dearest_per_hour) * RESERVE_S / 3600


def dearest(prices: Iterable[Price | None]) -> float:
    """The highest known price an hour; 0.0 for none."""
    return max((price.running for price in prices if price is not None), default=0.0)


def read_costs(state_dir: Path) -> dict[str, Any] | None:
    """What a cluster's machines have cost, as its coordinator has written it last; None: nothing is known to be charged."""
    try:
        told: dict[str, Any] = json.loads((state_dir / COSTS_NAME).read_text(encoding="utf-8"))
        Ledger.from_dict(told["ledger"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.error("%s cannot be read (%s): costs before now are not known", state_dir / COSTS_NAME, error)
        return None
    return told
