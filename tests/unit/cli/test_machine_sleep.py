"""What people read of machines that sleep, and what `runner machines suspend`, `resume` and `wait` do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from click.testing import CliRunner

from runner.cli import machine_sleep, machines
from runner.cli.connection import Connection
from runner.errors import MachineStateError, StateTimeoutError
from runner.rpc.gen import client_pb2

Info = client_pb2.MachineInfo


class Stub:
    """A coordinator whose machines are in these states, one list after the other; it keeps what is asked of it."""

    def __init__(self) -> None:
        self.looks: list[list[Info]] = []
        self.asked: list[Any] = []

    async def ListMachines(self, request: Any, timeout: float) -> client_pb2.ListMachinesReply:
        infos = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return client_pb2.ListMachinesReply(machines=infos)

    async def SuspendMachines(self, request: Any, timeout: float) -> client_pb2.SuspendMachinesReply:
        self.asked.append(request)
        return client_pb2.SuspendMachinesReply(machine_ids=request.machine_ids)

    async def ResumeMachines(self, request: Any, timeout: float) -> client_pb2.ResumeMachinesReply:
        self.asked.append(request)
        return client_pb2.ResumeMachinesReply(machine_ids=request.machine_ids)

    async def SetMachineConfig(self, request: Any, timeout: float) -> client_pb2.SetMachineConfigReply:
        self.asked.append(request)
        return client_pb2.SetMachineConfigReply()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Stub:
    made = Stub()
    monkeypatch.setattr(machine_sleep, "find", lambda *_: None)
    monkeypatch.setattr(machine_sleep, "call", lambda _, use: asyncio.run(use(Connection("here", made))))
    return made


def run(command: Any, *args: str) -> tuple[int, list[str], list[str]]:
    result = CliRunner().invoke(command, args)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout.splitlines(), result.stderr.splitlines()


def test_the_listing_shows_who_sleeps_since_when_who_is_on_the_way_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    infos = [
        Info(machine_id="m-1", state="suspended", snapshot=1, slept_s=200.0, reason="it had nothing to do"),
        Info(
            machine_id="m-2", state="suspending", snapshot=2, running_tasks=1, sleep="waits for task t-7 (fit) to end"
        ),
        Info(machine_id="m-3", state="resuming", snapshot=1, sleep="starts, waits for its agent", reason="asked for"),
        Info(machine_id="m-4", state="ready", snapshot=1, wake="resumed", slept_s=12.0, reason="asked for"),
        Info(
            machine_id="m-5", state="ready", snapshot=1, wake="cold", slept_s=12.0, reason="its agent did not register"
        ),
        Info(machine_id="m-6", state="ready", snapshot=1, wake="cancelled", reason="called off: asked for"),
    ]
    listed = [machines._as_map(info) for info in infos]
    machines._print(listed)
    assert capsys.readouterr().out.splitlines() == [
        "MACHINE  STATE                 TASKS  NOTE",
        "m-1      suspended 3 min 20 s      0  it had nothing to do",
        "m-2      suspending                1  waits for task t-7 (fit) to end",
        "m-3      resuming                  0  starts, waits for its agent",
        "m-4      ready                     0  resumed after 12 s",
        "m-5      ready                     0  booted cold: its agent did not register",
        "m-6      ready                     0  called off: asked for",
    ]
    assert (listed[0]["state"], listed[0]["slept_s"], listed[1]["sleep"]) == (
        "suspended",
        200.0,
        "waits for task t-7 (fit) to end",
    )


def test_a_suspend_tells_what_it_waits_for_each_time_that_changes(stub: Stub) -> None:
    waits = Info(machine_id="m-1", state="suspending", sleep="waits for task t-7 to end")
    stub.looks = [[waits], [waits], [Info(machine_id="m-1", state="suspending", sleep="is being saved")]]
    stub.looks.append([Info(machine_id="m-1", state="suspended", reason="asked for")])
    code, out, err = run(machine_sleep.suspend, "m-1", "--now")
    assert (code, out) == (0, ["m-1 is suspended (asked for)"])
    assert err == ["m-1 is suspending: waits for task t-7 to end", "m-1 is suspending: is being saved"]
    assert stub.asked == [client_pb2.SuspendMachinesRequest(machine_ids=["m-1"], interrupts=True)]


def test_a_suspend_that_is_called_off_is_a_failure_that_says_why(stub: Stub) -> None:
    stub.looks = [
        [Info(machine_id="m-1", state="ready", wake="cancelled", reason="it could not be suspended: hook flush")]
    ]
    with pytest.raises(MachineStateError, match=r"machine m-1 will not be suspended: m-1 is ready .*hook flush"):
        run(machine_sleep.suspend, "m-1")


def test_a_suspend_that_takes_too_long_says_how_far_each_is(stub: Stub) -> None:
    stub.looks = [
        [Info(machine_id="m-1", state="suspended"), Info(machine_id="m-2", state="suspending", sleep="waits for 2")]
    ]
    with pytest.raises(StateTimeoutError) as caught:
        run(machine_sleep.suspend, "m-1", "m-2", "--timeout", "0")
    assert str(caught.value) == (
        "1 of 2 machines not suspended after 0 s: m-2 is suspending: waits for 2; what was asked for goes on"
    )


def test_nobody_waits_who_does_not_want_to(stub: Stub) -> None:
    assert run(machine_sleep.suspend, "m-1", "m-2", "--no-wait") == (0, ["m-1 goes to sleep", "m-2 goes to sleep"], [])
    assert run(machine_sleep.resume, "m-1", "--no-wait") == (0, ["m-1 comes back"], [])
    assert run(machine_sleep.suspend, "--all", "--no-wait") == (0, [], ["no machine is ready"])
    assert run(machine_sleep.resume, "--all") == (0, [], ["no machine sleeps"])


def test_a_resume_hands_over_its_configuration_first(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD", "of the environment")
    stub.looks = [[Info(machine_id="m-1", state="booting", wake="cold", reason="its snapshot is cut")]]
    stub.looks.append([Info(machine_id="m-1", state="ready", wake="cold", reason="its snapshot is cut")])
    code, out, err = run(
        machine_sleep.resume, "m-1", "--config", "TOKEN=a=b", "--config", "URL=x", "--config", "PASSWORD"
    )
    assert (code, out) == (0, ["m-1 is ready, booted cold: its snapshot is cut"])
    assert err == ["m-1 is booting, booted cold: its snapshot is cut"]
    assert stub.asked == [
        client_pb2.SetMachineConfigRequest(config={"TOKEN": "a=b", "URL": "x", "PASSWORD": "of the environment"}),
        client_pb2.ResumeMachinesRequest(machine_ids=["m-1"]),
    ]


@pytest.mark.parametrize(
    ("command", "args", "says"),
    [
        (machine_sleep.suspend, [], "name machines, or say --all"),
        (machine_sleep.suspend, ["m-1", "--all"], "--all leaves no machines to name"),
        (machine_sleep.resume, ["m-1", "--config", "=secret"], "a --config is not NAME=VALUE"),
        (machine_sleep.resume, ["m-1", "--config", "secret"], "the environment has none by its name"),
        (machine_sleep.resume, ["m-1", "--config", "a=1", "--config", "a=2"], "--config a is there twice"),
        (machine_sleep.wait, ["m-1", "--state", "asleep"], "there is no state 'asleep'; machines are requested, "),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(stub: Stub, command: Any, args: list[str], says: str) -> None:
    code, _, err = run(command, *args)
    assert code == 2
    assert says in " ".join(err)
    assert "secret" not in " ".join(err)


def test_waiting_for_a_state(stub: Stub) -> None:
    stub.looks = [[Info(machine_id="m-1", state=state)] for state in ("booting", "booting", "ready")]
    assert run(machine_sleep.wait, "m-1", "--state", "ready") == (0, ["m-1 is ready"], ["m-1 is booting"])
    stub.looks = [[Info(machine_id="m-1", state="destroyed", reason="removal requested")]]
    with pytest.raises(MachineStateError, match=r"m-1 is destroyed \(removal requested\)"):
        run(machine_sleep.wait, "m-1", "--state", "suspended")
    with pytest.raises(Exception, match="there is no machine 'm-9'"):
        run(machine_sleep.wait, "m-9", "--state", "ready")
