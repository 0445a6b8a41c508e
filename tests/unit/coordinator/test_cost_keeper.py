"""The keeper: prices by pool and by what the provider says, the bound, and what outlives the coordinator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.cost_keeper import CostKeeper
from runner.coordinator.costs import COSTS_NAME, CostSummary, read_costs
from runner.ids import MachineId
from runner.pools import Pool
from runner.testing import FakeClock

M1, M2 = MachineId("m-1"), MachineId("m-2")
HOUR_S = 3600.0
PRICES = """
[elsewhere]
as_of = "2026-11-01"
region = "here"
sizes.small = { hour = 1.0, suspended_hour = 0.1 }
sizes.large = { hour = 10.0 }
regions.far = 2.0
[friend]
is_free = true
"""


@dataclass
class Kept:
    keeper: CostKeeper
    clock: FakeClock
    budgets: list[bool] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Kept]:
    prices = tmp_path / "prices.toml"
    prices.write_text(PRICES)
    clock = FakeClock()

    def make(**settings: Any) -> Kept:
        of_test = {"pools": (Pool("a", max=8, size="small"), Pool("b", size="odd")), "provider": "elsewhere"}
        config = CoordinatorConfig(home=str(tmp_path), **{**of_test, **settings})
        budgets: list[bool] = []
        told: list[str] = []
        keeper = CostKeeper(
            config=config,
            state_dir=tmp_path,
            prices_file=prices,
            clock=clock,
            pool_of=lambda machine_id: "b" if machine_id == M2 else "a",
            on_budget=budgets.append,
            tell=told.append,
        )
        return Kept(keeper, clock, budgets, told)

    return make


def boot(kept: Kept, *machine_ids: MachineId) -> None:
    for machine_id in machine_ids:
        for state in ("requested", "creating", "booting", "ready"):
            kept.keeper.machine_state(machine_id, state)


def test_a_machine_costs_what_its_pool_says(kept: Callable[..., Kept]) -> None:
    it = kept()
    boot(it, M1, M2)
    it.clock.advance(HOUR_S)
    cost = it.keeper.message()
    assert cost is not None
    assert (cost.spent, cost.per_hour, cost.unpriced_machines) == (pytest.approx(1.0), 1.0, 1)
    assert it.keeper.of_machine(M1) == pytest.approx(1.0)
    assert it.keeper.of_machine(M2) is None
    it.keeper.machine_state(M1, "destroyed")
    it.keeper.machine_state(M1, "destroyed")
    it.clock.advance(HOUR_S)
    assert it.keeper.of_machine(M1) == pytest.approx(1.0)


def test_time_asleep_costs_what_sleeping_costs_and_a_resume_or_cold_start_what_running_does(
    kept: Callable[..., Kept],
) -> None:
    it = kept()
    boot(it, M1)
    spent = []
    for state in ("suspending", "suspended", "resuming", "ready", "suspending", "suspended", "resuming", "booting"):
        it.keeper.machine_state(M1, state)
        before = it.keeper.of_machine(M1)
        it.clock.advance(HOUR_S)
        after = it.keeper.of_machine(M1)
        assert before is not None
        assert after is not None
        spent.append(round(after - before, 3))
    assert spent == [1.0, 0.1, 1.0, 1.0, 1.0, 0.1, 1.0, 1.0]
    it.keeper.machine_state(M1, "suspended")
    cost = it.keeper.message()
    assert cost is not None
    assert cost.per_hour == 0.1


def test_what_the_provider_has_booted_counts_and_not_what_was_asked_for(kept: Callable[..., Kept]) -> None:
    it = kept()
    it.keeper.machine_state(M1, "creating")
    it.keeper.placed(M1, "large", "far")
    boot(it, M1)
    it.clock.advance(HOUR_S)
    assert it.keeper.of_machine(M1) == pytest.approx(20.0)


def test_what_is_free_has_no_cost_and_no_file(kept: Callable[..., Kept], tmp_path: Path) -> None:
    it = kept(provider="friend", max_cost=0.01)
    boot(it, M1)
    it.keeper.placed(M1, "large", "")
    it.clock.advance(HOUR_S)
    it.keeper.close(are_machines_gone=True)
    assert it.keeper.message() is None
    assert it.keeper.of_machine(M1) is None
    assert it.budgets == []
    assert not (tmp_path / COSTS_NAME).exists()


def test_a_coordinator_that_dies_leaves_what_was_spent_and_what_still_runs(
    kept: Callable[..., Kept], tmp_path: Path
) -> None:
    first = kept()
    boot(first, M1)
    first.keeper.close(are_machines_gone=False)  # as the second before it died
    first.clock.advance(HOUR_S)
    again = kept()
    again.keeper.machine_state(M1, "lost")
    again.clock.advance(HOUR_S / 2)
    again.keeper.machine_state(M1, "destroyed")
    again.clock.advance(HOUR_S)
    cost = again.keeper.message()
    assert cost is not None
    assert (cost.spent, cost.per_hour) == (pytest.approx(1.5), 0.0)
    again.keeper.close(are_machines_gone=True)
    told = read_costs(tmp_path)
    assert told is not None
    assert told["spent"] == pytest.approx(1.5)
    assert (tmp_path / COSTS_NAME).stat().st_mode & 0o77 == 0


def test_an_orderly_end_ends_what_machines_cost(kept: Callable[..., Kept]) -> None:
    first = kept()
    boot(first, M1)
    first.clock.advance(HOUR_S)
    assert first.keeper.close(are_machines_gone=True).spent == pytest.approx(1.0)
    first.clock.advance(9 * HOUR_S)
    again = kept().keeper.message()
    assert again is not None
    assert (again.spent, again.per_hour) == (pytest.approx(1.0), 0.0)


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"ledger": {}}), json.dumps({"ledger": {"open": {"m": [1]}}})])
def test_a_damaged_file_is_said_to_be_one(
    kept: Callable[..., Kept], tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / COSTS_NAME).write_text(text)
    cost = kept().keeper.message()
    assert cost is not None
    assert cost.spent == 0.0
    assert "costs before now are not known" in caplog.text


def test_near_the_bound_growth_stops_once_and_people_are_told(kept: Callable[..., Kept]) -> None:
    it = kept(pools=(Pool("a", max=8, size="small"),), max_cost=1.0)
    boot(it, M1)
    assert it.budgets == []
    it.clock.advance(0.9 * HOUR_S)
    it.keeper.machine_state(M1, "draining")
    it.keeper.machine_state(M1, "stopping")
    assert it.budgets == [True]
    (told,) = it.told
    assert told.startswith("$0.90 of at most $1.00 are spent and what runs costs $1.00 per hour: no more machines")
    cost = it.keeper.message()
    assert cost is not None
    assert cost.is_budget_spent
    it.keeper.machine_state(M1, "destroyed")
    assert it.budgets == [True, False], "one more machine fits into what is left"
    assert "machines are booted again" in it.told[-1]


def test_a_thousand_machines_are_not_looked_at_for_each_of_their_changes(
    kept: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    it = kept(pools=(Pool("a", max=2000, size="small"),), max_cost=1e6)
    looked_at, summary = [0], it.keeper._ledger.summary

    def counted(now_s: float) -> CostSummary:
        looked_at[0] += it.keeper._ledger.open_count
        return summary(now_s)

    monkeypatch.setattr(it.keeper._ledger, "summary", counted)
    boot(it, *(MachineId(f"x-{number}") for number in range(1000)))
    assert it.budgets == []
    assert 0 < looked_at[0] < 4000 * 60


def test_a_machine_whose_creation_is_answered_when_it_is_gone_already_costs_no_more(kept: Callable[..., Kept]) -> None:
    it = kept()
    for state in ("requested", "creating", "stopping", "destroyed"):
        it.keeper.machine_state(M1, state)
    it.keeper.placed(M1, "large", "far")
    cost = it.keeper.message()
    assert cost is not None
    assert cost.per_hour == 0.0


async def test_what_machines_without_a_price_come_to_outlives_the_coordinator_too(
    kept: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("runner.coordinator.cost_keeper._PERIOD_S", 0.001)
    it = kept(pools=(Pool("b", size="odd"),))
    boot(it, M2)
    it.keeper.placed(M2, "large", "")
    running = asyncio.ensure_future(it.keeper.run())
    async with asyncio.timeout(5):
        while read_costs(tmp_path) is None:
            await asyncio.sleep(0)
    it.keeper.stop()
    await running
    assert list(json.loads((tmp_path / COSTS_NAME).read_text())["ledger"]["open"]) == [M2]


async def test_time_alone_uses_the_bound_up(kept: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.coordinator.cost_keeper._PERIOD_S", 0.001)
    it = kept(pools=(Pool("a", max=8, size="small"),), max_cost=1.0)
    boot(it, M1)
    it.clock.advance(HOUR_S)
    original = it.keeper._on_budget

    def stop_at_once(is_spent: bool) -> None:
        original(is_spent)
        it.keeper.stop()

    it.keeper._on_budget = stop_at_once
    await it.keeper.run()
    assert it.budgets == [True]


async def test_where_nothing_is_charged_nobody_looks(kept: Callable[..., Kept]) -> None:
    await kept(provider="friend").keeper.run()
