"""What the Machines API's refusals mean. The body decides before the status: one code stands for many things."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from typing import Any

_TEXT_MAX = 300
_SHOWN = "[secret]"


class Kind(enum.Enum):
    """What a failed call means for the caller."""

    UNREACHABLE = "the server was not reached: nothing was done"
    INTERRUPTED = "the answer was lost: done or not is not known"
    TIMEOUT = "408: done or not is not known; of a wait: not yet"
    RATE_LIMITED = "429: too many requests"
    SERVER = "5xx: done or not is not known"
    DEADLINE = "the caller's own deadline passed"
    CAPACITY = "no room for such a machine there now"
    ALREADY_EXISTS = "the name is taken in this app; the text carries the machine's id"
    NAME_TAKEN = "the app's name is taken"
    LEASED = "somebody else holds the lease"
    REPLACING = "a new version is being put in place: wait"
    WRONG_STATE = "the machine's state does not allow it"
    STALE = "the version that the caller named is no longer the current one"
    NOT_FOUND = "no such thing, or not visible yet"
    UNAUTHORIZED = "the token is wrong or expired"
    FORBIDDEN = "the token does not allow it"
    INVALID = "the request itself is wrong"
    OTHER = "none of these"


# Seen to pass by themselves. On a call that changes something the ambiguous ones need a look first.
RETRYABLE = frozenset({Kind.UNREACHABLE, Kind.INTERRUPTED, Kind.TIMEOUT, Kind.RATE_LIMITED, Kind.SERVER})
AMBIGUOUS = frozenset({Kind.INTERRUPTED, Kind.TIMEOUT, Kind.SERVER, Kind.DEADLINE})

_CAPACITY_CODES = frozenset({"insufficient_capacity", "volume_placement_capacity"})
_CAPACITY_TEXT = re.compile(
    r"insufficient (resources|memory|cpus|ips|capacity)|could not reserve resource|no capacity|over the allowed quota",
    re.IGNORECASE,
)
_EXPIRED_TEXT = re.compile(r"token\b.*\bexpired", re.IGNORECASE)
_EXISTS_TEXT = re.compile(r"already[_ ]exists", re.IGNORECASE)
_MACHINE_ID = re.compile(r"\b[0-9a-f]{14}\b")
_LEASE_TEXT = re.compile(r"\bleased?\b", re.IGNORECASE)
_REPLACING_TEXT = re.compile(r"\b(replacing|currently replaced|updating)\b", re.IGNORECASE)
_BY_STATUS = {
    401: Kind.UNAUTHORIZED,
    403: Kind.FORBIDDEN,
    404: Kind.NOT_FOUND,
    408: Kind.TIMEOUT,
    410: Kind.NOT_FOUND,
    422: Kind.INVALID,
    400: Kind.INVALID,
    429: Kind.RATE_LIMITED,
    412: Kind.WRONG_STATE,
}


class FlyError(Exception):
    """A call to the API failed. The text holds no token."""

    def __init__(
        self,
        kind: Kind,
        text: str,
        *,
        action: str = "",
        status: int = 0,
        request_id: str = "",
        retry_after_s: float = 0.0,
        machine_id: str = "",
    ) -> None:
        """`status` 0: there was no answer. `machine_id`: the one that has the name already."""
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.action = action
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.machine_id = machine_id

    def __str__(self) -> str:
        seen = f"{self.status}: {self.text}" if self.status else self.text
        return f"{seen} (fly-request-id {self.request_id})" if self.request_id else seen


def classify(status: int, code: str, text: str) -> Kind:
    """What an answer that is no success means: by `status` field and text of the body, then by the HTTP status."""
    if status in {401, 429}:
        return _BY_STATUS[status]
    if status == 403 and _EXPIRED_TEXT.search(text):
        return Kind.UNAUTHORIZED
    if code in _CAPACITY_CODES:
        return Kind.CAPACITY
    if code == "name_taken" or "name has already been taken" in text.lower():
        return Kind.NAME_TAKEN
    if 400 <= status < 500:
        if _EXISTS_TEXT.search(text):
            return Kind.ALREADY_EXISTS
        if _CAPACITY_TEXT.search(text):
            return Kind.CAPACITY
        if status in {409, 412}:
            return _classify_conflict(status, text)
    if status >= 500:
        return Kind.SERVER
    return _BY_STATUS.get(status, Kind.OTHER)


def _classify_conflict(status: int, text: str) -> Kind:
    if _LEASE_TEXT.search(text):
        return Kind.LEASED
    if _REPLACING_TEXT.search(text):
        return Kind.REPLACING
    if "version" in text.lower():
        return Kind.STALE
    return _BY_STATUS.get(status, Kind.OTHER)


def named_machine(text: str) -> str:
    """The machine id that an `already_exists` text carries; empty when there is none."""
    found = _MACHINE_ID.search(text)
    return found[0] if found else ""


def body_texts(body: Any) -> tuple[str, str]:
    """(`status` field, text) of a decoded error body, whatever form it has."""
    if not isinstance(body, dict):
        return "", str(body or "")
    code = body.get("status")
    text = next((body[key] for key in ("error", "message") if isinstance(body.get(key), str) and body[key]), "")
    return (code if isinstance(code, str) else ""), text or "the answer says no reason"


def scrub(text: str, secrets: Iterable[str]) -> str:
    """The text on one line, cut to a length that fits a message, with every secret in it blacked out."""
    for secret in sorted((each for each in secrets if each), key=len, reverse=True):
        text = text.replace(secret, _SHOWN)
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_MAX else line[: _TEXT_MAX - 1] + "…"
