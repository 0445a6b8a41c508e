"""What pools do when boots fail, room is short, or the budget is spent; and what that means for tasks that wait."""

from __future__ import annotations

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core.values import FailureKind, PoolRecord
from runner.ids import MachineId
from tests.unit.core.script import cpus, of
from tests.unit.core.test_core_pools import Fleet, elastic, fixed


def notes(commands: list[c.Command]) -> list[str]:
    return [note.text for note in of(c.NotePool, commands)]


def test_a_wave_of_failed_boots_counts_once_and_is_tried_again_later_and_later() -> None:
    s = Fleet(fixed(3))
    said = notes(s.fail_boot("m-1", "provider is down"))
    assert said == ["a boot failed, the next one is tried in 0.25 s: provider is down"]
    assert notes(s.fail_boot("m-2")) + notes(s.fail_boot("m-3")) == []
    s.wait(0.2)
    assert s.living() == []
    s.wait(0.1)
    assert s.living() == ["m-4", "m-5", "m-6"]
    assert "in 0.75 s" in notes(s.fail_boot("m-4"))[0]


def test_boots_that_die_young_are_given_up_and_what_waits_fails_with_the_reason() -> None:
    s = Fleet(fixed(1))
    s.submit("t-1")
    for number in range(1, 7):
        s.join(f"m-{number}")
        s.feed(e.MachineExited(MachineId(f"m-{number}"), "killed by signal 9"))
        s.gone(f"m-{number}")
        s.wait(31)
    assert len(s.states()) == 6
    assert s.living() == []
    assert s.state("t-1") == "failed"
    [ready] = of(c.NotifyReady, s.submit("t-2", subscribe=True))
    assert ready.failure.kind is FailureKind.UNSCHEDULABLE
    assert "killed by signal 9" in ready.failure.message


def test_a_machine_that_served_begins_the_count_anew() -> None:
    s = Fleet(fixed(1))
    number = 1
    for _ in range(3):
        for _ in range(4):
            s.fail_boot(f"m-{number}")
            s.wait(31)
            number += 1
        s.join(f"m-{number}")
        s.wait(11)
        s.feed(e.MachineExited(MachineId(f"m-{number}"), "killed"))
        s.gone(f"m-{number}")
        s.wait(0.1)
        number += 1
        assert len(s.living()) == 1


def test_boots_that_fail_now_and_then_over_a_long_life_never_end_the_pool() -> None:
    s = Fleet(elastic(1, idle_s=20))
    for number in range(12):
        s.submit(f"t-{number}")
        s.wait(0.1)
        s.fail_boot(s.living()[0], "a bad host")
        s.wait(1)
        [name] = s.living()
        s.join(name)
        s.succeed(f"t-{number}")
        s.wait(21)
        s.gone(name)
    assert s.cluster.pools()[0].problem == ""


def test_machines_that_have_come_up_since_and_stay_show_that_boots_work() -> None:
    s = Fleet(fixed(1))
    s.join("m-1")
    for number in range(2, 20, 2):
        s.feed(e.MachinesWanted("default", 1))
        s.fail_boot(f"m-{number}", "a bad host")
        s.wait(1)
        s.join(f"m-{number + 1}")
        s.wait(11)
    assert len(s.living()) == 10
    assert not s.cluster.pools()[0].is_hopeless


def test_boots_of_a_start_that_fail_are_tried_again_and_until_then_nobody_goes() -> None:
    s = Fleet(elastic(4, idle_s=5), default=4)
    s.wait(1)
    s.join("m-1", "m-2")
    s.fail_boot("m-3")
    s.fail_boot("m-4")
    s.wait(3)
    assert s.living() == ["m-1", "m-2", "m-5", "m-6"]
    s.wait(10)
    assert len(s.living()) == 4
    s.join("m-5", "m-6")
    s.wait(10)
    assert s.living() == []


@pytest.mark.parametrize("delay_s", [0, 1])
def test_what_a_start_cannot_have_keeps_nobody_idle(delay_s: float) -> None:
    s = Fleet(elastic(4, idle_s=5), default=4)
    s.wait(delay_s)
    s.join("m-1", "m-2")
    s.fail_boot("m-3", is_capacity=True)
    s.fail_boot("m-4", is_capacity=True)
    s.wait(6)
    assert s.living() == []


def test_timers_do_not_pile_up_under_load() -> None:
    s = Fleet(elastic(4, 2, idle_s=300))
    s.wait(0.1)
    s.join("m-1", "m-2")
    for number in range(500):
        s.submit(f"t-{number}")
        s.after(0.011)
        s.succeed(f"t-{number}")
        s.after(0.011)
    assert len(s.cluster._state.timers) < 20


def test_a_provider_that_is_away_is_asked_for_ten_minutes() -> None:
    s = Fleet(fixed(1))
    tried = 0
    while s.now_s < 590:
        for name in s.living():
            tried += 1
            s.fail_boot(name, "connection refused")
        s.wait(1)
    assert tried > 15
    assert not s.cluster.pools()[0].is_hopeless
    s.wait(60)
    s.fail_boot(s.living()[0], "connection refused")
    assert s.cluster.pools()[0].is_hopeless


@pytest.mark.parametrize("had", [0, 2])
def test_what_can_never_be_had_is_not_asked_for_again(had: int) -> None:
    s = Fleet(fixed(4))
    s.submit("t-1")
    s.join(*[f"m-{number}" for number in range(1, had + 1)])
    said: list[str] = []
    for number in range(had + 1, 5):
        said += notes(s.fail_boot(f"m-{number}", "this host has none", is_permanent=True))
    s.wait(1000)
    assert said == ["a machine cannot be had: this host has none"]
    assert len(s.living()) == had
    assert s.cluster.pools()[0].is_hopeless == (had == 0)
    assert s.state("t-1") == ("assigned" if had else "failed")


def test_a_shortage_goes_on_with_what_there_is_says_so_once_and_tries_again() -> None:
    s = Fleet(fixed(6))
    s.join("m-1", "m-2", "m-3")
    said = [text for name in ("m-5", "m-6") for text in notes(s.fail_boot(name, "no room in iad", is_capacity=True))]
    s.join("m-4")
    for number in range(200):
        said += notes(s.after(0.1))
    assert said == ["6 machines are wanted, 4 can be had; going on with 4: no room in iad"]
    assert len(s.living()) == 4
    s.wait(15)
    assert s.living() == ["m-1", "m-2", "m-3", "m-4", "m-7", "m-8"], "after half a minute it is tried again"


def test_when_the_budget_is_spent_nothing_more_is_booted() -> None:
    s = Fleet(elastic(4))
    s.submit("t-1")
    s.wait(0.1)
    s.feed(e.BudgetChanged(is_spent=True))
    s.submit("t-2")
    s.wait(5)
    assert s.living() == ["m-1"]
    s.feed(e.BudgetChanged(is_spent=False))
    s.wait(0.1)
    assert s.living() == ["m-1", "m-2"]


def test_what_no_pool_can_ever_hold_fails_at_once() -> None:
    s = Fleet(elastic(4))
    [ready] = of(c.NotifyReady, s.submit("t-1", shape=cpus(2), subscribe=True))
    assert "missing: CPU 2 (has CPU 1); the cluster has machines of (CPU 1) on demand" in ready.failure.message
    s.feed(e.BudgetChanged(is_spent=True))
    [ready] = of(c.NotifyReady, s.submit("t-2", subscribe=True))
    assert "max_cost is used up" in ready.failure.message


def test_a_restart_waits_for_its_pools_before_it_calls_anything_unschedulable() -> None:
    s = Fleet(elastic(4))
    s.submit("t-1")
    s.wait(0.1)
    s.cluster = s.replayed()
    s.feed(e.CoordinatorRestarted())
    assert s.state("t-1") == "queued"
    s.gone("m-1")
    s.feed(e.PoolsConfigured((PoolRecord("default", cpus(1), 0, 0),), {}, "fake"))
    assert s.state("t-1") == "failed"


def test_a_trouble_that_is_over_is_told_no_more() -> None:
    s = Fleet(fixed(1))
    s.fail_boot("m-1", "connection refused")
    assert s.cluster.pools()[0].problem == "connection refused"
    s.wait(1)
    s.join("m-2")
    s.wait(0.1)
    assert s.cluster.pools()[0].problem == ""


def test_a_shortage_that_lasts_is_still_told() -> None:
    s = Fleet(fixed(2))
    s.join("m-1")
    s.fail_boot("m-2", "no room", is_capacity=True)
    s.wait(5)
    assert s.cluster.pools()[0].problem == "no room"
