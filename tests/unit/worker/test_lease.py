from __future__ import annotations

import pytest

from runner.worker.agent.lease import Lease, LeaseState


def lease(*, is_used: bool = True) -> Lease:
    return Lease(is_used=is_used, lost_after_s=60, destroy_after_s=120)


def test_nothing_runs_out_before_registration() -> None:
    assert lease().state(1e9) is LeaseState.HELD
    assert lease().next_change_s(0.0) is None


def test_a_lease_counts_from_the_send_time_of_what_was_acknowledged() -> None:
    it = lease()
    it.renew(100.0)
    it.renew(90.0)  # an acknowledgement that was overtaken
    assert it.state(159.9) is LeaseState.HELD
    assert it.next_change_s(159.9) == 160.0
    assert it.state(160.0) is LeaseState.LOST
    assert it.next_change_s(160.0) == 220.0
    assert it.state(220.0) is LeaseState.OVER
    it.renew(200.0)
    assert it.state(220.0) is LeaseState.HELD


@pytest.mark.parametrize("is_used", [True, False])
def test_after_a_gap_only_a_fresh_round_trip_counts(is_used: bool) -> None:
    it = lease(is_used=is_used)
    it.renew(100.0)
    it.doubt(110.0)
    assert it.state(110.0) is LeaseState.UNSURE
    it.renew(109.0)
    assert it.state(111.0) is LeaseState.UNSURE
    it.renew(110.5)
    assert it.state(111.0) is LeaseState.HELD


def test_an_unused_lease_never_ends() -> None:
    it = lease(is_used=False)
    it.renew(100.0)
    assert it.state(1e9) is LeaseState.HELD
