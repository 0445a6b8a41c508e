"""Histories of runs as `runner.stream` tells them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LEARNING_RATES = (5e-6, 1e-4, 3e-4, 2e-3)
PHASES = {"requested": 0.0, "created": 0.01, "started": 0.02, "agent_up": 0.1, "registered": 0.31}


@dataclass(frozen=True)
class Event:
    kind: str
    time_s: float
    task_id: str = ""
    name: str = ""
    attempt: int = 1
    step: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    state: str = ""
    machine_id: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""
    lines_dropped: int = 0


def name_of(index: int) -> str:
    lr = f"lr={LEARNING_RATES[index % 4]:g}"
    return lr if index < 4 else f"{lr} seed={index // 4}"


def booting(count: int, at_s: float = 1000.0) -> list[Event]:
    """`count` machines from booting to ready."""
    names = [f"m-{index:04x}" for index in range(count)]
    early = {name: PHASES[name] for name in ("requested", "created")}
    return [
        *(Event("machine", at_s, machine_id=name, state="BOOTING", phases=early) for name in names),
        *(Event("machine", at_s + 0.31, machine_id=name, state="READY", phases=PHASES) for name in names),
    ]


def queued(count: int, at_s: float = 1000.0) -> list[Event]:
    return [Event("state", at_s, f"t{index}", name_of(index), state="QUEUED") for index in range(count)]


def started(index: int, at_s: float = 1000.5) -> list[Event]:
    machine = f"m-{index:04x}"
    return [
        Event("state", at_s, f"t{index}", state="RUNNING", machine_id=machine),
        Event("attempt", at_s, f"t{index}", attempt=1, step=-1, machine_id=machine),
    ]


def half_epochs(index: int, count: int, at_s: float = 1001.0) -> list[Event]:
    """Reports every half epoch; accuracy at whole ones. The fourth run's loss becomes NaN after two epochs."""
    events = []
    for half in range(1, count + 1):
        loss = 0.7 - 0.04 * half * (index % 4)
        if index % 4 == 3:
            loss = math.nan if half > 4 else 0.7 + 0.1 * half
        values: dict[str, Any] = {"epoch": half / 2, "loss": loss}
        if half % 2 == 0:
            values["accuracy"] = 0.5 + 0.03 * half * (index % 4) / 3
        events.append(Event("metrics", at_s + 5 * half, f"t{index}", step=math.ceil(half / 2), values=values))
    return events


def settled(index: int, state: str, at_s: float = 1040.0, failure: str = "") -> Event:
    return Event("state", at_s, f"t{index}", state=state, failure=failure)


def four_running(halves: int = 5) -> list[Event]:
    events = queued(4) + booting(4)
    for index in range(4):
        text = f"loading weights [bold]{index}[/bold]\t" + "." * 40 * index
        events += [*started(index), Event("log", 1000.8, f"t{index}", text=text), *half_epochs(index, halves)]
    return events


def many(runs: int = 64, machines: int = 16) -> list[Event]:
    """Some done, one failed, as many running as there are machines, the rest queued."""
    events = queued(runs) + booting(machines)
    for index in range(machines + 9):
        events += [*started(index), *half_epochs(index, 6 if index < 9 else 3)]
    events += [settled(index, "SUCCEEDED") for index in range(8)]
    return [*events, settled(8, "FAILED", failure="ValueError: no")]
