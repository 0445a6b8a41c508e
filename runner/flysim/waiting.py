"""`wait`: an answer when the machine has reached a state, or when the time is over."""

from __future__ import annotations

from runner.flysim.answers import OK, Answer, ApiError, bad_request
from runner.flysim.calls import Call
from runner.flysim.cloud import Cloud
from runner.flysim.config_rules import seconds_of
from runner.flysim.records import Machine
from runner.flysim.states import PERSISTENT, TERMINAL

_STATES = frozenset({"started", "stopped", "suspended", "destroyed", "failed", "settled"})
_TIMEOUT_S_MAX = 60.0


def wait_timeout_s(call: Call) -> float:
    """From 1 to 60 seconds, 60 where it is not said; else 400 `invalid_argument`. [1.2 wait, 1.3 ceiling]"""
    text = call.first("timeout")
    timeout_s = seconds_of(int(text) if text.isdigit() else text, _TIMEOUT_S_MAX)
    if not 1 <= timeout_s <= _TIMEOUT_S_MAX:
        raise bad_request(f"timeout must be between 1 and {_TIMEOUT_S_MAX:.0f} seconds, it is {text}")
    return timeout_s


def wanted_states(call: Call) -> list[str]:
    """`started` where it is not said; repeated or as a comma list. [1.2 wait]"""
    wanted = call.all("state") or ["started"]
    if unknown := [state for state in wanted if state not in _STATES]:
        raise bad_request(f"invalid state {unknown[0]!r}")
    version = wanted_version(call)
    if "stopped" in wanted and not version:
        raise ApiError(400, "instance_id required when waiting for stopped machine")
    return wanted


def wanted_version(call: Call) -> str:
    """`instance_id`, or `version` as it is called now. [1.2 wait]"""
    return call.first("instance_id") or call.first("version")


def poll_wait(cloud: Cloud, call: Call, *, is_over: bool) -> Answer | None:
    """The answer, or None while it is to be waited for. `from_event_id` is taken and does nothing. [1.2 wait, 0.5]"""
    wanted = wanted_states(call)
    machine = call.machine(cloud)
    version = wanted_version(call)
    if version and version != machine.instance_id:
        if version not in [each.instance_id for each in machine.versions]:
            raise bad_request(f"version {version} not found")
        raise not_reached(wanted, "replaced")
    if has_reached(machine, wanted):
        return Answer(200, OK)
    if is_over:
        raise not_reached(wanted, machine.state.value)
    return None


def has_reached(machine: Machine, wanted: list[str]) -> bool:
    """`settled` is any state that does not pass by itself. [1.2 wait, 1.5 states]"""
    if "settled" in wanted and machine.state in PERSISTENT | TERMINAL:
        return True
    return machine.state.value in wanted


def not_reached(wanted: list[str], seen: str) -> ApiError:
    """408 with the state that it is in. [1.2 wait]"""
    return ApiError(408, f"machine failed to reach desired state, {','.join(wanted)}, currently {seen}")
