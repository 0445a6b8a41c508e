"""What machines do by themselves: launch, start, resume, end, restart, get stuck, go."""

from __future__ import annotations

from typing import Any

from runner.flysim.cloud import Cloud
from runner.flysim.config_rules import is_known_image
from runner.flysim.records import Boot, Kill, Machine, Thaw
from runner.flysim.states import STUCK_AFTER_S, State

_RESTARTS_MAX = 10
_RESTART_WINDOW_S = 300.0


def created(cloud: Cloud, machine: Machine) -> None:
    """The create call is over; the image comes next, unless it was to be only created. [1.5 states]"""
    cloud.move(machine, State.CREATED)
    if not machine.will_launch:
        return
    is_warm = machine.config["image"] in machine.host.images
    cloud.later(machine, cloud.draw("pull_warm_delay" if is_warm else "pull_cold_delay"), _image_pulled)


def _image_pulled(cloud: Cloud, machine: Machine) -> None:
    machine.host.images.add(machine.config["image"])
    begin_start(cloud, machine, source="flyd")


def begin_start(cloud: Cloud, machine: Machine, source: str) -> None:
    """Start it: with its snapshot where that is still there, else cold with a fresh root file system. [1.5 states, 1.7 not guaranteed]"""
    cloud.move(machine, State.STARTING)
    cloud.note(machine, "start", source)
    settings = cloud.settings
    if cloud.dice.strikes("stuck", settings.stuck_rate):
        watch_for_stuck(cloud, machine)
        return
    if machine.has_snapshot and cloud.dice.strikes("cold_resume", settings.cold_resume_rate):
        drop_snapshot(cloud, machine)
    if machine.has_snapshot:
        cloud.later(machine, cloud.draw("resume_delay"), _resumed)
    else:
        cloud.later(machine, cloud.draw("start_delay"), _booted)


def _resumed(cloud: Cloud, machine: Machine) -> None:
    machine.has_snapshot = False
    cloud.tell(Thaw(machine.machine_id, machine.life))
    cloud.move(machine, State.STARTED)
    cloud.note(machine, "start")


def _booted(cloud: Cloud, machine: Machine) -> None:
    fails = cloud.dice.strikes("launch_failure", cloud.settings.launch_failure_rate)
    if fails or not is_known_image(cloud, machine.config["image"]):
        launch_failed(cloud, machine)
        return
    machine.life += 1
    machine.is_alive = True
    cloud.move(machine, State.STARTED)
    cloud.note(machine, "start")
    cloud.tell(Boot(machine.machine_id, machine.life, machine.config, fly_environment(cloud, machine)))


def fly_environment(cloud: Cloud, machine: Machine) -> dict[str, str]:
    """What a program inside sees. [1.4 env inside]"""
    return {
        **(machine.config.get("env") or {}),
        "FLY_APP_NAME": machine.app,
        "FLY_MACHINE_ID": machine.machine_id,
        "FLY_ALLOC_ID": machine.machine_id,
        "FLY_REGION": machine.region,
        "FLY_IMAGE_REF": machine.config["image"],
        "FLY_MACHINE_VERSION": machine.instance_id,
        "FLY_PRIVATE_IP": private_ip(cloud, machine),
        "FLY_PROCESS_GROUP": machine.metadata.get("fly_process_group", ""),
        "FLY_VM_MEMORY_MB": str(machine.memory_mb),
        "PRIMARY_REGION": cloud.settings.regions[0].code,
    }


def private_ip(cloud: Cloud, machine: Machine) -> str:
    """An address of this machine's own: of the private network, or of this computer, where all machines are. [1.6 6PN]"""
    digits = machine.machine_id
    if cloud.settings.private_ips == "loopback":
        return f"127.{int(digits[0:2], 16)}.{int(digits[2:4], 16)}.{int(digits[4:6], 16) % 253 + 2}"
    return f"fdaa:0:1:a7b:{digits[0:4]}:{digits[4:8]}:{digits[8:12]}:2"


def launch_failed(cloud: Cloud, machine: Machine) -> None:
    """It could not be started at all: destroyed or failed. [1.5 states]"""
    cloud.move(machine, State.LAUNCH_FAILED)
    cloud.note(machine, "launch")
    cloud.later(machine, cloud.draw("destroy_delay"), _after_launch_failed)


def _after_launch_failed(cloud: Cloud, machine: Machine) -> None:
    if machine.config.get("auto_destroy"):
        destroyed(cloud, machine)
    else:
        cloud.move(machine, State.FAILED)


def drop_snapshot(cloud: Cloud, machine: Machine) -> None:
    """Its frozen process goes too. [1.7 not guaranteed]"""
    if machine.has_snapshot or machine.is_alive:
        cloud.tell(Kill(machine.machine_id, machine.life))
    machine.has_snapshot = machine.is_alive = False


# ---- ends ----
def exited(cloud: Cloud, machine: Machine, exit_code: int, signal_number: int, *, is_oom: bool = False) -> None:
    """The main process has ended: what follows depends on what was asked for. [1.5 states; 1.4 event]"""
    machine.is_alive = machine.has_snapshot = False
    asked = {State.STOPPING, State.RESTARTING, State.REPLACING, State.DESTROYING}
    exit_event: dict[str, Any] = {
        "exit_code": exit_code,
        "guest_exit_code": exit_code,
        "guest_signal": signal_number or -1,
        "oom_killed": is_oom,
        "requested_stop": machine.state in asked,
        "restarting": machine.state is State.RESTARTING,
        "signal": signal_number or -1,
        "exited_at": cloud.iso(cloud.now_s),
    }
    if machine.state is State.STOPPING:
        note_exit(cloud, machine, exit_event)
        cloud.later(machine, cloud.draw("stop_delay"), _stopped)
    elif machine.state is State.RESTARTING:
        note_exit(cloud, machine, exit_event)
        begin_start(cloud, machine, source="flyd")
    elif machine.state in (State.REPLACING, State.UPDATING):
        note_exit(cloud, machine, exit_event)
    elif machine.state is State.DESTROYING:
        note_exit(cloud, machine, exit_event)
        cloud.later(machine, cloud.draw("destroy_delay"), destroyed)
    else:
        _ended_by_itself(cloud, machine, exit_event)


def note_exit(cloud: Cloud, machine: Machine, exit_event: dict[str, Any]) -> None:
    """The exit event. [1.4 event]"""
    cloud.note(machine, "exit", exit_event=exit_event, restart_count=len(machine.restarts_s))


def _ended_by_itself(cloud: Cloud, machine: Machine, exit_event: dict[str, Any]) -> None:
    if machine.config.get("auto_destroy"):
        note_exit(cloud, machine, exit_event)
        begin_destroy(cloud, machine, source="flyd")
        return
    exit_event["restarting"] = may_restart(cloud, machine, exit_event["exit_code"], max(0, exit_event["signal"]))
    note_exit(cloud, machine, exit_event)
    if exit_event["restarting"] and machine.state is State.STARTED:
        machine.restarts_s.append(cloud.now_s)
        begin_start(cloud, machine, source="flyd")
    else:
        cloud.move(machine, State.STOPPED)


def may_restart(cloud: Cloud, machine: Machine, exit_code: int, signal_number: int) -> bool:
    """Ten tries within five minutes, or `max_retries`; `no` never does, `on-failure` not after a clean exit. [1.4 restart policy]"""
    restart = machine.config.get("restart") or {}
    policy = restart.get("policy", "on-failure")
    if policy == "no" or (policy == "on-failure" and exit_code == 0 and not signal_number):
        return False
    machine.restarts_s = [at_s for at_s in machine.restarts_s if at_s > cloud.now_s - _RESTART_WINDOW_S]
    return len(machine.restarts_s) < int(restart.get("max_retries") or _RESTARTS_MAX)


def _stopped(cloud: Cloud, machine: Machine) -> None:
    if machine.config.get("auto_destroy"):
        # Inferred: stopping ends the main process, and its end is what frees such a machine.
        begin_destroy(cloud, machine, source="flyd")
        return
    cloud.move(machine, State.STOPPED)
    cloud.note(machine, "stop")


def begin_destroy(cloud: Cloud, machine: Machine, source: str) -> None:
    """First nothing of it runs any more, then it is destroyed. [1.5 states]"""
    cloud.move(machine, State.DESTROYING)
    cloud.note(machine, "destroy", source)
    if machine.is_alive:
        cloud.tell(Kill(machine.machine_id, machine.life))
        watch_for_stuck(cloud, machine)
    else:
        cloud.later(machine, cloud.draw("destroy_delay"), destroyed)


def destroyed(cloud: Cloud, machine: Machine) -> None:
    """The end. It is shown for a moment, then it is a 404; its volume is free. [0.5, 1.5 states]"""
    cloud.move(machine, State.DESTROYED)
    machine.destroyed_s = cloud.now_s
    machine.lease = None
    for volume in cloud.volumes.values():
        if volume.machine_id == machine.machine_id:
            volume.machine_id = ""


def watch_for_stuck(cloud: Cloud, machine: Machine) -> None:
    """A move that hangs past its threshold fails; a destroy ends all the same (what follows is inferred). [1.5 stuck]"""
    cloud.later(machine, STUCK_AFTER_S[machine.state], _stuck)


def _stuck(cloud: Cloud, machine: Machine) -> None:
    if machine.state is State.DESTROYING:
        machine.is_alive = False
        destroyed(cloud, machine)
        return
    drop_snapshot(cloud, machine)
    cloud.move(machine, State.FAILED)
