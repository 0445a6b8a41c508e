"""What the API says: answers, and errors in the form that Fly's have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNKNOWN = "unknown"
NO_CAPACITY = "insufficient_capacity"
NAME_TAKEN = "name_taken"


@dataclass(slots=True)
class Answer:
    """One reply; `after_s` is how long the call takes before it comes."""

    status: int
    body: Any = None  # None: no content
    headers: Mapping[str, str] = field(default_factory=dict)
    after_s: float = 0.0


class ApiError(Exception):
    """An error answer: `{"error": text, "status": code}`. [1.3 body]"""

    def __init__(self, status: int, text: str, code: str = UNKNOWN, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text
        self.code = code
        self.headers = headers or {}

    def answer(self) -> Answer:
        """The answer that says so. [1.3 body]"""
        return Answer(self.status, {"error": self.text, "status": self.code}, self.headers)


OK = {"ok": True}


def machine_not_found() -> ApiError:
    """404 of a machine that is not there, or not visible yet. [0.5, 1.5 states]"""
    return ApiError(404, "machine not found")


def app_not_found(name: str) -> ApiError:
    """404 of an app. [1.3 codes]"""
    return ApiError(404, f"App not found: {name}")


def bad_request(reason: str) -> ApiError:
    """400 for what the request's own words make impossible. [1.2 wait: `invalid_argument`; 1.3 codes]"""
    return ApiError(400, f"invalid_argument: {reason}")
