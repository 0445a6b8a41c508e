"""Where boots are interrupted: each provider seen from outside, by its own word and by the processes that there are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from runner.flysim import FlySim
from runner.flysim.settings import Delay

MARK = "RUNNER_KILL_SCENE"  # in the environment of a scene's client, and so of all that it starts


@dataclass(frozen=True, slots=True)
class Seen:
    """One process of a scene."""

    pid: int
    parent: int
    command: tuple[str, ...]

    @property
    def is_machine(self) -> bool:
        return self.command[0] == "runner-machine"

    @property
    def is_guard(self) -> bool:
        return "runner.coordinator.guard" in self.command


def processes_of(scene: str) -> list[Seen]:
    """Every live process that carries the scene's mark."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            if f"{MARK}={scene}".encode() not in _read(name, "environ").split(b"\0"):
                continue
            state, parent = _read(name, "stat").rpartition(b")")[2].split()[:2]
            command = tuple(part.decode(errors="replace") for part in _read(name, "cmdline").split(b"\0"))
        except OSError:
            continue
        if state not in (b"Z", b"X") and command:
            found.append(Seen(int(name), int(parent), command))
    return found


class Ground(Protocol):
    """One provider. A ground serves one scene after the other, each from none to none."""

    name: str
    gone_within_s: float  # from the kill until nothing of a machine is left, with somebody alive who clears up
    # Whether machines are other than this computer's processes, so that a guard watches over their coordinator.
    is_apart: bool

    def init_options(self, machines: int) -> dict[str, Any]:
        """Keywords of `runner.init`, without the number of machines."""

    def environment(self) -> Mapping[str, str]:
        """For the client."""

    def machines(self, scene: str) -> int:
        """How many there are now, whatever their state, by the provider's own word."""

    def machines_left(self, scene: str) -> list[str]:
        """Machines that are left, one line for each; processes that carry the scene's mark need not be among them."""


class LocalGround:
    """Machines are sessions of processes."""

    name = "local"
    gone_within_s = 10.0
    is_apart = False

    def init_options(self, machines: int) -> dict[str, Any]:
        return {"num_cpus": 1}

    def environment(self) -> Mapping[str, str]:
        return {}

    def machines(self, scene: str) -> int:
        seen = [each for each in processes_of(scene) if each.is_machine]
        agents = {each.pid for each in seen}
        return sum(each.parent not in agents for each in seen)  # a template is a fork of its agent

    def machines_left(self, scene: str) -> list[str]:
        return []  # they are processes with the mark


class FlyGround:
    """Machines are agents in the simulator of Fly's API."""

    name = "fly"
    gone_within_s = 20.0
    is_apart = True

    def __init__(self, sim: FlySim, *, is_limited: bool) -> None:
        self._sim = sim
        self._is_limited = is_limited
        self.name = "fly, rate limit" if is_limited else "fly"

    def init_options(self, machines: int) -> dict[str, Any]:
        options = {
            "app": "kills",
            "org": "personal",
            "base_url": self._sim.url,
            "token": self._sim.token,
            "poll_s": 1.0,
        }
        if not self._is_limited:
            options["rates"] = False
        return {"provider": "fly", "image": "runner-worker:1", "num_cpus": 1, "provider_options": options}

    def environment(self) -> Mapping[str, str]:
        return {}

    def machines(self, scene: str) -> int:
        return len(self._there())

    def machines_left(self, scene: str) -> list[str]:
        machines = [f"machine {name}, {state}" for name, state in self._there().items()]
        return machines + [f"process {each.process.pid} of {each.machine_id}" for each in self._sim.processes()]

    def _there(self) -> dict[str, str]:
        machines = self._sim.state()["machines"].values()
        return {each["name"]: each["state"] for each in machines if each["state"] != "destroyed"}


@contextmanager
def fly_ground(seed: int, *, is_limited: bool = False) -> Iterator[FlyGround]:
    """A simulator in which a machine exists for a second before it registers."""
    delays: dict[str, Any] = {
        "api_delay": Delay(0.005, 0.3),
        "create_delay": Delay(0.1, 0.5),
        "start_delay": Delay(1.0, 0.1),
    }
    pulls: dict[str, Any] = {"pull_cold_delay": Delay(0.2), "pull_warm_delay": Delay(0.05)}
    with FlySim(seed=seed, rate_limit=is_limited, gone_within_s=15.0, **delays, **pulls) as sim:
        yield FlyGround(sim, is_limited=is_limited)


def _read(pid: str, name: str) -> bytes:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read()
