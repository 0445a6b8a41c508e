"""Machines that sleep and wake: what a client asks for, and how it waits for it."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from runner.client.cluster_info import Node
from runner.client.requests import ask
from runner.core.machine import TRANSITIONS, MachineState
from runner.errors import BadOptionsError, BadTypeError, MachineStateError, StateTimeoutError
from runner.rpc.gen import client_pb2

if TYPE_CHECKING:
    from runner.client.session import Session

STATES = {state.label: state for state in MachineState}
# Between two looks: short at first, because a resume takes a fraction of a second.
LOOK_S = 0.05
LOOK_S_MAX = 0.5
_NAMED_MAX = 5
_UP = frozenset({"booting", "ready"})

Info = client_pb2.MachineInfo
Judge = Callable[[Info], "Outlook"]
Machines = str | Node | Iterable[str | Node]


class Outlook(enum.Enum):
    """Whether a machine is where it is to be."""

    THERE = "there"
    ON_ITS_WAY = "on its way"
    NEVER = "never"


# ---- decisions ----
def reaches(state: str) -> Judge:
    """Judge by whether a machine is in this state, or can still come to it.

    Raises:
        BadOptionsError: there is no such state.
    """
    if state not in STATES:
        raise BadOptionsError(f"there is no state {state!r}; machines are {', '.join(STATES)}")
    able = {label for label, start in STATES.items() if STATES[state] in _reachable(start)}

    def judge(info: Info) -> Outlook:
        if info.state == state:
            return Outlook.THERE
        return Outlook.ON_ITS_WAY if info.state in able else Outlook.NEVER

    return judge


def _reachable(start: MachineState) -> set[MachineState]:
    found: set[MachineState] = set()
    ahead = [start]
    while ahead:
        ahead = [each for state in ahead for each in TRANSITIONS[state] if each not in found]
        found.update(ahead)
    return found


def has_slept(info: Info) -> Outlook:
    """Judge one that was told to go to sleep. Work may have woken it at once; a suspend that was called off is an end, too."""
    if info.state == "suspending":
        return Outlook.ON_ITS_WAY
    # By `wake`, not by how long: one that is wanted while it is saved has slept for 0 s.
    has_woken = info.wake in {"resumed", "cold"}
    if info.state in {"suspended", "resuming"} or (info.state in {"ready", "booting", "draining"} and has_woken):
        return Outlook.THERE
    return Outlook.NEVER


def is_back(info: Info) -> Outlook:
    """Judge one that was told to wake: from its snapshot, or cold."""
    if info.state == "ready":
        return Outlook.THERE
    if info.state in {"requested", "creating", "booting", "suspending", "suspended", "resuming"}:
        return Outlook.ON_ITS_WAY
    return Outlook.NEVER


def describe(info: Info) -> str:
    """Where a machine is, and why: "m-2 is suspending: waits for task t-7 to end"."""
    text = f"{info.machine_id} is {info.state}"
    if info.sleep:
        return f"{text}: {info.sleep}"
    reason = info.reason.partition("\n")[0]
    if info.wake == "cold" and info.state in _UP:
        return f"{text}, booted cold: {reason}"
    if info.wake == "resumed" and info.state in _UP:
        return f"{text}, resumed after {info.slept_s:.1f} s"
    return f"{text} ({reason})" if reason else text


def check(infos: Mapping[str, Info], machine_ids: Sequence[str], judge: Judge, wanted: str) -> list[Info]:
    """The machines that are still on their way.

    Raises:
        MachineStateError: one will not get there.
    """
    late, never = [], []
    for machine_id in machine_ids:
        info = infos.get(machine_id)
        if info is None:
            never.append(f"there is no machine {machine_id} any more")
            continue
        match judge(info):
            case Outlook.ON_ITS_WAY:
                late.append(info)
            case Outlook.NEVER:
                never.append(describe(info))
    if never:
        raise MachineStateError(f"{_count(never, machine_ids)} will not be {wanted}: {_some(never)}")
    return late


def too_late(late: Sequence[Info], machine_ids: Sequence[str], wanted: str, timeout_s: float) -> StateTimeoutError:
    """What is raised when the time is over."""
    texts = [describe(info) for info in late]
    return StateTimeoutError(
        f"{_count(late, machine_ids)} not {wanted} after {timeout_s:g} s: {_some(texts)}; what was asked for goes on"
    )


def _count(some: Sequence[object], machine_ids: Sequence[str]) -> str:
    return f"machine {machine_ids[0]}" if len(machine_ids) == 1 else f"{len(some)} of {len(machine_ids)} machines"


def _some(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _NAMED_MAX} more" if len(texts) > _NAMED_MAX else ""
    return "; ".join(texts[:_NAMED_MAX]) + more


# ---- calls ----
def suspend(session: Session, machines: Machines | None, *, now: bool, wait: bool, timeout: float | None) -> list[str]:
    """See `ClientSession.suspend`."""
    if machines is not None and not (machine_ids := ids_of(machines)):
        return []
    request = client_pb2.SuspendMachinesRequest(machine_ids=None if machines is None else machine_ids, interrupts=now)
    reply = ask(session, "SuspendMachines", request, client_pb2.SuspendMachinesReply)
    asked = list(reply.machine_ids)
    if wait:
        wait_for(session, asked, has_slept, "suspended", timeout)
    return asked


def resume(session: Session, machines: Machines | None, *, wait: bool, timeout: float | None) -> list[str]:
    """See `ClientSession.resume`."""
    if machines is not None and not (machine_ids := ids_of(machines)):
        return []
    request = client_pb2.ResumeMachinesRequest(machine_ids=None if machines is None else machine_ids)
    reply = ask(session, "ResumeMachines", request, client_pb2.ResumeMachinesReply)
    asked = list(reply.machine_ids)
    if wait:
        wait_for(session, asked, is_back, "ready", timeout)
    return asked


def set_machine_config(session: Session, config: Mapping[str, str]) -> None:
    """See `ClientSession.set_machine_config`."""
    given: object = config
    if not isinstance(given, Mapping) or not all(isinstance(each, str) for item in given.items() for each in item):
        raise BadTypeError("a machine configuration is a mapping of texts to texts")
    request = client_pb2.SetMachineConfigRequest(config=dict(config))
    ask(session, "SetMachineConfig", request, client_pb2.SetMachineConfigReply)


def wait_for_state(session: Session, machine: str | Node, state: str, timeout: float | None) -> None:
    """See `ClientSession.wait_for_state`."""
    judge = reaches(state)
    machine_ids = ids_of(machine)
    known = _read(session)
    if machine_ids[0] not in known:
        raise BadOptionsError(f"there is no machine {machine_ids[0]!r}; runner.nodes() lists them")
    wait_for(session, machine_ids, judge, state, timeout)


def ids_of(machines: Machines) -> list[str]:
    """Ids of what was given as one machine or several.

    Raises:
        BadTypeError: it is something else.
    """
    given: object = machines
    several = [given] if isinstance(given, str | Node) else given
    ids = [_id_of(each) for each in several] if isinstance(several, Iterable) else [""]
    if not all(ids):
        raise BadTypeError(f"machines={machines!r} cannot work: expected a machine's id, a Node, or several of them")
    return ids


def _id_of(machine: object) -> str:
    if isinstance(machine, Node):
        return machine.machine_id
    return machine if isinstance(machine, str) else ""


def wait_for(session: Session, machine_ids: Sequence[str], judge: Judge, wanted: str, timeout_s: float | None) -> None:
    """Return when all of them are there.

    Raises:
        MachineStateError: one will not get there.
        StateTimeoutError: not within `timeout_s`.
    """
    begin_s, pause_s = time.monotonic(), LOOK_S
    while late := check(_read(session), machine_ids, judge, wanted):
        left_s = LOOK_S_MAX if timeout_s is None else begin_s + timeout_s - time.monotonic()
        if timeout_s is not None and left_s <= 0:
            raise too_late(late, machine_ids, wanted, timeout_s)
        time.sleep(min(pause_s, left_s))
        pause_s = min(1.5 * pause_s, LOOK_S_MAX)


def _read(session: Session) -> dict[str, Info]:
    request = client_pb2.ListMachinesRequest(page_size=1000)
    infos: dict[str, Info] = {}
    while True:
        reply = ask(session, "ListMachines", request, client_pb2.ListMachinesReply)
        infos |= {info.machine_id: info for info in reply.machines}
        if not reply.next_page_token:
            return infos
        request.page_token = reply.next_page_token
