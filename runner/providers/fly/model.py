"""What the API sends and takes. Every record keeps its whole JSON, so that keys nobody here knows survive a round trip."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}

Json = Mapping[str, Any]


def parse_duration(value: Any) -> float:
    """Seconds from what the API writes: a string such as "1m15s", or a whole number of nanoseconds.

    Raises:
        ValueError: neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value / 1e9
    if value == "0":
        return 0.0
    if isinstance(value, str) and value:
        parts = _DURATION.findall(value)
        if "".join(number + unit for number, unit in parts) == value:
            return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    raise ValueError(f"{value!r} is no duration; expected one such as '15s', or nanoseconds")


def format_duration(seconds: float) -> str:
    """The form that goes out: "15s", "0.5s"."""
    return f"{seconds:g}s"


def parse_time(value: Any) -> float:
    """Unix seconds from an RFC 3339 time, with nanoseconds or without; 0 where there is none."""
    if not isinstance(value, str):
        return 0.0
    # fromisoformat takes at most six digits of a second.
    text = re.sub(r"(\.\d{6})\d+", r"\1", value.replace("Z", "+00:00"))
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON object as it came. Fields that are missing or of another type read as empty."""

    raw: Json = field(repr=False)

    def text(self, key: str) -> str:
        value = self.raw.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> float:
        value = self.raw.get(key)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else 0

    def flag(self, key: str) -> bool:
        return self.raw.get(key) is True

    def child(self, key: str) -> Json:
        value = self.raw.get(key)
        return value if isinstance(value, Mapping) else {}

    def children(self, key: str) -> tuple[Json, ...]:
        value = self.raw.get(key)
        return tuple(each for each in value if isinstance(each, Mapping)) if isinstance(value, list) else ()


class ExitEvent(Record):
    """How the main process of a machine ended."""

    __slots__ = ()

    @property
    def code(self) -> int | None:
        """Of the process in the guest where that is known; None where none is."""
        values = [self.raw.get("guest_exit_code"), self.raw.get("exit_code")]
        codes = [value for value in values if isinstance(value, int) and not isinstance(value, bool)]
        return next((code for code in codes if code), codes[0] if codes else None)

    @property
    def signal(self) -> int:
        """0: none (the API also writes -1)."""
        return int(max(self.number("guest_signal"), self.number("signal"), 0))

    @property
    def is_oom(self) -> bool:
        return self.flag("oom_killed")


class Event(Record):
    """Something that happened to a machine."""

    __slots__ = ()

    @property
    def type(self) -> str:
        return self.text("type")

    @property
    def status(self) -> str:
        return self.text("status")

    @property
    def unix_s(self) -> float:
        """The API counts milliseconds."""
        return self.number("timestamp") / 1000

    @property
    def exit(self) -> ExitEvent | None:
        request = self.child("request")
        monitor = request.get("MonitorEvent")
        places = [request, monitor if isinstance(monitor, Mapping) else {}]
        found = [place["exit_event"] for place in places if isinstance(place.get("exit_event"), Mapping)]
        return ExitEvent(found[0]) if found else None


class Config(Record):
    """A machine's configuration. The repr shows no environment: it holds secrets."""

    __slots__ = ()

    def changed(self, **changes: Any) -> Config:
        """The same with some keys set anew and all others kept: an update replaces the whole."""
        return Config({**self.raw, **changes})

    @property
    def image(self) -> str:
        return self.text("image")

    @property
    def metadata(self) -> Mapping[str, str]:
        return {str(key): str(value) for key, value in self.child("metadata").items()}

    @property
    def stop_timeout_s(self) -> float | None:
        """How long a stop waits between the signal and SIGKILL; None where the platform's own value holds."""
        timeout = self.child("stop_config").get("timeout")
        return None if timeout is None else parse_duration(timeout)


class Machine(Record):
    """One machine as the API sees it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Machine({self.id} {self.name!r} {self.state} in {self.region or '?'})"

    @property
    def id(self) -> str:
        return self.text("id")

    @property
    def name(self) -> str:
        return self.text("name")

    @property
    def state(self) -> str:
        return self.text("state")

    @property
    def region(self) -> str:
        return self.text("region")

    @property
    def instance_id(self) -> str:
        """Of this version of it; `wait` for `stopped` needs it."""
        return self.text("instance_id")

    @property
    def version(self) -> str:
        """What an update names as the version that it replaces."""
        return self.text("version") or self.instance_id

    @property
    def private_ip(self) -> str:
        return self.text("private_ip")

    @property
    def nonce(self) -> str:
        """Of the lease that came with its creation."""
        return self.text("nonce")

    @property
    def host_status(self) -> str:
        return self.text("host_status") or "ok"

    @property
    def is_cordoned(self) -> bool:
        return self.flag("cordoned")

    @property
    def created_unix_s(self) -> float:
        return parse_time(self.raw.get("created_at"))

    @property
    def has_config(self) -> bool:
        """False while its host does not answer: `incomplete_config` must not be sent back as the whole."""
        return isinstance(self.raw.get("config"), Mapping)

    @property
    def config(self) -> Config:
        return Config(self.child("config") or self.child("incomplete_config"))

    @property
    def events(self) -> tuple[Event, ...]:
        return newest_first(Event(each) for each in self.children("events"))


class Lease(Record):
    """The right to be the only one who changes a machine, until `expires_unix_s`."""

    __slots__ = ()

    @property
    def nonce(self) -> str:
        return self.text("nonce")

    @property
    def expires_unix_s(self) -> float:
        return self.number("expires_at")

    @property
    def owner(self) -> str:
        return self.text("owner")

    def __repr__(self) -> str:
        return f"Lease(owner={self.owner!r}, until {self.expires_unix_s:.0f})"


class App(Record):
    """An app: the name space of its machines."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return self.text("name")

    @property
    def org(self) -> str:
        """The slug of its organisation; empty where the answer does not say."""
        slug = self.child("organization").get("slug")
        return slug if isinstance(slug, str) else ""


class Volume(Record):
    """A disk on one host."""

    __slots__ = ()

    @property
    def id(self) -> str:
        return self.text("id")

    @property
    def name(self) -> str:
        return self.text("name")

    @property
    def region(self) -> str:
        return self.text("region")

    @property
    def is_free(self) -> bool:
        """Whether a new machine can mount it."""
        attached = self.raw.get("attached_machine_id") or self.raw.get("attached_alloc_id")
        host_ok = (self.text("host_status") or "ok") == "ok"
        return not attached and self.text("state") in {"", "created", "ready"} and host_ok


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command in a machine did; a command that failed is an answer, not an error."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Room in one region for machines of one size."""

    region: str
    count: int
    concurrency: int


def newest_first(events: Any) -> tuple[Event, ...]:
    """Sorted by time, whatever order they came in; those of one millisecond keep theirs."""
    return tuple(sorted(events, key=lambda event: -event.unix_s))
