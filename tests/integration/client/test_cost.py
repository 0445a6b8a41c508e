"""A cluster on this computer, which for once costs something: told before, kept to a bound, told after."""

from __future__ import annotations

from pathlib import Path

import pytest

import runner
from runner.client import context
from runner.client.cluster_info import read_cost
from runner.errors import BadOptionsError
from tests.integration.helpers import wait_until

PRICES = """
[local]
is_free = false
as_of = "2026-11-01"
sizes.box = { hour = %s }
"""


@pytest.fixture
def dear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of prices for machines of this computer, at 3.6 dollars an hour: a tenth of a cent a second."""
    path = tmp_path / "prices.toml"
    path.write_text(PRICES % 3.6)
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RUNNER_PRICES", str(path))
    return path


def test_cost_is_told_before_and_after(dear: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with runner.init(machines=2, num_cpus=1, log_to_driver=False):
        assert capfd.readouterr().err == "runner: 2 x box: about $7.20 per hour; prices of 2026-11-01\n"
        assert runner.get(runner.remote(lambda: 3).remote(), timeout=30) == 3
        session = context.current_session()
        wait_until(lambda: (cost := read_cost(session, 5)) and cost.spent > 0, 10, "a machine that has cost something")
        cost = read_cost(session, 5)
        assert cost is not None
        assert (cost.per_hour, cost.unpriced_machines) == (pytest.approx(7.2), 0)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("runner: the machines have cost $0.00")


def test_a_bound_that_cannot_be_kept_starts_nothing(dear: Path, tmp_path: Path) -> None:
    with pytest.raises(BadOptionsError, match=r"max_cost=0\.5 is less than .* in 5 minutes \(\$0\.60\)"):
        runner.init(machines=2, num_cpus=1, max_cost=0.5)
    assert not (tmp_path / "home").exists()


@pytest.mark.long
def test_near_the_bound_the_fleet_grows_no_more_and_says_why(dear: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # Two machines fit with five minutes each to finish; with a third one in sight the bound would be passed.
    pool = runner.Pool(min=0, max=4, num_cpus=1, idle_shutdown_s=60)

    with runner.init(machines=pool, max_cost=0.7):

        @runner.remote
        def machine(wait_s: float) -> str:
            import time

            time.sleep(wait_s)
            return runner.get_runtime_context().machine_id

        assert runner.get(machine.remote(0.0), timeout=30)
        # One runs, 0.3 dollars are set aside for it and as much for the next: it may come.
        first = [machine.remote(1.5) for _ in range(2)]
        assert len(set(runner.get(first, timeout=30))) == 2
        # Two run: a third is in vain.
        more = [machine.remote(0.5) for _ in range(6)]
        assert len(set(runner.get(more, timeout=30))) == 2
        cost = read_cost(context.current_session(), 5)
        assert cost is not None
        assert cost.is_budget_spent
        assert cost.max_cost == pytest.approx(0.7)
    assert "no more machines are booted; those that are there go on" in capfd.readouterr().err
