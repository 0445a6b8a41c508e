"""The state of the whole cloud, with its clock, timers and chance as values: the rules work on it, nothing here does I/O."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runner.flysim.records import App, Command, Host, Machine, Volume
from runner.flysim.settings import Delay, Dice, SimSettings
from runner.flysim.states import HOLDS_PLACE, State

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(slots=True)
class Token:
    """A bearer token and what it may do."""

    org: str
    is_expired: bool = False
    app: str = ""  # of a deploy token: nothing but this app


class Cloud:
    """All that is. `now_s` is set by whoever drives it; unix time is counted from `unix_start_s` at `start_s`."""

    def __init__(self, settings: SimSettings, *, start_s: float, unix_start_s: float) -> None:
        self.settings = settings
        self.dice = Dice(settings.seed)
        self.now_s = start_s
        self._unix_offset_s = unix_start_s - start_s
        self.apps: dict[str, App] = {}
        self.machines: dict[str, Machine] = {}
        self.volumes: dict[str, Volume] = {}
        self.hosts = [host for region in settings.regions for host in _hosts_of(region)]
        self.tokens = {settings.token or f"fm2_sim{self.dice.hex('token', 32)}": Token(settings.org)}
        self.commands: list[Command] = []  # to be taken by the shell
        self.changes = 0  # rises with every change of a machine
        self.is_down_until_s = 0.0
        self.drop_next: list[str] = []  # how the next replies to changes are lost
        self._timers: list[tuple[float, int, str, int, Callable[[Cloud, Machine], None]]] = []
        self._parked: list[tuple[str, int, Callable[[Cloud, Machine], None]]] = []
        self._serial = itertools.count()

    @property
    def unix_s(self) -> float:
        return self.now_s + self._unix_offset_s

    def to_unix_s(self, at_s: float) -> float:
        return at_s + self._unix_offset_s

    def iso(self, at_s: float) -> str:
        """That moment as the API writes it."""
        return (
            datetime.fromtimestamp(self.to_unix_s(at_s), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        )

    # ---- time ----
    def later(self, machine: Machine, delay_s: float, act: Callable[[Cloud, Machine], None]) -> None:
        """Have `act` called after this long, unless the machine has changed its state by then."""
        entry = (self.now_s + delay_s, next(self._serial), machine.machine_id, machine.epoch, act)
        heapq.heappush(self._timers, entry)

    def advance(self, now_s: float) -> None:
        """Let time pass; what is due happens in order."""
        while self._timers and self._timers[0][0] <= now_s:
            due_s, _, machine_id, epoch, act = heapq.heappop(self._timers)
            self.now_s = max(self.now_s, due_s)
            machine = self.machines.get(machine_id)
            if machine is None or machine.epoch != epoch:
                continue
            if machine.host.status == "ok" or machine.state is State.DESTROYING:
                act(self, machine)
            else:  # nothing happens on a host that is gone, until it is back
                self._parked.append((machine_id, epoch, act))
        self.now_s = max(self.now_s, now_s)

    def unpark(self) -> None:
        """What was due on hosts that were gone is due now; what still is gone waits again."""
        parked, self._parked = self._parked, []
        for machine_id, epoch, act in parked:
            heapq.heappush(self._timers, (self.now_s, next(self._serial), machine_id, epoch, act))

    def next_wakeup_s(self) -> float | None:
        """When the next thing is due."""
        return self._timers[0][0] if self._timers else None

    # ---- chance ----
    def draw(self, name: str) -> float:
        """Seconds, from the delay of that name in the settings."""
        delay: Delay = getattr(self.settings, name)
        return delay.draw(self.dice.stream(name))

    def new_instance_id(self) -> str:
        """26 characters: time, then chance. [1.4 instance_id]"""
        number = (int(self.unix_s * 1000) << 80) | self.dice.stream("ulid").getrandbits(80)
        return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))

    # ---- changes ----
    def move(self, machine: Machine, to: State) -> None:
        """Change a machine's state by the table."""
        machine.move(to, self.now_s)
        self.changes += 1

    def note(self, machine: Machine, kind: str, source: str = "flyd", **request: Any) -> None:
        """An event of the machine, newest first. [1.4 event]"""
        event: dict[str, Any] = {
            "id": self.new_instance_id(),
            "type": kind,
            "status": machine.state.value,
            "source": source,
            "timestamp": int(self.unix_s * 1000),
        }
        if request:
            event["request"] = request
        machine.events.insert(0, event)
        self.changes += 1

    def tell(self, command: Command) -> None:
        self.commands.append(command)

    def take_commands(self) -> list[Command]:
        """What the processes are to be told; each once."""
        taken, self.commands = self.commands, []
        return taken

    # ---- looks ----
    def machines_of(self, app: str) -> list[Machine]:
        return [machine for machine in self.machines.values() if machine.app == app]

    def machines_on(self, host: Host) -> list[Machine]:
        """Those that hold their place there. One that had stopped or failed gets none by being destroyed."""
        return [
            each
            for each in self.machines.values()
            if each.host is host and each.state in HOLDS_PLACE and (each.state is not State.DESTROYING or each.is_alive)
        ]


def _hosts_of(region: Any) -> list[Host]:
    count = max(1, min(region.hosts, region.capacity))
    rooms = [region.capacity // count + (index < region.capacity % count) for index in range(count)]
    return [
        Host(f"{region.code}-{index + 1}", region.code, room, region.host_memory_mb) for index, room in enumerate(rooms)
    ]
