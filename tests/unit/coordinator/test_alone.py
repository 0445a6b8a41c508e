"""A coordinator that nobody wants ends after its time, and not because it was stalled itself."""

from __future__ import annotations

import pytest

from runner.coordinator.alone import Alone


def test_it_ends_when_nobody_came_since_the_start():
    alone = Alone(3.0, now_s=100.0)

    assert [alone.look(now_s, is_wanted=False) for now_s in (101.0, 102.0, 102.9, 103.0)] == [False, False, False, True]


def test_the_time_starts_anew_when_somebody_was_there():
    alone = Alone(3.0, now_s=100.0)
    alone.look(102.0, is_wanted=True)

    assert not alone.look(104.9, is_wanted=False, patience_s=10.0)
    assert alone.look(105.0, is_wanted=False, patience_s=10.0)


def test_it_never_ends_while_somebody_is_there():
    alone = Alone(3.0, now_s=0.0)

    assert not any(alone.look(float(now_s), is_wanted=True) for now_s in range(100))


def test_a_stall_of_the_process_itself_does_not_count():
    alone = Alone(3.0, now_s=100.0)

    assert not alone.look(200.0, is_wanted=False)  # 100 s without a look: 98 of them stalled
    assert not alone.look(200.9, is_wanted=False)
    assert alone.look(201.0, is_wanted=False)


@pytest.mark.parametrize("step_s", [0.5, 1.0])
def test_looks_in_time_lose_nothing(step_s: float):
    alone = Alone(10.0, now_s=0.0)
    ends = [n * step_s for n in range(100) if alone.look(n * step_s, is_wanted=False)]

    assert ends[0] == 10.0
