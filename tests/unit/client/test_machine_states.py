"""Whether a machine has come to the state that somebody waits for, is on its way, or never will."""

from __future__ import annotations

import pytest

from runner.client.cluster_info import Node
from runner.client.machine_states import STATES, Outlook, check, describe, has_slept, ids_of, is_back, reaches, too_late
from runner.core.machine import ENDED
from runner.errors import BadOptionsError, BadTypeError, MachineStateError
from runner.rpc.gen.client_pb2 import MachineInfo

THERE, ON_ITS_WAY, NEVER = Outlook.THERE, Outlook.ON_ITS_WAY, Outlook.NEVER


@pytest.mark.parametrize(
    ("wanted", "state", "outlook"),
    [
        ("ready", "ready", THERE),
        ("ready", "requested", ON_ITS_WAY),
        ("ready", "suspended", ON_ITS_WAY),
        ("ready", "lost", ON_ITS_WAY),
        ("ready", "draining", ON_ITS_WAY),  # it may be lost, and come back
        ("ready", "destroying", NEVER),
        ("suspended", "booting", ON_ITS_WAY),
        ("suspended", "destroyed", NEVER),
        ("booting", "suspended", ON_ITS_WAY),
        ("requested", "creating", NEVER),
        ("destroyed", "ready", ON_ITS_WAY),
        ("ready", "a state of a newer version", NEVER),
    ],
)
def test_a_state_is_waited_for_as_long_as_the_table_has_a_way_there(wanted: str, state: str, outlook: Outlook) -> None:
    assert reaches(wanted)(MachineInfo(state=state)) is outlook


def test_every_state_can_be_waited_for_and_nothing_else() -> None:
    for state in STATES:
        assert reaches(state)(MachineInfo(state=state)) is THERE
    with pytest.raises(
        BadOptionsError, match="there is no state 'asleep'; machines are requested, creating, .*suspended"
    ):
        reaches("asleep")


@pytest.mark.parametrize(
    ("state", "wake", "outlook"),
    [
        ("suspending", "", ON_ITS_WAY),
        ("suspending", "cancelled", ON_ITS_WAY),  # its hooks run
        ("suspended", "", THERE),
        ("resuming", "", THERE),
        ("ready", "resumed", THERE),  # it slept, and work has woken it between two looks
        ("booting", "cold", THERE),  # and its snapshot could not be used
        ("ready", "", NEVER),  # called off
        ("ready", "cancelled", NEVER),  # after its hooks had run
        ("lost", "", NEVER),
        ("lost", "resumed", NEVER),
    ],
)
def test_a_suspend_is_over_when_it_has_slept_or_will_not(state: str, wake: str, outlook: Outlook) -> None:
    assert has_slept(MachineInfo(state=state, wake=wake)) is outlook


def test_a_resume_is_over_when_it_is_ready_however_it_came_back() -> None:
    for label, state in STATES.items():
        expected = THERE if label == "ready" else NEVER if state in ENDED or label == "draining" else ON_ITS_WAY
        assert is_back(MachineInfo(state=label)) is expected, label


def a_machine(number: int, state: str, sleep: str = "", reason: str = "") -> MachineInfo:
    return MachineInfo(machine_id=f"m-{number}", state=state, sleep=sleep, reason=reason)


def test_who_is_late_is_told_with_what_it_waits_for() -> None:
    infos = [a_machine(1, "suspended"), a_machine(2, "suspending", "waits for task t-7 to end", "asked for")]
    infos += [a_machine(number, "suspending", "is being saved") for number in range(3, 10)]
    ids = [info.machine_id for info in infos]
    late = check({info.machine_id: info for info in infos}, ids, has_slept, "suspended")
    assert [info.machine_id for info in late] == ids[1:]
    assert str(too_late(late, ids, "suspended", 2.5)) == (
        "8 of 9 machines not suspended after 2.5 s: m-2 is suspending: waits for task t-7 to end; m-3 is suspending: is being saved; "
        "m-4 is suspending: is being saved; m-5 is suspending: is being saved; m-6 is suspending: is being saved; and 3 more; "
        "what was asked for goes on"
    )


def test_one_that_is_back_says_how() -> None:
    info = MachineInfo(machine_id="m-1", state="ready", wake="resumed", slept_s=12.04, reason="asked for")
    assert describe(info) == "m-1 is ready, resumed after 12.0 s"
    info.wake, info.reason = "cold", "its agent did not register again within 60 s\n  a line"
    assert describe(info) == "m-1 is ready, booted cold: its agent did not register again within 60 s"
    info.state, info.reason = "lost", "silent"
    assert describe(info) == "m-1 is lost (silent)"


def test_who_will_never_be_there_is_told_with_why() -> None:
    infos = {"m-1": a_machine(1, "ready", reason="it could not be suspended: hook flush\n  a traceback")}
    with pytest.raises(MachineStateError) as caught:
        check(infos, ["m-1", "m-2"], has_slept, "suspended")
    assert str(caught.value) == (
        "2 of 2 machines will not be suspended: m-1 is ready (it could not be suspended: hook flush); there is no machine m-2 any more"
    )


def test_machines_are_named_by_ids_or_nodes_one_or_several() -> None:
    node = Node("m-2", "ready", 1, {}, {}, 0, "local", "", 0, "", {}, "", "", "", "", {}, None)
    assert ids_of("m-1") == ["m-1"]
    assert ids_of(node) == ["m-2"]
    several: list[str | Node] = ["m-1", node]
    assert ids_of(iter(several)) == ["m-1", "m-2"]
    assert ids_of([]) == []
    for wrong in (3, ["m-1", None], [""], ""):
        with pytest.raises(BadTypeError, match="expected a machine's id"):
            ids_of(wrong)  # type: ignore[arg-type]
