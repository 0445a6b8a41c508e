"""`kill -9` in the middle of a boot: a plan over who dies and when, on any ground, and how long until nothing is left."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import runner
from tests.chaos.grounds import MARK, Ground, Seen, processes_of

_POLL_S = 0.01
_LIMIT_S = 150.0  # for a phase to come
_QUIET_S = 1.5  # for which nothing may turn up again
# Agents of these scenes find out soon that nobody answers.
SETTINGS = {"heartbeat_s": 0.5, "lost_after_s": 4.0, "destroy_after_s": 6.0}


class Phase(enum.Enum):
    """When it happens."""

    BEFORE_CREATE = "before the first create"
    CREATING = "during the creates"
    CREATED = "all created"
    REGISTERING = "some registered"
    REGISTERED = "all registered"
    RUNNING = "the first task runs"
    GROWING = "while growing"
    ENDING = "while shutting down"


class Victim(enum.Enum):
    """Who dies."""

    CLIENT = "client"
    COORDINATOR = "coordinator"
    BOTH = "client and coordinator"
    ALL = "client, coordinator and who clears up after them"


@dataclass(frozen=True, slots=True)
class Scene:
    """One kill. `machines` are booted; how many of them are there when it happens comes from `seed`."""

    phase: Phase
    victim: Victim
    machines: int
    seed: int

    @property
    def some(self) -> int:
        """k of n."""
        return random.Random(f"{self.seed}/{self.phase}/{self.victim}").randint(1, self.machines - 1)


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    ground: str
    phase: str
    victim: str
    machines: int
    there: int  # machines when it happened
    told: int  # by the client last: how many had registered
    gone_s: float = 0.0  # from the kill until the last trace of a machine
    left: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


# Boots a cluster, tells how far it is, and does what the phase needs.
CLIENT = """
import json, sys, threading, time
import runner
from runner.client.context import current_session
from runner.client.fleet_options import FleetOptions
from runner.client.streams import client_transport
from runner.rpc.gen import client_pb2

plan = json.loads(sys.argv[1])
plain = FleetOptions.to_config
FleetOptions.to_config = lambda self: {**plain(self), **plan["settings"]}  # which `init` does not offer

def say(*words):
    print(*words, flush=True)

def until_registered(wanted):
    told = 0
    while told < wanted:
        count = sum(node.is_alive for node in runner.nodes())
        if count != told:
            say("registered", count)
        told = count
        time.sleep(0.005)

@runner.remote
def hang():
    runner.report({"begun": 1})
    time.sleep(1000)

count, phase = plan["machines"], plan["phase"]
first = count // 2 if phase == "GROWING" else count
runner.init(machines=first, log_to_driver=False, timeout_s=60, **plan["init"])
if phase == "RUNNING":
    with runner.stream([hang.options(name=str(index)).remote() for index in range(count)], kinds="metrics") as events:
        next(iter(events))
        say("running", 1)
        for _ in events:
            pass
until_registered(first)
if phase == "GROWING":
    client_transport(current_session()).request(
        "AddMachines", client_pb2.AddMachinesRequest(count=count - first), client_pb2.AddMachinesReply
    )
    until_registered(count)
if phase == "ENDING":
    say("ending", 1)
    runner.shutdown()
time.sleep(1000)
"""


class Client:
    """The process that boots the cluster, and what is seen of it."""

    def __init__(self, ground: Ground, scene: Scene, home: Path) -> None:
        self.mark = uuid.uuid4().hex
        self._ground = ground
        plan = {
            "init": ground.init_options(scene.machines),
            "settings": SETTINGS,
            "machines": scene.machines,
            "phase": scene.phase.name,
        }
        folder = str(Path(runner.__file__).parents[1])
        environment = {**os.environ, **ground.environment(), MARK: self.mark, "RUNNER_HOME": str(home)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, json.dumps(plan)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment,
        )
        self._said: dict[str, int] = {}
        self._buffer = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self, word: str) -> int:
        """The last number that it told with this word; 0 before."""
        out = self._process.stdout
        assert out is not None
        while select.select([out], [], [], 0)[0]:
            chunk = os.read(out.fileno(), 65536)
            if not chunk:
                break
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            for line in lines:
                key, number = line.decode().split()
                self._said[key] = int(number)
        return self._said.get(word, 0)

    def assert_alive(self) -> None:
        if self._process.poll() is not None:
            assert self._process.stderr is not None
            raise AssertionError(f"the client ended too early: {self._process.stderr.read().decode()[-3000:]}")

    def processes(self) -> list[Seen]:
        return processes_of(self.mark)

    def coordinator(self) -> int:
        """Its pid; 0 while there is none."""
        children = [each for each in self.processes() if each.parent == self.pid and "--config-fd" in each.command]
        return children[0].pid if children else 0

    def keeper(self, coordinator: int) -> int:
        """Who ends machines when their coordinator is killed: the guard, or what forked them. Its pid; 0 while there is none."""
        found = [each for each in self.processes() if each.parent == coordinator]
        return next((each.pid for each in found if each.is_guard == self._ground.is_apart), 0)

    def left_over(self) -> list[str]:
        """All that its cluster is made of, but for a guard: that one stays for a while to see late machines."""
        processes = [each for each in self.processes() if each.pid != self.pid and not each.is_guard]
        return [*self._ground.machines_left(self.mark), *(f"process {each.pid}: {each.command}" for each in processes)]

    def close(self) -> None:
        """Kill what is left of the client itself, and a guard that still looks for late machines."""
        self._process.kill()
        self._process.communicate()
        for each in self.processes():
            if each.is_guard:
                _kill(each.pid)


def strike(ground: Ground, scene: Scene, home: Path) -> Outcome:
    """Boot, wait for the phase, kill, and wait until nothing has been there for a moment.

    Raises:
        AssertionError: the phase did not come, or something was left after the ground's time.
    """
    client = Client(ground, scene, home)
    try:
        coordinator = _await_phase(ground, scene, client)
        dying = {
            Victim.CLIENT: (client.pid,),
            Victim.COORDINATOR: (coordinator,),
            Victim.BOTH: (client.pid, coordinator),
            Victim.ALL: (client.keeper(coordinator), client.pid, coordinator),
        }[scene.victim]
        there, told = ground.machines(client.mark), client.said("registered")
        struck_s = time.monotonic()
        _kill(*dying)
        limit_s = ground.gone_within_s
        if scene.victim is Victim.ALL and ground.is_apart:
            limit_s += SETTINGS["destroy_after_s"]
        gone_s, left = _await_none(client, struck_s, limit_s)
    finally:
        client.close()
    outcome = Outcome(ground.name, scene.phase.value, scene.victim.value, scene.machines, there, told, gone_s, left)
    print(json.dumps(outcome.to_dict()), flush=True)
    assert not left, f"{scene}: {limit_s:g} s after the kill there is still: {'; '.join(left[:20])}"
    return outcome


def _await_none(client: Client, struck_s: float, limit_s: float) -> tuple[float, list[str]]:
    """Wait until nothing has been there for a moment: when it was gone, since the kill; or what is left at the limit."""
    gone_s = 0.0
    while True:
        left = client.left_over()
        now_s = time.monotonic() - struck_s
        if left:
            gone_s = now_s
        if now_s > (limit_s if left else gone_s + _QUIET_S):
            return round(gone_s, 2), left
        time.sleep(_POLL_S)


def _await_phase(ground: Ground, scene: Scene, client: Client) -> int:
    """The coordinator's pid, when the phase has come."""
    deadline_s = time.monotonic() + _LIMIT_S
    coordinator = 0
    while True:
        assert time.monotonic() < deadline_s, f"{scene}: the phase did not come within {_LIMIT_S:g} s"
        client.assert_alive()
        coordinator = coordinator or client.coordinator()
        if coordinator and _has_come(ground, scene, client, coordinator):
            return coordinator
        time.sleep(_POLL_S / 2)


def _has_come(ground: Ground, scene: Scene, client: Client, coordinator: int) -> bool:
    count, some = scene.machines, scene.some
    if scene.phase is Phase.BEFORE_CREATE:
        return scene.victim is not Victim.ALL or bool(client.keeper(coordinator))
    if scene.phase is Phase.REGISTERING:
        return client.said("registered") >= some
    if scene.phase is Phase.REGISTERED:
        return client.said("registered") >= count
    if scene.phase is Phase.RUNNING:
        return client.said("running") > 0
    if scene.phase is Phase.ENDING:
        return client.said("ending") > 0 and ground.machines(client.mark) < count
    wanted = {Phase.CREATING: some, Phase.CREATED: count, Phase.GROWING: count // 2 + max(1, some // 2)}[scene.phase]
    return ground.machines(client.mark) >= wanted


def _kill(*pids: int) -> None:
    for pid in filter(None, pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
