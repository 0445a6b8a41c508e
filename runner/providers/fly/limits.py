"""When a request may be sent, and when it is sent again: token buckets and pauses as pure functions of the time."""

from __future__ import annotations

import email.utils
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

_FACTOR_MIN = 1 / 16  # of the rate, after many refusals
_FACTOR_STEP = 0.1  # of the rate, that each accepted request gives back
_PAUSE_FIRST_S = 0.25
_PAUSE_MAX_S = 10.0
# By which requests that were sent evenly may reach the server unevenly: the first ones connect. One that comes too early
# is refused, which costs more than this pause, taken once after a burst.
_SLACK_S = 0.2
_EPSILON = 1e-6  # of a token: waiting for less than the clock can tell would never end
_BUCKETS_MAX = 1000  # full ones beyond this are forgotten


@dataclass(frozen=True, slots=True)
class Rate:
    """So many requests a second on average, and at most `burst` at once. `per_s` infinite: no limit."""

    per_s: float
    burst: int


NO_LIMIT = Rate(math.inf, 1)
DEFAULT_ACTION = "default"
# As documented, for each pair of action and App or Machine ID (docs: working-with-machines-api).
DOCUMENTED_RATES: Mapping[str, Rate] = {
    DEFAULT_ACTION: Rate(1.0, 3),
    "get_machine": Rate(5.0, 10),
    "delete_app": Rate(100 / 60, 100),
}


@dataclass(slots=True)
class TokenBucket:
    """Lets requests through at a rate, and slower after each refusal (429) until accepted ones bring it back."""

    rate: Rate
    _tokens: float = field(init=False)
    _at_s: float | None = field(init=False, default=None)
    _factor: float = field(init=False, default=1.0)
    _closed_until_s: float = field(init=False, default=-math.inf)
    _is_fresh: bool = field(init=False, default=True)  # it was full, and nobody has waited since

    def __post_init__(self) -> None:
        self._tokens = float(self.rate.burst)

    def take(self, now_s: float) -> float:
        """0: a token was taken. Otherwise none was, and this many seconds have to pass before asking again."""
        self._refill(now_s)
        if now_s < self._closed_until_s - _EPSILON:
            return self._closed_until_s - now_s
        if math.isinf(self.rate.per_s):
            return 0.0
        needed = 1.0 if self._is_fresh else 1.0 + self._slack
        if self._tokens >= needed - _EPSILON:
            self._tokens = max(0.0, self._tokens - 1.0)
            return 0.0
        self._is_fresh = False
        return (1.0 + self._slack - self._tokens) / self._per_s

    def refused(self, now_s: float, retry_after_s: float) -> None:
        """The server sent 429: whoever waits here waits longer, all together."""
        self._refill(now_s)
        if now_s >= self._closed_until_s:  # refusals of one burst count once
            self._factor = max(_FACTOR_MIN, self._factor / 2)
        self._tokens, self._is_fresh = 1.0 + self._slack, False  # when it opens again one goes first, and tells
        self._closed_until_s = max(self._closed_until_s, now_s + max(retry_after_s, 1 / self._per_s))

    def accepted(self) -> None:
        """The server took a request: a bit faster again."""
        self._factor = min(1.0, self._factor + _FACTOR_STEP)

    def is_full(self, now_s: float) -> bool:
        """Whether it remembers nothing."""
        self._refill(now_s)
        return self._tokens >= self.rate.burst and self._factor >= 1.0 and now_s >= self._closed_until_s

    @property
    def _per_s(self) -> float:
        return self.rate.per_s * self._factor

    @property
    def _slack(self) -> float:
        return min(0.5, _SLACK_S * self.rate.per_s)

    def _refill(self, now_s: float) -> None:
        since_s = 0.0 if self._at_s is None else max(0.0, now_s - max(self._at_s, self._closed_until_s))
        self._at_s = now_s
        if since_s and not math.isinf(self.rate.per_s):
            most = max(float(self.rate.burst), 1.0 + self._slack)
            self._tokens = min(most, self._tokens + since_s * self._per_s)
            self._is_fresh = self._is_fresh or self._tokens >= self.rate.burst >= most


class Buckets:
    """One bucket per (action, identifier)."""

    def __init__(self, rates: Mapping[str, Rate] | None) -> None:
        """`rates` by action, "default" for those not named; None: no limits of ours, the server's 429 still count."""
        self._rates = {DEFAULT_ACTION: NO_LIMIT} if rates is None else {**DOCUMENTED_RATES, **rates}
        self._buckets: dict[tuple[str, str], TokenBucket] = {}

    def bucket(self, action: str, identifier: str, now_s: float) -> TokenBucket:
        """The bucket that all callers share."""
        key = (action, identifier)
        if key not in self._buckets:
            if len(self._buckets) >= _BUCKETS_MAX:
                self._buckets = {key: each for key, each in self._buckets.items() if not each.is_full(now_s)}
            self._buckets[key] = TokenBucket(self._rates.get(action, self._rates[DEFAULT_ACTION]))
        return self._buckets[key]


def pause_before_retry(
    tries: int, *, now_s: float, deadline_s: float, retry_after_s: float, random: float
) -> float | None:
    """Seconds until the next try after `tries` failed ones; None: it would come after the deadline, so give up.

    `random` in [0, 1) spreads callers that failed together; what the server asked for is a minimum.
    """
    most_s = min(_PAUSE_MAX_S, _PAUSE_FIRST_S * 2.0 ** min(tries, 30))
    pause_s = retry_after_s + most_s * (0.5 + random / 2)
    return pause_s if now_s + pause_s < deadline_s else None


def parse_retry_after(text: str | None, unix_now_s: float) -> float:
    """Seconds from a Retry-After header: a number of them, or a date. 0 where it says nothing that can be read."""
    if not text:
        return 0.0
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - unix_now_s
        except ValueError:
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
