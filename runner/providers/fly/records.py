"""The API's machines as the provider's records, and its events in words."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterable

from runner.ids import MachineId
from runner.providers.base import MachineState, ProviderMachine
from runner.providers.fly.model import Event, ExitEvent, Machine

# Tags in a machine's metadata.
CLUSTER_TAG, MACHINE_TAG, POOL_TAG, HOST_TAG = "runner_cluster", "runner_machine", "runner_pool", "runner_host"

# States in which no process of the machine runs any more, and none will without a call of ours.
GONE_STATES = frozenset({"destroyed", "replaced", "migrated"})
DEAD_STATES = GONE_STATES | {"stopped", "failed", "launch_failed", "destroying"}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_OF_A_NAME = re.compile(r"[^A-Za-z0-9_-]")
_STATES = {
    **dict.fromkeys(("created", "creating", "starting"), MachineState.CREATING),
    **dict.fromkeys(("started", "restarting", "updating", "replacing", "stopping", "suspending"), MachineState.RUNNING),
    **dict.fromkeys(("stopped", "failed", "launch_failed", "destroying"), MachineState.STOPPED),
    **dict.fromkeys(GONE_STATES, MachineState.DESTROYED),
    "suspended": MachineState.SUSPENDED,
}


def machine_name(cluster_id: str, name: MachineId) -> str:
    """Its name at Fly, where names are unique in an app that several clusters may share."""
    return f"runner-{cluster_id}-{name}"


def to_record(machine: Machine) -> ProviderMachine:
    """As the coordinator sees it. A state that is not known counts as running: it may cost money."""
    tag = machine.config.metadata.get(MACHINE_TAG, "")
    # Whoever may create machines in the app may tag them; the name is a file's as well.
    name = MachineId(tag if _NAME.fullmatch(tag) else _NOT_OF_A_NAME.sub("_", machine.name or machine.id))
    guest = machine.config.child("guest")
    kind, cpus = guest.get("cpu_kind"), guest.get("cpus")
    return ProviderMachine(
        name=name,
        provider_machine_id=machine.id,
        state=_STATES.get(machine.state, MachineState.RUNNING),
        created_unix_s=machine.created_unix_s,
        detail=f"{machine.id} is {machine.state}"
        + ("" if machine.host_status == "ok" else "; its host does not answer"),
        phases=phases(machine),
        region=machine.region,
        size=f"shared-cpu-{cpus}x" if kind == "shared" else f"{kind}-{cpus}x" if kind else "",
    )


def phases(machine: Machine) -> dict[str, float]:
    """When (unix seconds) its boot got where, as far as its events tell."""
    found = {"created": machine.created_unix_s} if machine.created_unix_s else {}
    for event in reversed(machine.events):  # the first word counts
        if "pulled" in f"{event.type} {event.status}":
            found.setdefault("image pulled", event.unix_s)
        if event.type == "start" and event.status == "started":
            found.setdefault("started", event.unix_s)
    return found


def describe_end(machine: Machine | None) -> str:
    """Why a machine ended, in words."""
    if machine is None:
        return "the machine is gone; Fly keeps no event that says why"
    exits = [event.exit for event in machine.events if event.exit is not None]
    if exits:
        return f"its main process {describe_exit(exits[0])}"
    if machine.host_status != "ok":
        return f"the machine is {machine.state}; its host does not answer"
    latest = f"; the last event is: {describe_event(machine.events[0])}" if machine.events else ""
    return f"the machine is {machine.state}{latest}"


def describe_exit(end: ExitEvent) -> str:
    """As `exited with code 1` or `was killed by signal 9 (SIGKILL)`."""
    if end.is_oom:
        return "was killed because the machine ran out of memory (oom_killed)"
    if end.signal:
        return f"was killed by signal {end.signal}{_signal_name(end.signal)}"
    if end.code is None:
        return "ended; its exit code is not known"
    if 128 < end.code < 160:
        return f"exited with code {end.code}, as by signal {end.code - 128}{_signal_name(end.code - 128)}"
    return f"exited with code {end.code}"


def describe_event(event: Event) -> str:
    """One line, with its time (UTC)."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(event.unix_s))
    line = f"{when} fly: {event.type or 'event'} {event.status}".rstrip()
    return line if event.exit is None else f"{line}: main process {describe_exit(event.exit)}"


def oldest_first(events: Iterable[Event]) -> list[Event]:
    """The order of a log."""
    return sorted(events, key=lambda event: event.unix_s)


def _signal_name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
