"""Everything about the simulated cloud that can be turned: one record, with the documented values as defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Any

from runner.errors import BadOptionsError


@dataclass(frozen=True, slots=True)
class Delay:
    """A log-normal duration: half of all draws are below `median_s`; `spread` is the deviation of its logarithm, 0: always the same."""

    median_s: float
    spread: float = 0.0

    def draw(self, numbers: Random) -> float:
        """Seconds."""
        return self.median_s * math.exp(numbers.gauss(0.0, self.spread)) if self.spread else self.median_s

    @classmethod
    def parse(cls, text: str) -> Delay:
        """`0.3` or `0.3~0.5` (median in seconds, spread).

        Raises:
            BadOptionsError: something else, or below zero.
        """
        median, _, spread = text.partition("~")
        try:
            delay = cls(float(median), float(spread or 0.0))
        except ValueError:
            delay = cls(-1.0)
        if not (0 <= delay.median_s < math.inf and 0 <= delay.spread < math.inf):
            raise BadOptionsError(f"{text!r} is no delay; expected seconds, or median~spread such as 0.3~0.5")
        return delay


@dataclass(frozen=True, slots=True)
class Region:
    """One region: room for `capacity` machines, spread evenly over `hosts` hosts."""

    code: str
    capacity: int = 256
    hosts: int = 4
    host_memory_mb: int = 1 << 20


@dataclass(frozen=True, slots=True)
class SimSettings:
    """How the cloud behaves. Rates are chances in [0, 1] per call or machine; delays are drawn from `seed`."""

    seed: int = 0
    org: str = "personal"
    token: str = ""  # empty: made from the seed
    regions: tuple[Region, ...] = (Region("iad"), Region("ord"), Region("fra"))
    # What `image` may be: shell patterns. There is no registry behind the simulator.
    images: tuple[str, ...] = ("registry.fly.io/*", "runner-worker*", "docker-hub-mirror.fly.io/*")
    # "loopback": addresses of this computer, 127.x.y.z, so that machines reach each other; "6pn": as on Fly, and nobody is there.
    private_ips: str = "loopback"
    missing_image_at: str = "create"  # or "launch": accepted, and the machine fails to launch

    # ---- rate limits: calls per second and burst, per action and app or machine ----
    rate_limit: bool = True
    actions_per_s: float = 1.0
    actions_burst: int = 3
    gets_per_s: float = 5.0
    gets_burst: int = 10
    app_deletions_per_min: float = 100.0
    retry_after: bool = False  # whether a 429 says how long to wait; nothing published says so

    # ---- delays ----
    api_delay: Delay = Delay(0.01, 0.3)  # of each call
    create_delay: Delay = Delay(0.4, 0.4)  # of the create call
    pull_cold_delay: Delay = Delay(4.0, 0.3)  # the first machine with this image on its host
    pull_warm_delay: Delay = Delay(0.1, 0.3)
    start_delay: Delay = Delay(0.3, 0.3)
    stop_delay: Delay = Delay(0.05)
    suspend_delay: Delay = Delay(1.0, 0.5)
    resume_delay: Delay = Delay(0.3, 0.3)
    update_delay: Delay = Delay(0.5, 0.3)
    destroy_delay: Delay = Delay(0.2, 0.3)
    visible_delay: Delay = Delay(0.2, 0.5)  # from the create call until get, wait and list know the machine
    destroyed_visible_s: float = 5.0  # a destroyed machine is shown this long
    suspend_crowding: float = 0.25  # by which share a suspend takes longer for each other one under way on its host
    stop_timeout_s: float = 5.0  # from the signal to SIGKILL where the machine does not say
    lease_ttl_s: float = 3600.0  # where the request does not say

    # ---- capacity ----
    capacity_face: str = "412"  # "409", "403", or "mixed": how a full region answers a create
    machines_quota: int = 0  # of the organisation; 0: none

    # ---- faults ----
    error_rate: float = 0.0  # a call gets a 5xx and does nothing
    lost_request_rate: float = 0.0  # the connection is cut, and nothing was done
    lost_reply_rate: float = 0.0  # a change is made, and the caller does not hear it
    lost_reply_as: str = "cut"  # "408", or "mixed"
    launch_failure_rate: float = 0.0
    cold_resume_rate: float = 0.0  # a resume finds its snapshot lost
    stuck_rate: float = 0.0  # a start hangs until the stuck threshold

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise BadOptionsError(
                    f"{name} of the simulator is {getattr(self, name)!r}; expected one of: {', '.join(choices)}"
                )
        if self.suspend_crowding < 0:
            raise BadOptionsError(f"suspend_crowding of the simulator is {self.suspend_crowding}; expected 0 or more")
        for each in fields(self):
            if each.name.endswith("_rate") and not 0 <= getattr(self, each.name) <= 1:
                raise BadOptionsError(f"{each.name} of the simulator is {getattr(self, each.name)}; expected 0 to 1")

    def to_dict(self) -> dict[str, Any]:
        """A map that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, packed: Mapping[str, Any]) -> SimSettings:
        """The inverse of `to_dict`.

        Raises:
            BadOptionsError: an unknown name or a bad value.
        """
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(packed) - known):
            raise BadOptionsError(f"the simulator has no setting {', '.join(unknown)}")
        values = dict(packed)
        for name, value in values.items():
            if name.endswith("_delay") and isinstance(value, Mapping):
                values[name] = Delay(**value)
        if "regions" in values:
            values["regions"] = tuple(
                Region(**each) if isinstance(each, Mapping) else each for each in values["regions"]
            )
        if "images" in values:
            values["images"] = tuple(values["images"])
        return cls(**values)


_CHOICES = {
    "private_ips": ("loopback", "6pn"),
    "missing_image_at": ("create", "launch"),
    "capacity_face": ("412", "409", "403", "mixed"),
    "lost_reply_as": ("cut", "408", "mixed"),
}


class Dice:
    """All chance of one cloud. Each purpose has its own stream, so that one more draw here changes nothing there."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._streams: dict[str, Random] = {}

    def stream(self, label: str) -> Random:
        """The numbers for one purpose, to go on with."""
        if label not in self._streams:
            self._streams[label] = Random(f"{self._seed}/{label}")
        return self._streams[label]

    def strikes(self, label: str, rate: float) -> bool:
        """Whether it happens this time."""
        return rate > 0 and self.stream(label).random() < rate

    def hex(self, label: str, digits: int) -> str:
        """That many hexadecimal digits."""
        return f"{self.stream(label).getrandbits(4 * digits):0{digits}x}"
