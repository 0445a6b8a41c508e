"""What callers ask of one machine: start, stop, suspend, restart, signal, update, destroy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.flysim.answers import ApiError, bad_request
from runner.flysim.cloud import Cloud
from runner.flysim.config_rules import check_can_suspend, checked_config, seconds_of
from runner.flysim.lifecycle import begin_destroy, begin_start, drop_snapshot, watch_for_stuck
from runner.flysim.placing import check_room_to_start
from runner.flysim.records import Freeze, Kill, Machine, Signal, Thaw, Version
from runner.flysim.states import State

SIGNALS = {
    "SIGABRT": 6, "SIGALRM": 14, "SIGFPE": 8, "SIGHUP": 1, "SIGILL": 4, "SIGINT": 2, "SIGKILL": 9, "SIGPIPE": 13,
    "SIGQUIT": 3, "SIGSEGV": 11, "SIGTERM": 15, "SIGTRAP": 5, "SIGUSR1": 10,
}  # fmt: skip
_RUNS = frozenset({State.STARTED, State.STARTING, State.SUSPENDING})
_DELETABLE = frozenset({State.STOPPED, State.FAILED, State.CREATED})


def signal_number(value: Any, default: str = "SIGINT") -> int:
    """A signal by name, or by number as fly-go sends it. [1.2 signal]"""
    if value in (None, ""):
        value = default
    number = value if isinstance(value, int) else SIGNALS.get(str(value).upper(), 0)
    if number not in SIGNALS.values():
        raise bad_request(f"invalid signal {value!r}")
    return number


def start(cloud: Cloud, machine: Machine) -> dict[str, Any]:
    """From created, stopped or suspended; a suspend under way is cancelled; else 412. [1.2 start, 1.5 states]"""
    previous = machine.state
    check_reachable(machine)
    if previous is State.SUSPENDING:
        cloud.move(machine, State.STARTED)  # as if the suspend had never happened
        cloud.tell(Thaw(machine.machine_id, machine.life))
        cloud.note(machine, "start", "user")
    elif previous in (State.CREATED, State.STOPPED, State.SUSPENDED):
        check_room_to_start(cloud, machine)
        begin_start(cloud, machine, source="user")
    else:
        raise ApiError(412, f"failed_precondition: unable to start machine from current state: '{previous.value}'")
    return {"previous_state": previous.value, "migrated": False, "new_host": ""}


def stop(cloud: Cloud, machine: Machine, body: Mapping[str, Any]) -> None:
    """Signal it, SIGINT by default, and kill it when it has not ended in time; a suspended one loses its snapshot. [1.2 stop, 1.5 states]"""
    stop_config = machine.config.get("stop_config") or {}
    number = signal_number(body.get("signal") or stop_config.get("signal"))
    timeout_s = seconds_of(body.get("timeout") or stop_config.get("timeout"), cloud.settings.stop_timeout_s)
    check_reachable(machine)
    if machine.state in (State.STOPPED, State.STOPPING):
        return
    if machine.state is State.SUSPENDED:
        drop_snapshot(cloud, machine)
        cloud.move(machine, State.STOPPED)
        cloud.note(machine, "stop", "user")
        return
    if machine.state not in _RUNS or not machine.is_alive:
        raise ApiError(400, f"failed_precondition: unable to stop machine from current state: '{machine.state.value}'")
    if machine.state is State.SUSPENDING or machine.has_snapshot:
        drop_snapshot(cloud, machine)
        cloud.move(machine, State.STOPPING)
        cloud.move(machine, State.STOPPED)
        return
    cloud.move(machine, State.STOPPING)
    cloud.note(machine, "stop", "user")
    end_process(cloud, machine, number, timeout_s)


def end_process(cloud: Cloud, machine: Machine, number: int, timeout_s: float) -> None:
    """The signal now, SIGKILL after the timeout; a process that survives both is stuck. [1.2 stop, 1.5 stuck]"""
    cloud.tell(Signal(machine.machine_id, machine.life, number))
    cloud.later(machine, timeout_s, _kill_late)


def _kill_late(cloud: Cloud, machine: Machine) -> None:
    if machine.is_alive:
        cloud.tell(Kill(machine.machine_id, machine.life))
        watch_for_stuck(cloud, machine)


def suspend(cloud: Cloud, machine: Machine) -> None:
    """Freeze it, then call it suspended; only where its configuration allows, and slower in company. [1.2 suspend, 1.7 needs, 1.7 resume]"""
    check_reachable(machine)
    check_can_suspend(machine.config)
    if machine.state in (State.SUSPENDED, State.SUSPENDING):
        return
    if machine.state is not State.STARTED:
        raise ApiError(
            400, f"failed_precondition: unable to suspend machine from current state: '{machine.state.value}'"
        )
    cloud.move(machine, State.SUSPENDING)
    cloud.note(machine, "suspend", "user")
    cloud.tell(Freeze(machine.machine_id, machine.life))
    others = sum(each.state is State.SUSPENDING for each in cloud.machines_on(machine.host)) - 1
    delay_s = cloud.draw("suspend_delay") * (1.0 + cloud.settings.suspend_crowding * others)
    cloud.later(machine, delay_s, _suspended)


def _suspended(cloud: Cloud, machine: Machine) -> None:
    machine.has_snapshot = True
    cloud.move(machine, State.SUSPENDED)
    cloud.note(machine, "suspend")


def restart(cloud: Cloud, machine: Machine, query: Mapping[str, str]) -> None:
    """End its process and start it again. [1.2 restart]"""
    check_reachable(machine)
    number = signal_number(query.get("signal"))
    timeout_s = seconds_of(query.get("timeout"), cloud.settings.stop_timeout_s)
    if machine.state is not State.STARTED:
        raise ApiError(
            400, f"failed_precondition: unable to restart machine from current state: '{machine.state.value}'"
        )
    cloud.move(machine, State.RESTARTING)
    cloud.note(machine, "restart", "user")
    if query.get("force_stop") in ("true", "1"):
        cloud.tell(Kill(machine.machine_id, machine.life))
        watch_for_stuck(cloud, machine)
    else:
        end_process(cloud, machine, number, timeout_s)


def send_signal(cloud: Cloud, machine: Machine, body: Mapping[str, Any]) -> None:
    """To the main process of a machine that runs. [1.2 signal]"""
    check_reachable(machine)
    if not body.get("signal"):
        raise bad_request("signal is required")
    number = signal_number(body["signal"])
    if machine.state is not State.STARTED:
        raise ApiError(400, f"failed_precondition: unable to signal machine in current state: '{machine.state.value}'")
    cloud.tell(Signal(machine.machine_id, machine.life, number))


def update(cloud: Cloud, machine: Machine, body: Mapping[str, Any]) -> None:
    """A whole new configuration, nothing merged; a new version; reboots what runs; drops a snapshot. [1.2 update, 1.5 states, 1.7 not guaranteed]"""
    check_reachable(machine)
    config = checked_config(cloud, body.get("config"))
    for name in ("name", "region"):
        if body.get(name) not in (None, "", getattr(machine, name)):
            raise bad_request(f"the {name} of a machine cannot be changed")
    expected = body.get("current_version")
    if expected and expected != machine.instance_id:
        # The status of this one is unconfirmed.
        raise ApiError(412, f"failed_precondition: machine version is {machine.instance_id}, not {expected}")
    if machine.state not in _RUNS | {State.CREATED, State.STOPPED, State.SUSPENDED, State.FAILED}:
        raise ApiError(
            412, f"failed_precondition: unable to update machine from current state: '{machine.state.value}'"
        )
    was_running = machine.state in _RUNS
    drop_snapshot(cloud, machine)
    machine.versions.append(Version(cloud.new_instance_id(), config, cloud.now_s))
    machine.metadata = dict(config.get("metadata") or {})
    cloud.move(machine, State.REPLACING if was_running else State.UPDATING)
    cloud.note(machine, "update", "user")
    launches = was_running and not body.get("skip_launch")
    cloud.later(machine, cloud.draw("update_delay"), _relaunch if launches else _stay_stopped)


def _relaunch(cloud: Cloud, machine: Machine) -> None:
    begin_start(cloud, machine, source="flyd")


def _stay_stopped(cloud: Cloud, machine: Machine) -> None:
    if machine.state is State.REPLACING:
        cloud.move(machine, State.STARTING)
        cloud.move(machine, State.STOPPING)
    cloud.move(machine, State.STOPPED)


def destroy(cloud: Cloud, machine: Machine, *, force: bool) -> None:
    """Without force only what does not run. The status of the refusal is unconfirmed. [1.2 delete, 1.5 states]"""
    if machine.state in (State.DESTROYING, State.DESTROYED):
        return
    if not force:
        check_reachable(machine)
        if machine.state not in _DELETABLE:
            raise ApiError(
                412, f"failed_precondition: unable to destroy machine from current state: '{machine.state.value}'"
            )
    begin_destroy(cloud, machine, source="user")


def check_reachable(machine: Machine) -> None:
    """A machine whose host is gone takes no orders; status and words are unconfirmed. [1.4 host_status]"""
    if machine.host.status != "ok":
        raise ApiError(503, f"unavailable: host of machine {machine.machine_id} is {machine.host.status}")
