"""Token buckets and pauses, with time as an argument."""

from __future__ import annotations

import email.utils
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.providers.fly.limits import (
    DOCUMENTED_RATES,
    NO_LIMIT,
    Buckets,
    Rate,
    TokenBucket,
    parse_retry_after,
    pause_before_retry,
)


def times_of(bucket: TokenBucket, count: int, now_s: float = 0.0) -> list[float]:
    """When each of `count` requests that wait in a row goes out."""
    times = []
    for _ in range(count):
        while (wait_s := bucket.take(now_s)) > 0:
            now_s += wait_s
        times.append(now_s)
    return times


def test_a_burst_and_then_one_a_second_with_some_room_for_requests_that_took_longer() -> None:
    assert times_of(TokenBucket(Rate(1.0, 3)), 6) == pytest.approx([0, 0, 0, 1.2, 2.2, 3.2])


def test_sixty_four_creates_take_sixty_one_seconds_at_the_documented_limit() -> None:
    """REFERENCE 0.2."""
    assert times_of(TokenBucket(DOCUMENTED_RATES["default"]), 64)[-1] == pytest.approx(61.2)


def test_what_is_not_used_is_kept_up_to_the_burst() -> None:
    bucket = TokenBucket(Rate(1.0, 3))
    times_of(bucket, 3)
    assert times_of(bucket, 4, now_s=100.0) == pytest.approx([100, 100, 100, 101.2])


@given(st.floats(0.1, 20), st.integers(1, 20), st.integers(1, 60))
def test_never_more_than_the_rate_and_the_burst_allow(per_s: float, burst: int, count: int) -> None:
    times = times_of(TokenBucket(Rate(per_s, burst)), count)
    for first in range(count):
        for last in range(first, count):
            assert last - first + 1 <= burst + per_s * (times[last] - times[first]) + 1e-6


@pytest.mark.parametrize("late_s", [0.0, 0.05, 0.19])
def test_a_server_with_the_same_limit_refuses_none_also_when_the_first_requests_take_longer(late_s: float) -> None:
    """Its bucket is emptied later than ours, and so it is filled later."""
    sent = times_of(TokenBucket(Rate(1.0, 3)), 64)
    arrived = [at_s + (late_s if index < 3 else 0.0) for index, at_s in enumerate(sent)]
    tokens, at_s = 3.0, 0.0
    for now_s in arrived:
        tokens, at_s = min(3.0, tokens + now_s - at_s) - 1.0, now_s
        assert tokens >= -1e-6


def test_a_refusal_holds_everybody_and_slows_them_down() -> None:
    bucket = TokenBucket(Rate(1.0, 3))
    assert bucket.take(0.0) == 0.0
    bucket.refused(0.0, retry_after_s=5.0)
    assert bucket.take(1.0) == pytest.approx(4.0)
    first, second = times_of(bucket, 2, now_s=5.0)
    assert second - first == pytest.approx(2.0)  # half the rate


def test_refusals_of_one_burst_count_once_and_accepted_requests_bring_the_rate_back() -> None:
    bucket = TokenBucket(Rate(1.0, 3))
    for _ in range(3):
        bucket.refused(0.0, retry_after_s=0.0)
    first, second = times_of(bucket, 2, now_s=10.0 - 1e-9)[-2:]
    assert first == pytest.approx(10.0)
    for _ in range(10):
        bucket.accepted()
    first, second, third = times_of(bucket, 3, now_s=second + 1e-9)
    assert third - second <= 1.0 + 1e-6


def test_without_a_limit_only_the_servers_word_counts() -> None:
    bucket = TokenBucket(NO_LIMIT)
    assert times_of(bucket, 100) == [0.0] * 100
    bucket.refused(0.0, retry_after_s=3.0)
    assert bucket.take(1.0) == pytest.approx(2.0)
    assert bucket.take(3.0) == 0.0


def test_one_bucket_for_each_action_and_identifier() -> None:
    buckets = Buckets({})
    assert buckets.bucket("create_machine", "fleet", 0.0) is buckets.bucket("create_machine", "fleet", 0.0)
    assert buckets.bucket("create_machine", "fleet", 0.0) is not buckets.bucket("create_machine", "other", 0.0)
    assert buckets.bucket("create_machine", "fleet", 0.0).rate == Rate(1.0, 3)
    assert buckets.bucket("get_machine", "m", 0.0).rate == Rate(5.0, 10)
    assert buckets.bucket("delete_app", "", 0.0).rate.per_s == pytest.approx(100 / 60)
    assert math.isinf(Buckets(None).bucket("create_machine", "fleet", 0.0).rate.per_s)
    assert Buckets({"default": Rate(9.0, 9)}).bucket("create_machine", "fleet", 0.0).rate == Rate(9.0, 9)


def test_full_buckets_are_forgotten_and_busy_ones_kept() -> None:
    buckets = Buckets({})
    busy = buckets.bucket("create_machine", "fleet", 0.0)
    busy.take(0.0)
    for number in range(1500):
        buckets.bucket("get_machine", f"m-{number}", 0.0)
    assert buckets.bucket("create_machine", "fleet", 0.0) is busy
    assert len(buckets._buckets) <= 1001


def test_pauses_grow_spread_and_end_with_the_deadline() -> None:
    pauses = [
        pause_before_retry(tries, now_s=0, deadline_s=1e9, retry_after_s=0, random=0.5) or 0 for tries in range(12)
    ]
    assert pauses == sorted(pauses)
    assert pauses[0] < 0.5
    assert pauses[-1] <= 10.0
    early, late = (pause_before_retry(3, now_s=0, deadline_s=1e9, retry_after_s=0, random=at) for at in (0.0, 0.99))
    assert early is not None and late is not None and late > 1.5 * early
    assert pause_before_retry(0, now_s=10, deadline_s=10.1, retry_after_s=0, random=0.5) is None
    assert pause_before_retry(0, now_s=10, deadline_s=9, retry_after_s=0, random=0.5) is None
    asked = pause_before_retry(0, now_s=0, deadline_s=100, retry_after_s=7, random=0.0)
    assert asked is not None and asked >= 7.0
    assert pause_before_retry(0, now_s=0, deadline_s=5, retry_after_s=7, random=0.0) is None


def test_retry_after_in_seconds_and_as_a_date() -> None:
    now_s = 1_700_000_000.0
    assert parse_retry_after("7", now_s) == 7.0
    assert parse_retry_after(email.utils.formatdate(now_s + 30, usegmt=True), now_s) == pytest.approx(30.0)
    assert parse_retry_after(email.utils.formatdate(now_s - 30, usegmt=True), now_s) == 0.0
    assert [parse_retry_after(text, now_s) for text in (None, "", "soon", "nan", "inf", "-3")] == [0.0] * 6
