"""What `runner.stream` yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from runner.rpc.gen import client_pb2

# Names of the kinds, by their number on the wire.
KINDS: dict[int, str] = {
    client_pb2.EVENT_KIND_STATE: "state",
    client_pb2.EVENT_KIND_ATTEMPT: "attempt",
    client_pb2.EVENT_KIND_METRICS: "metrics",
    client_pb2.EVENT_KIND_LOG: "log",
    client_pb2.EVENT_KIND_LOG_GAP: "log_gap",
    client_pb2.EVENT_KIND_CHECKPOINT: "checkpoint",
    client_pb2.EVENT_KIND_MACHINE: "machine",
    client_pb2.EVENT_KIND_FLEET: "fleet",
}
# Of the cluster, not of one run.
CLUSTER_KINDS = frozenset({"machine", "fleet"})
NUMBERS = {name: number for number, name in KINDS.items()}
SETTLED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a run (or, with kind "machine", to a machine).

    Only the fields that belong to `kind` are filled: "state": state, failure; "attempt": attempt, step, machine_id;
    "metrics": step, values; "log": text, stream; "log_gap": lines_dropped; "checkpoint": step; "machine": machine_id,
    state, phases, text (why); "fleet": name of the pool, text.
    """

    seq: int  # position in the cluster's event log
    time_s: float  # unix seconds at the coordinator
    kind: str
    task_id: str = ""
    name: str = ""
    attempt: int = 0
    step: int = -1  # -1: none
    values: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""  # a log line, without its end
    stream: str = ""  # "stdout" or "stderr"
    state: str = ""
    machine_id: str = ""
    failure: str = ""  # why it failed, in words
    lines_dropped: int = 0
    phases: Mapping[str, float] = field(default_factory=dict)  # boot phase -> seconds since requested

    @property
    def resumed_from_step(self) -> int | None:
        """For "attempt": the step of the checkpoint that it goes on from, or None when it starts anew.

        What earlier attempts reported for later steps no longer counts.
        """
        return self.step if self.kind == "attempt" and self.step >= 0 else None

    @property
    def is_settled(self) -> bool:
        """Whether this is the run's end."""
        return self.kind == "state" and self.state in SETTLED


def from_wire(event: client_pb2.Event) -> Event:
    """An Event from its message."""
    kind = KINDS.get(event.kind, "unknown")
    has_step = kind in {"attempt", "metrics", "checkpoint"}
    return Event(
        seq=event.seq,
        time_s=event.time_s,
        kind=kind,
        task_id=event.task_id,
        name=event.name,
        attempt=event.attempt,
        step=event.step if has_step else -1,
        values=msgpack.unpackb(event.values) if event.values else {},
        text=event.text,
        stream=event.stream,
        state=event.state,
        machine_id=event.machine_id,
        failure=_words(event) if event.HasField("failure") else "",
        lines_dropped=event.lines_dropped,
        phases=msgpack.unpackb(event.phases) if event.phases else {},
    )


def _words(event: client_pb2.Event) -> str:
    failure = event.failure
    kind = failure.exception_type.rpartition(".")[2]
    return f"{kind}: {failure.message}" if kind else failure.message
