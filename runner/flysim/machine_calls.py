"""Calls about machines as a whole: list, create, get, update, delete, and the moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.flysim import moves
from runner.flysim.answers import OK, Answer, ApiError
from runner.flysim.calls import Call, is_visible
from runner.flysim.cloud import Cloud
from runner.flysim.config_rules import checked_config
from runner.flysim.leases import check_lease, take_lease
from runner.flysim.lifecycle import created
from runner.flysim.placing import place, regions_for
from runner.flysim.records import Host, Machine, Version
from runner.flysim.states import State
from runner.flysim.views import machine_view
from runner.flysim.volumes import attach, volume_for


def list_machines(cloud: Cloud, call: Call) -> Answer:
    """With filters by region, state and `metadata.KEY=VALUE`; destroyed ones only on demand. [1.2 GET machines, 0.5]"""
    shows_deleted = call.is_true("include_deleted")
    wanted = {name[9:]: call.first(name) for name in call.query if name.startswith("metadata.")}
    shown = [
        machine_view(cloud, machine)
        for machine in cloud.machines_of(call.app(cloud).name)
        if cloud.now_s >= machine.visible_s and (shows_deleted or machine.state is not State.DESTROYED)
        if not call.all("region") or machine.region in call.all("region")
        if not call.all("state") or machine.state.value in call.all("state")
        if all(machine.metadata.get(key) == value for key, value in wanted.items())
    ]
    if call.is_true("summary"):
        shown = [_summary(each) for each in shown]
    return Answer(200, shown)


def _summary(view: dict[str, Any]) -> dict[str, Any]:
    kept = ("id", "name", "state", "region", "instance_id", "created_at", "updated_at", "host_status", "cordoned")
    return {name: view[name] for name in kept}


def create_machine(cloud: Cloud, call: Call) -> Answer:
    """200 with `created`; the name is the only idempotency key: a living namesake is a 409 with its id. [1.2 POST machines, 0.4]"""
    app = call.app(cloud)
    config = checked_config(cloud, call.body.get("config"))
    name = call.body.get("name") or _new_name(cloud)
    namesake = living(cloud, app.name, str(name))
    if namesake is not None:
        text = f"already_exists: unique machine name violation, machine ID {namesake.machine_id} already exists"
        raise ApiError(409, f'{text} with name "{name}"')
    volume = volume_for(cloud, app.name, config)
    regions = regions_for(cloud, call.body.get("region"))
    if volume is not None:
        regions = [volume.region]
    host = place(cloud, regions, config, volume.host if volume is not None else None)
    machine = _new_machine(cloud, app.name, str(name), host, config)
    machine.will_launch = not call.body.get("skip_launch")
    if volume is not None:
        attach(cloud, volume, machine)
    if call.body.get("lease_ttl"):
        take_lease(cloud, machine, float(call.body["lease_ttl"]), "", call.org)
    delay_s = cloud.draw("create_delay")
    cloud.later(machine, delay_s, created)
    view = {**machine_view(cloud, machine), "state": "created"}
    if machine.lease is not None:
        view["nonce"] = machine.lease.nonce
    return Answer(200, view, after_s=delay_s)


def living(cloud: Cloud, app: str, name: str) -> Machine | None:
    """The machine that has this name now. [0.4]"""
    return next(
        (each for each in cloud.machines_of(app) if each.name == name and each.state is not State.DESTROYED), None
    )


def _new_name(cloud: Cloud) -> str:
    return f"sim-{cloud.dice.hex('name', 8)}"


def _new_machine(cloud: Cloud, app: str, name: str, host: Host, config: dict[str, Any]) -> Machine:
    machine = Machine(
        machine_id=cloud.dice.hex("machine", 14),
        app=app,
        name=name,
        region=host.region,
        host=host,
        created_s=cloud.now_s,
        visible_s=cloud.now_s + cloud.draw("visible_delay"),
        versions=[Version(cloud.new_instance_id(), config, cloud.now_s)],
        metadata=dict(config.get("metadata") or {}),
        since_s=cloud.now_s,
    )
    cloud.machines[machine.machine_id] = machine
    cloud.note(machine, "launch", "user")
    return machine


def get_machine(cloud: Cloud, call: Call) -> Answer:
    """One machine. [1.2 GET machine]"""
    return Answer(200, machine_view(cloud, call.machine(cloud)))


def update_machine(cloud: Cloud, call: Call) -> Answer:
    """A whole new configuration. [1.2 update]"""
    machine = changeable(cloud, call)
    moves.update(cloud, machine, call.body)
    return Answer(200, machine_view(cloud, machine))


def delete_machine(cloud: Cloud, call: Call) -> Answer:
    """`force` in the specification, `kill` as fly-go sends it. [1.2 delete]"""
    machine = changeable(cloud, call)
    moves.destroy(cloud, machine, force=call.is_true("force") or call.is_true("kill"))
    return Answer(200, OK)


def start_machine(cloud: Cloud, call: Call) -> Answer:
    """See moves.start. [1.2 start]"""
    return Answer(200, moves.start(cloud, changeable(cloud, call)))


def _moved(move: Callable[[Cloud, Machine, Call], None]) -> Callable[[Cloud, Call], Answer]:
    def answer(cloud: Cloud, call: Call) -> Answer:
        move(cloud, changeable(cloud, call), call)
        return Answer(200, OK)

    return answer


# [1.2 stop, suspend, restart, signal, cordon]
stop_machine = _moved(lambda cloud, machine, call: moves.stop(cloud, machine, call.body))
suspend_machine = _moved(lambda cloud, machine, call: moves.suspend(cloud, machine))
restart_machine = _moved(
    lambda cloud, machine, call: moves.restart(cloud, machine, {name: call.first(name) for name in call.query})
)
signal_machine = _moved(lambda cloud, machine, call: moves.send_signal(cloud, machine, call.body))
cordon_machine = _moved(lambda cloud, machine, call: set_cordoned(cloud, machine, value=True))
uncordon_machine = _moved(lambda cloud, machine, call: set_cordoned(cloud, machine, value=False))


def set_cordoned(cloud: Cloud, machine: Machine, *, value: bool) -> None:
    """Routing only: the machine goes on. [1.2 cordon]"""
    machine.is_cordoned = value
    cloud.changes += 1


def changeable(cloud: Cloud, call: Call) -> Machine:
    """The machine, if the caller may change it now: a leased one needs its nonce. [1.2 lease, 0.5]"""
    machine = call.machine(cloud)
    if not is_visible(cloud, machine) or machine.state is State.DESTROYED:
        raise ApiError(404, "machine not found")
    check_lease(cloud, machine, call.headers)
    return machine
