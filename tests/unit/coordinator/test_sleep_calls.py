"""What people may ask of machines that sleep, and what they are told where it cannot be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from runner.coordinator.sleep_calls import CONFIG_BYTES_MAX, SleepCalls
from runner.core.suspend_events import ResumeRequested, SuspendRequested
from runner.errors import BadOptionsError, ProviderError
from runner.rpc.gen import client_pb2
from tests.unit.coordinator.posted import Posted

STATES = (
    "requested", "creating", "booting", "ready", "draining", "stopping", "suspending", "suspended", "resuming", "boot_failed",
    "lost", "destroying", "destroyed",
)  # fmt: skip


class Rows(Posted):
    """A cluster with one machine in each of these states, which is named after it."""

    def __init__(self, *states: str) -> None:
        super().__init__()
        self.rows = [
            SimpleNamespace(machine_id=state, state=state, groups=(), is_single_use=False, reason="")
            for state in states
        ]

    def machine(self, machine_id: Any) -> Any:
        return next((row for row in self.rows if row.machine_id == machine_id), None)

    async def committed(self) -> None:
        """Everything is on disk."""


def calls(rows: Rows, obstacle: str = "") -> SleepCalls:
    fleet: Any = SimpleNamespace(suspend_obstacle=lambda _: obstacle, machine_config={})
    engine: Any = rows
    return SleepCalls(engine, fleet)


def suspending(*machine_ids: str, interrupts: bool = False) -> client_pb2.SuspendMachinesRequest:
    return client_pb2.SuspendMachinesRequest(machine_ids=machine_ids, interrupts=interrupts)


def resuming(*machine_ids: str) -> client_pb2.ResumeMachinesRequest:
    return client_pb2.ResumeMachinesRequest(machine_ids=machine_ids)


async def test_without_names_all_that_are_ready_are_meant_and_those_that_sleep() -> None:
    rows = Rows(*STATES)
    reply = await calls(rows).suspend(suspending(interrupts=True))
    assert list(reply.machine_ids) == ["ready"]
    assert rows.events == [SuspendRequested("ready", interrupts=True)]  # type: ignore[arg-type]
    rows.events.clear()
    woken = await calls(rows).resume(resuming())
    assert list(woken.machine_ids) == ["suspending", "suspended"]
    assert rows.events == [ResumeRequested("suspending"), ResumeRequested("suspended")]  # type: ignore[arg-type]


async def test_what_is_so_already_is_asked_for_again_without_effect() -> None:
    rows = Rows(*STATES)
    asleep = await calls(rows).suspend(suspending("suspended", "suspending", "suspended"))
    assert list(asleep.machine_ids) == ["suspended", "suspending"]
    awake = await calls(rows).resume(resuming("ready", "resuming", "booting", "creating", "requested"))
    assert list(awake.machine_ids) == ["ready", "resuming", "booting", "creating", "requested"]
    assert rows.events == []


@pytest.mark.parametrize("state", sorted(set(STATES) - {"ready", "suspending", "suspended"}))
async def test_a_state_from_which_nothing_sleeps_is_named_and_nothing_else_of_the_request_counts(state: str) -> None:
    rows = Rows(*STATES)
    with pytest.raises(BadOptionsError, match=f"machine {state} cannot be suspended: it is {state}"):
        await calls(rows).suspend(suspending("ready", state))
    assert rows.events == []


@pytest.mark.parametrize("state", ["draining", "stopping", "boot_failed", "lost", "destroying", "destroyed"])
async def test_what_is_going_is_not_resumed(state: str) -> None:
    rows = Rows(*STATES)
    with pytest.raises(BadOptionsError, match=f"machine {state} cannot be resumed: it is {state}"):
        await calls(rows).resume(resuming("suspended", state))
    assert rows.events == []


async def test_an_unknown_machine_is_refused_with_where_to_look() -> None:
    for ask in (calls(Rows()).suspend(suspending("m-9")), calls(Rows()).resume(resuming("m-9"))):
        with pytest.raises(BadOptionsError, match="there is no machine 'm-9'; `runner machines` lists them"):
            await ask


async def test_a_machine_of_a_group_and_one_of_single_use_are_refused_and_not_meant_by_all() -> None:
    rows = Rows("ready")
    rows.rows[0].groups = ("g-1",)
    with pytest.raises(BadOptionsError, match="it is part of placement group g-1, .*remove the group first"):
        await calls(rows).suspend(suspending("ready"))
    assert not (await calls(rows).suspend(suspending())).machine_ids
    rows.rows[0].groups, rows.rows[0].is_single_use = (), True
    with pytest.raises(BadOptionsError, match="single_use=True"):
        await calls(rows).suspend(suspending("ready"))
    assert not (await calls(rows).suspend(suspending())).machine_ids
    assert rows.events == []


async def test_what_the_provider_cannot_do_is_said_at_once_and_for_all_alike() -> None:
    rows = Rows("ready")
    for request in (suspending(), suspending("ready")):
        with pytest.raises(
            ProviderError, match="machine ready cannot be suspended: it has 4 GiB, the limit is 2 GiB; "
        ):
            await calls(rows, "it has 4 GiB, the limit is 2 GiB").suspend(request)
    assert rows.events == []


def test_a_configuration_replaces_the_one_before_and_has_a_limit() -> None:
    made = calls(Rows())
    made.set_config(client_pb2.SetMachineConfigRequest(config={"TOKEN": "a", "URL": "x"}))
    made.set_config(client_pb2.SetMachineConfigRequest(config={"TOKEN": "b"}))
    assert made._fleet.machine_config == {"TOKEN": "b"}
    with pytest.raises(BadOptionsError, match="the limit is 65536") as caught:
        made.set_config(client_pb2.SetMachineConfigRequest(config={"TOKEN": "s" * CONFIG_BYTES_MAX}))
    assert "sss" not in str(caught.value)
    assert made._fleet.machine_config == {"TOKEN": "b"}
