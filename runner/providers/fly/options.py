"""What `provider_options` may hold for Fly, checked without asking anybody."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from runner.config import FLY_API_TOKEN, Settings, load
from runner.errors import BadOptionsError
from runner.providers.fly.connection import Token
from runner.providers.fly.guest import CPU_KINDS, GPU_PRESETS, SIZES
from runner.providers.fly.limits import DEFAULT_ACTION, NO_LIMIT, Rate

PUBLIC_URL = "https://api.machines.dev"  # inside Fly's private network: http://_api.internal:4280
GPUS_ENDED = "Fly ended its GPU machines on 2026-08-01; providers that have GPUs are local and container"
_APP_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_REGIONS = re.compile(r"[a-z]{2,}(,[a-z]{2,})*")
_OWN_VARIABLES = ("RUNNER_", "FLY_")


@dataclass(frozen=True, slots=True)
class CacheVolume:
    """A disk that each machine mounts: a free one of this name in its region, or a new one. They outlive their machines."""

    name: str
    path: str
    size_gb: int


@dataclass(frozen=True, slots=True)
class FlyOptions:
    """How machines are booted on Fly. Times in seconds."""

    app: str
    image: str
    org: str = ""  # set: the app is created there if it does not exist
    regions: tuple[str, ...] = ()  # tried in this order where one has no room; empty: where Fly puts it
    sizes: tuple[str, ...] = ()  # tried in this order those that hold the machine; empty: the smallest that does
    cpu_kind: str = "performance"  # of the smallest
    token: Token | None = None
    base_url: str = PUBLIC_URL
    simulator: bool | None = None  # machines are on this computer; None: where base_url is this computer
    rates: Mapping[str, Rate] | None = field(default_factory=dict)  # None: no limits of ours
    env: Mapping[str, str] = field(default_factory=dict, repr=False)  # for the machines
    volume: CacheVolume | None = None
    boot_deadline_s: float = 180.0  # of one machine, from the call to `started`, with all waiting and trying again
    destroy_deadline_s: float = 60.0
    suspend_deadline_s: float = 120.0
    poll_s: float = 5.0  # between two looks for machines that ended
    lag_s: float = 10.0  # for which what was just created may be invisible
    wait_slice_s: float = 15.0  # of one wait request, after which the machine's state is looked at
    placements_from: int = 8  # machines at once, from which on the room for them is asked for first

    @property
    def is_real(self) -> bool:
        """Whether the machines are somewhere else than on this computer."""
        if self.simulator is not None:
            return not self.simulator
        return not is_loopback(urlsplit(self.base_url).hostname or "")


def parse_options(options: Mapping[str, Any], settings: Settings | None = None) -> FlyOptions:
    """Check `provider_options`; what they leave open comes from the environment (`settings`).

    Raises:
        BadOptionsError: an unknown option or a value that cannot work. No token is shown.
    """
    known = sorted(FlyOptions.__dataclass_fields__)
    if unknown := sorted(set(options) - set(known)):
        raise BadOptionsError(f"provider 'fly' has no option {', '.join(unknown)}; known are: {', '.join(known)}")
    settings = settings or load()
    values: dict[str, Any] = {**options}
    values["app"] = _app(options.get("app"))
    values["image"] = _text("image", options.get("image"), "the name of the worker image, as registry.fly.io/app:tag")
    values["base_url"] = _base_url(options.get("base_url") or settings.fly_base_url or PUBLIC_URL)
    values["regions"] = _regions(options.get("regions", ()))
    values["sizes"] = tuple(check_size(size) for size in _texts("sizes", options.get("sizes", ())))
    values["rates"] = _rates(options.get("rates", {}))
    values["env"] = _env(options.get("env", {}))
    values["volume"] = _volume(options.get("volume"))
    if options.get("cpu_kind", "performance") not in CPU_KINDS:
        raise BadOptionsError(f"cpu_kind is {options['cpu_kind']!r}; expected one of {', '.join(CPU_KINDS)}")
    for name in known:
        if name.endswith("_s") and name in options:
            values[name] = _seconds(name, options[name])
    if "placements_from" in options:
        values["placements_from"] = _count("placements_from", options["placements_from"])
    if not isinstance(options.get("simulator"), bool | None):
        raise BadOptionsError(f"simulator is {options['simulator']!r}; expected True or False")
    if "org" in options:
        values["org"] = _text("org", options["org"], "the slug of an organisation")
    made = FlyOptions(**{**values, "token": _token(options.get("token") or settings.fly_token)})
    if made.is_real and not made.token:
        raise BadOptionsError(
            f"there is no token for Fly; set {FLY_API_TOKEN} or provider_options={{'token': ...}} "
            f"(make one with: fly tokens create org)"
        )
    if made.volume is not None and not made.regions:
        raise BadOptionsError("a volume lives in one region; name regions=[...] beside volume={...}")
    if made.volume is not None and (lists := [region for region in made.regions if "," in region]):
        raise BadOptionsError(f"a volume lives in one region; {lists[0]!r} names several: give them as a list")
    return made


def check_size(size: str) -> str:
    """The name of a preset.

    Raises:
        BadOptionsError: there is no such size on Fly.
    """
    if size in GPU_PRESETS:
        raise BadOptionsError(f"size {size!r} has a GPU; {GPUS_ENDED}")
    if size not in SIZES:
        raise BadOptionsError(f"size {size!r} is unknown to Fly; known are: {', '.join(SIZES)}")
    return size


def is_loopback(host: str) -> bool:
    """Whether this names only the computer itself: nobody else finds it by that."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _text(name: str, value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip() or any(mark.isspace() for mark in value.strip()):
        raise BadOptionsError(f"provider 'fly' needs {name}: {what}; it is {value!r}")
    return value.strip()


def _texts(name: str, value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or not all(isinstance(each, str) for each in values):
        raise BadOptionsError(f"{name} is {value!r}; expected a list of names")
    return tuple(values)


def _app(value: Any) -> str:
    app = _text("app", value, "the name of the app that holds its machines")
    if not _APP_NAME.fullmatch(app):
        raise BadOptionsError(f"app is {app!r}; Fly's names have lower-case letters, digits and dashes, at most 63")
    return app


def _regions(value: Any) -> tuple[str, ...]:
    regions = _texts("regions", value)
    for region in regions:
        if not _REGIONS.fullmatch(region):
            raise BadOptionsError(f"regions holds {region!r}; expected codes as 'iad', or a preference as 'iad,us'")
    return regions


def _token(value: Any) -> Token | None:
    if not value:
        return None
    token = Token(value) if isinstance(value, str) else None
    if not token or not token.is_clean:
        raise BadOptionsError("the token for Fly is no token; copy it again (it is not shown here)")
    return token


def _base_url(value: Any) -> str:
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise BadOptionsError(
            "base_url of provider 'fly' cannot be used; expected http(s)://host[:port] and no password"
        )
    if parts.query or parts.fragment:
        raise BadOptionsError("base_url of provider 'fly' has a query; expected http(s)://host[:port]")
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.scheme}://{parts.netloc}{path}"


def _rates(value: Any) -> Mapping[str, Rate] | None:
    if value is False or value is None:
        return None
    if not isinstance(value, Mapping):
        raise BadOptionsError(
            f"rates is {value!r}; expected False (no limits) or a map such as "
            f"{{{DEFAULT_ACTION!r}: (1, 3), 'get_machine': (5, 10)}}: requests a second, burst"
        )
    return {str(action): _rate(action, rate) for action, rate in value.items()}


def _rate(action: str, value: Any) -> Rate:
    if value is False or value is None:
        return NO_LIMIT
    is_pair = isinstance(value, Sequence) and len(value) == 2 and not isinstance(value, str)
    if not is_pair or not all(isinstance(each, int | float) and not isinstance(each, bool) for each in value):
        raise BadOptionsError(f"rates[{action!r}] is {value!r}; expected (requests a second, burst) or False")
    per_s, burst = float(value[0]), int(value[1])
    if not per_s > 0 or burst < 1:
        raise BadOptionsError(f"rates[{action!r}] is {value!r}; expected a rate above 0 and a burst of at least 1")
    return Rate(per_s, burst)


def _env(value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for pair in value.items() for v in pair):
        raise BadOptionsError("env of provider 'fly' cannot be used; expected a map of texts (it is not shown here)")
    if own := sorted(key for key in value if key.startswith(_OWN_VARIABLES)):
        raise BadOptionsError(f"env sets {', '.join(own)}, which runner and Fly set themselves; leave them out")
    return dict(value)


def _volume(value: Any) -> CacheVolume | None:
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"name", "path", "size_gb"}:
        raise BadOptionsError(f"volume is {value!r}; expected {{'name': ..., 'path': ..., 'size_gb': ...}}")
    name, path = _text("volume name", value["name"], "a name"), _text("volume path", value["path"], "a path")
    if not re.fullmatch(r"[a-z0-9_]{1,30}", name) or not path.startswith("/") or path == "/":
        raise BadOptionsError(
            f"volume {name!r} at {path!r} cannot work; expected a name of [a-z0-9_] and a path below /"
        )
    return CacheVolume(name, path, _count("size_gb of volume", value["size_gb"]))


def _seconds(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise BadOptionsError(f"{name} is {value!r}; expected seconds above 0")
    return float(value)


def _count(name: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadOptionsError(f"{name} is {value!r}; expected a whole number >= 1")
    return value
