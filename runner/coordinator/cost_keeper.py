"""Keeps the ledger of costs beside the engine: prices, the file that outlives this process, and the bound on cost."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path

from runner.clock import Clock
from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.costs import COSTS_NAME, Budget, CostSummary, Ledger, dearest, read_costs
from runner.coordinator.estimate import PoolPrices, dollars
from runner.coordinator.state_dir import write_private
from runner.ids import MachineId
from runner.pools import Pool
from runner.providers.prices import Price, load_prices
from runner.rpc.gen import client_pb2

log = logging.getLogger(__name__)

# How long what has happened may be in memory only, and how often the bound is looked at.
_PERIOD_S = 1.0
# Each look goes over all machines: in a large fleet many of them change before the next one, or a period passes.
_LOOKED_AT_PER_CHANGE = 50


class CostKeeper:
    """Told of every machine; tells `growth` when nothing more may be booted, and people why."""

    def __init__(
        self,
        *,
        config: CoordinatorConfig,
        state_dir: Path,
        prices_file: Path | None,
        clock: Clock,
        pool_of: Callable[[MachineId], str],
        on_budget: Callable[[bool], None],
        tell: Callable[[str], None],
    ) -> None:
        self._config = config
        self._path = state_dir / COSTS_NAME
        self._prices = PoolPrices(load_prices(prices_file), config.provider, config.provider_options)
        self._clock = clock
        self._pool_of = pool_of
        self._on_budget = on_budget
        self._tell = tell
        self._pools = {pool.name: pool for pool in config.pools}
        prices = [self._prices.of(pool) for pool in config.pools]
        self._is_free = all(price is not None and price.running == 0 for price in prices)
        self._budget = None if config.max_cost is None else Budget(config.max_cost, dearest(prices))
        self._is_spent = False
        self._ledger = self._read()
        self._is_dirty = False
        self._changes = 0  # since the bound was looked at
        self._closing = asyncio.Event()

    def _price(self, pool: Pool | None, size: str = "", region: str = "") -> Price | None:
        return None if pool is None else self._prices.of(pool, size, region)

    # ---- what happens to machines ----
    def machine_state(self, machine_id: MachineId, state: str) -> None:
        """The machine is in this state of the core's now."""
        if self._is_free:
            return
        now_s = self._clock.unix_s()
        if not self._ledger.knows(machine_id) and state != "destroyed":
            name = self._pool_of(machine_id)
            self._ledger.price(machine_id, name, self._price(self._pools.get(name)), now_s)
        self._ledger.moved(machine_id, state, now_s)
        self._changed()

    def placed(self, machine_id: MachineId, size: str, region: str) -> None:
        """The provider has said what the machine is and where."""
        if self._is_free or not (size or region) or self._ledger.is_over(machine_id):
            return  # the last: destroyed before the provider's answer to its creation came
        name = self._pool_of(machine_id)
        price = self._price(self._pools.get(name), size, region)
        self._ledger.price(machine_id, name, price, self._clock.unix_s())
        self._changed()

    def _changed(self) -> None:
        self._is_dirty = True
        self._changes += 1
        if self._changes * _LOOKED_AT_PER_CHANGE >= self._ledger.open_count:
            self.check()

    # ---- the bound ----
    def check(self) -> None:
        """Look whether it has been reached, and tell of a change."""
        self._changes = 0
        if self._budget is None:
            return
        summary = self._ledger.summary(self._clock.unix_s())
        is_spent = self._budget.is_spent(summary)
        if is_spent == self._is_spent:
            return
        self._is_spent = is_spent
        self._on_budget(is_spent)
        spent = f"{dollars(summary.spent)} of at most {dollars(self._budget.max_cost)} are spent"
        rate = f"what runs costs {dollars(summary.per_hour)} per hour"
        if is_spent:
            self._tell(f"{spent} and {rate}: no more machines are booted; those that are there go on")
        else:
            self._tell(f"{spent} and {rate}: machines are booted again")

    # ---- what it comes to ----
    def message(self) -> client_pb2.Cost | None:
        """For `GetStatus`; None where everything is free."""
        if self._is_free:
            return None
        summary = self._ledger.summary(self._clock.unix_s())
        return client_pb2.Cost(
            spent=summary.spent,
            per_hour=summary.per_hour,
            spent_by_pool=summary.by_pool,
            unpriced_machines=summary.unpriced,
            max_cost=0.0 if self._budget is None else self._budget.max_cost,
            is_budget_spent=self._is_spent,
        )

    def of_machine(self, machine_id: MachineId) -> float | None:
        """US dollars until now; None: not known, or free."""
        return None if self._is_free else self._ledger.of_machine(machine_id, self._clock.unix_s())

    # ---- over restarts ----
    async def run(self) -> None:
        """Look at the bound and keep the file, until `close`."""
        while not self._is_free and not self._closing.is_set():
            self.check()
            try:
                self._save()
            except OSError as error:
                log.error("what machines cost cannot be kept: %s", error)  # the next round tries again
            try:
                async with asyncio.timeout(_PERIOD_S):
                    await self._closing.wait()
            except TimeoutError:
                continue

    def stop(self) -> None:
        """Have `run` return."""
        self._closing.set()

    def close(self, *, are_machines_gone: bool) -> CostSummary:
        """Write the last word; returns it. Idempotent."""
        self._closing.set()
        now_s = self._clock.unix_s()
        if are_machines_gone:
            self._ledger.end_all(now_s)
        self._is_dirty = not self._is_free
        try:
            self._save()
        except OSError as error:
            log.error("what machines have cost cannot be kept: %s", error)
        return self._ledger.summary(now_s)

    def _save(self) -> None:
        if self._is_dirty:
            summary = self._ledger.summary(self._clock.unix_s())
            told = {"spent": summary.spent, "unpriced_machines": summary.unpriced, "ledger": self._ledger.to_dict()}
            write_private(self._path, json.dumps(told).encode())
            self._is_dirty = False

    def _read(self) -> Ledger:
        told = read_costs(self._path.parent)
        return Ledger() if told is None else Ledger.from_dict(told["ledger"])
