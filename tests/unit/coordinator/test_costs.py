"""The ledger: who ran when, at which price, across restarts; and when a bound on cost stops growth."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.coordinator.costs import Budget, Ledger, dearest
from runner.coordinator.estimate import RESERVE_S
from runner.core.machine import TRANSITIONS, MachineState
from runner.providers.prices import Price

HOUR_S = 3600.0
LARGE = Price(3.6, 0.036, 0.36, "2026-10-09", "here")  # a tenth of a cent a second
SMALL = Price(0.36, 0.0, 0.0, "2026-10-09", "here")


def test_a_machine_costs_from_its_creation_until_it_is_gone() -> None:
    ledger = Ledger()
    ledger.price("m-1", "a", LARGE, 100.0)
    ledger.moved("m-1", "creating", 110.0)
    assert ledger.of_machine("m-1", 200.0) == 0.0, "nothing exists yet"
    assert ledger.summary(200.0).per_hour == 3.6, "what is wanted is counted on"
    ledger.moved("m-1", "booting", 1000.0)
    ledger.moved("m-1", "ready", 1010.0)
    assert ledger.of_machine("m-1", 1020.0) == pytest.approx(0.02)
    ledger.moved("m-1", "draining", 1100.0)
    ledger.moved("m-1", "stopping", 1110.0)
    ledger.moved("m-1", "destroyed", 1120.0)
    assert ledger.of_machine("m-1", 9999.0) == pytest.approx(0.12)
    summary = ledger.summary(9999.0)
    assert (summary.spent, summary.per_hour, summary.unpriced) == (pytest.approx(0.12), 0.0, 0)


def test_a_suspended_machine_costs_what_that_costs() -> None:
    ledger = Ledger()
    ledger.price("m-1", "a", LARGE, 0.0)
    for state, now_s in (("booting", 0.0), ("ready", 10.0), ("suspending", HOUR_S), ("suspended", HOUR_S)):
        ledger.moved("m-1", state, now_s)
    assert ledger.summary(2 * HOUR_S).per_hour == 0.36
    assert ledger.of_machine("m-1", 2 * HOUR_S) == pytest.approx(3.6 + 0.36)
    ledger.moved("m-1", "resuming", 2 * HOUR_S)
    assert ledger.of_machine("m-1", 3 * HOUR_S) == pytest.approx(3.6 + 0.36 + 3.6)


def test_what_the_provider_refused_costs_nothing_and_what_is_lost_costs_until_it_is_gone() -> None:
    ledger = Ledger()
    for machine_id in ("refused", "lost"):
        ledger.price(machine_id, "a", LARGE, 0.0)
        ledger.moved(machine_id, "creating", 0.0)
    ledger.moved("refused", "boot_failed", 5.0)
    ledger.moved("lost", "booting", 5.0)
    ledger.moved("lost", "boot_failed", 15.0)
    assert ledger.of_machine("refused", 100.0) == 0.0
    assert ledger.of_machine("lost", 105.0) == pytest.approx(0.1)
    assert ledger.summary(105.0).per_hour == 3.6
    ledger.moved("refused", "destroyed", 105.0)
    ledger.moved("lost", "lost", 105.0)
    ledger.moved("lost", "destroyed", 205.0)
    assert ledger.summary(999.0).spent == pytest.approx(0.2)


def test_machines_without_a_price_are_counted() -> None:
    ledger = Ledger()
    ledger.price("m-1", "a", None, 0.0)
    ledger.price("m-2", "b", SMALL, 0.0)
    for machine_id in ("m-1", "m-2"):
        ledger.moved(machine_id, "booting", 0.0)
    summary = ledger.summary(HOUR_S)
    assert (summary.spent, summary.unpriced, summary.by_pool) == (pytest.approx(0.36), 1, {"a": 0.0, "b": 0.36})
    assert ledger.of_machine("m-1", HOUR_S) is None
    ledger.moved("m-1", "destroyed", HOUR_S)
    assert ledger.of_machine("m-1", HOUR_S) is None
    assert ledger.summary(HOUR_S).unpriced == 1, "also when they are gone"
    assert ledger.of_machine("m-9", HOUR_S) is None
    ledger.moved("m-9", "ready", HOUR_S)  # nobody has said what it is


def test_the_price_of_what_was_really_booted_holds_from_its_creation() -> None:
    ledger = Ledger()
    ledger.price("m-1", "a", SMALL, 0.0)
    ledger.moved("m-1", "booting", 0.0)
    ledger.price("m-1", "a", LARGE, 100.0)
    assert ledger.of_machine("m-1", 200.0) == pytest.approx(0.2)
    ledger.price("m-2", "a", None, 0.0)
    ledger.moved("m-2", "booting", 0.0)
    ledger.price("m-2", "a", LARGE, 100.0)
    assert ledger.of_machine("m-2", 200.0) == pytest.approx(0.2)


def test_a_clock_that_goes_backwards_takes_nothing_back() -> None:
    ledger = Ledger()
    ledger.price("m-1", "a", LARGE, 0.0)
    ledger.moved("m-1", "booting", 1000.0)
    assert ledger.of_machine("m-1", 500.0) == 0.0


def test_the_end_of_all() -> None:
    ledger = Ledger()
    for number in range(3):
        ledger.price(f"m-{number}", "a", LARGE, 0.0)
        ledger.moved(f"m-{number}", "booting", 0.0)
    ledger.end_all(100.0)
    assert ledger.summary(900.0) == ledger.summary(100.0)
    assert ledger.summary(900.0).by_pool == {"a": pytest.approx(0.3)}
    assert ledger.summary(900.0).per_hour == 0.0


_STATES = st.sampled_from([state.label for state in MachineState])
_PRICES = st.sampled_from([LARGE, SMALL, None])


@given(
    st.lists(st.tuples(st.sampled_from("abc"), _STATES | _PRICES, st.floats(0, 1000))),
    st.integers(0, 20),
)
def test_a_restart_changes_nothing_and_cost_never_falls(
    steps: list[tuple[str, str | Price | None, float]], cut: int
) -> None:
    ledger = Ledger()
    now_s = spent = 0.0
    for number, (machine_id, what, later_s) in enumerate(steps):
        now_s += later_s
        if isinstance(what, str):
            ledger.moved(machine_id, what, now_s)
        elif machine_id not in ledger.to_dict()["open"]:
            ledger.price(machine_id, f"pool-{machine_id}", what, now_s)
        if number == cut:
            ledger = Ledger.from_dict(json.loads(json.dumps(ledger.to_dict())))
        summary = ledger.summary(now_s)
        assert summary.spent >= spent - 1e-9
        assert sum(summary.by_pool.values()) == pytest.approx(summary.spent)
        spent = summary.spent


def test_every_state_of_a_machine_has_its_rate() -> None:
    for state in TRANSITIONS:
        ledger = Ledger()
        ledger.price("m", "a", LARGE, 0.0)
        ledger.moved("m", "booting", 0.0)
        ledger.moved("m", state.label, 0.0)
        spent = ledger.summary(HOUR_S).spent
        is_free = state in {MachineState.REQUESTED, MachineState.CREATING, MachineState.DESTROYED}
        expected = 0.0 if is_free else 0.36 if state is MachineState.SUSPENDED else 3.6
        assert spent == pytest.approx(expected), state


def test_growth_stops_before_the_bound_is_reached() -> None:
    ledger, budget = Ledger(), Budget(10.0, dearest([LARGE, SMALL, None]))
    assert budget.dearest_per_hour == 3.6
    assert not budget.is_spent(ledger.summary(0.0))
    ledger.price("m-1", "a", LARGE, 0.0)
    ledger.moved("m-1", "booting", 0.0)
    # What is left when two such machines have had their time to finish.
    wait_s = (10.0 - 2 * 3.6 * RESERVE_S / HOUR_S) / 3.6 * HOUR_S
    assert not budget.is_spent(ledger.summary(wait_s - 1))
    assert budget.is_spent(ledger.summary(wait_s + 1))
    assert ledger.summary(wait_s + 1 + RESERVE_S).spent < 10.0, "what runs can finish within the bound"
