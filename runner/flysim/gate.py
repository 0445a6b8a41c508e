"""What every call passes before it does anything: the cloud is up, the token is good, the rate is kept, luck holds."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from runner.flysim.answers import ApiError, app_not_found
from runner.flysim.calls import Call
from runner.flysim.cloud import Cloud

_ERRORS = ((500, "internal server error"), (502, "bad gateway"), (503, "service unavailable"), (504, "gateway timeout"))
_SCHEMES = ("Bearer ", "FlyV1 ")


class CutError(Exception):
    """The connection is to be cut without an answer. [1.3 retryable]"""


class Loss(enum.Enum):
    """How the reply to a change that was made gets lost. [0.4, 1.3 retryable]"""

    NONE = "none"
    CUT = "cut"
    TIMEOUT = "408"


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at_s: float


class Limits:
    """Token buckets: one per action and app or machine. [0.2]"""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def take(self, cloud: Cloud, action: str, identifier: str) -> float:
        """0 when the call may go on, else the seconds until it may. [0.2]"""
        rate, burst = rate_of(cloud, action)
        bucket = self._buckets.setdefault((action, identifier), _Bucket(burst, cloud.now_s))
        bucket.tokens = min(burst, bucket.tokens + (cloud.now_s - bucket.at_s) * rate)
        bucket.at_s = cloud.now_s
        if bucket.tokens < 1 - 1e-9:
            return (1 - bucket.tokens) / rate
        bucket.tokens -= 1
        return 0.0


def rate_of(cloud: Cloud, action: str) -> tuple[float, float]:
    """Calls per second and burst: one a second, three at once; getting a machine five and ten; app deletions 100 a minute. [0.2]"""
    settings = cloud.settings
    if action == "getMachine":
        return settings.gets_per_s, settings.gets_burst
    if action == "deleteApp":
        return settings.app_deletions_per_min / 60, settings.app_deletions_per_min
    return settings.actions_per_s, settings.actions_burst


def enter(cloud: Cloud, limits: Limits, action: str, call: Call) -> None:
    """Refuse the call, or let it go on. In this order: up, token, app, rate, errors. [1.1, 0.2, 1.3]"""
    if cloud.now_s < cloud.is_down_until_s:
        raise CutError("the provider is down")
    check_token(cloud, call)
    check_app(cloud, call)
    check_rate(cloud, limits, action, call)
    if cloud.dice.strikes("lost_request", cloud.settings.lost_request_rate):
        raise CutError("the request is lost")
    if cloud.dice.strikes("error", cloud.settings.error_rate):
        status, text = cloud.dice.stream("error_kind").choice(_ERRORS)
        raise ApiError(status, text)


def check_token(cloud: Cloud, call: Call) -> None:
    """401 without a token that we know; 403 for one that has expired (the split is inferred). [1.1 token, 1.3 codes]"""
    value = call.headers.get("authorization", "")
    for scheme in _SCHEMES:
        value = value.removeprefix(scheme)
    token = cloud.tokens.get(value)
    if token is None:
        raise ApiError(401, "unauthenticated: the token is missing or invalid")
    if token.is_expired:
        raise ApiError(403, "unauthorized: the token has expired")
    if token.app and call.path.get("app_name", token.app) != token.app:
        raise ApiError(403, f"unauthorized: the token is for app {token.app!r} alone")
    call.org = token.org


def check_app(cloud: Cloud, call: Call) -> None:
    """404 for an app that is not there, 403 for one of another organisation: names are global. [1.2 apps]"""
    name = call.path.get("app_name")
    if name is None:
        return
    app = cloud.apps.get(name)
    if app is None:
        raise app_not_found(name)
    if app.org != call.org:
        raise ApiError(403, f"unauthorized: the token has no access to app {name!r}")


def check_rate(cloud: Cloud, limits: Limits, action: str, call: Call) -> None:
    """429 above the rate, with Retry-After where the settings want it. [0.2, 1.3 retryable]"""
    if not cloud.settings.rate_limit:
        return
    identifier = call.path.get("machine_id") or call.path.get("app_name") or call.org
    wait_s = limits.take(cloud, action, "" if action == "deleteApp" else identifier)
    if wait_s > 0:
        headers = {"Retry-After": str(math.ceil(wait_s))} if cloud.settings.retry_after else {}
        raise ApiError(429, f"rate limit exceeded for {action}", headers=headers)


def loss_of_reply(cloud: Cloud, *, is_change: bool) -> Loss:
    """Whether the caller will not hear of a change that was made: the connection is cut, or it gets a 408. [0.4, 1.3 retryable]"""
    if not is_change:
        return Loss.NONE
    if cloud.drop_next:
        how = cloud.drop_next.pop(0)
    elif cloud.dice.strikes("lost_reply", cloud.settings.lost_reply_rate):
        how = cloud.settings.lost_reply_as
    else:
        return Loss.NONE
    if how == "mixed":
        how = cloud.dice.stream("lost_reply_as").choice(("cut", "408"))
    return Loss(how)
