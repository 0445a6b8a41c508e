"""The durable state as plain data: what a replay of the journal must reproduce."""

from __future__ import annotations

from dataclasses import asdict, astuple
from typing import Any

from runner.core.actors import Actor
from runner.core.clients import Client, Function
from runner.core.groups import Group
from runner.core.machine import Machine
from runner.core.objects import Object
from runner.core.reservation import Reservation
from runner.core.state import State
from runner.core.task import Task


def snapshot(state: State) -> dict[str, Any]:
    """Sorted where order means nothing, in order where it does (queues, slots)."""
    return {
        "tasks": {task_id: _task(task) for task_id, task in state.tasks.items()},
        "machines": {machine_id: _machine(machine) for machine_id, machine in state.machines.items()},
        "objects": {object_id: _object(obj) for object_id, obj in state.objects.by_id.items()},
        "actors": {actor_id: _actor(actor) for actor_id, actor in state.actors.by_id.items()},
        "names": {key: actor.actor_id for key, actor in state.actors.names.items()},
        "clients": {client_id: _client(client) for client_id, client in state.clients.items()},
        "functions": {function_id: _function(function) for function_id, function in state.functions.items()},
        "packages": dict(state.packages),
        "queues": [
            (key, [task.task_id for task in queue.tasks()])
            for key, queue in sorted(state.queues.by_key.items(), key=lambda each: repr(each[0]))
        ],
        "turns": dict(state.queues.turns),
        "counts": {kind.label: count for kind, count in state.task_counts.items()},
        "capacity": dict(state.capacity),
        "pools": [(pool.record, {s: n for s, n in pool.counts.items() if n}) for pool in state.pools.values()],
        "configured": state.configured,
        "next_slot": state.next_slot,
        "groups": [_group(group) for group in state.groups.by_id.values()],
        "waiting": [group.group_id for group in state.groups.waiting],
        "hosts": {host: [machine.machine_id for machine in machines] for host, machines in state.hosts.items()},
        "warm": dict(state.warm),
    }


def _task(task: Task) -> dict[str, Any]:
    plain = {
        name: getattr(task, name)
        for name in Task.__dataclass_fields__
        if name not in ("record", "machine", "slot", "function", "children")
    }
    plain["record"] = asdict(task.record)
    plain["machine"] = None if task.machine is None else task.machine.machine_id
    plain["slot"] = None if task.slot is None else task.slot.slot_id
    plain["function"] = None if task.function is None else task.function.function_id
    plain["stream"] = None if task.stream is None else astuple(task.stream)
    plain["children"] = sorted(task.children or ())
    return plain


def _machine(machine: Machine) -> dict[str, Any]:
    volatile = ("emptying", "resources", "slots", "reservations", "awake", "version", "heard_s", "lease_due_s")
    plain = {name: getattr(machine, name) for name in Machine.__dataclass_fields__ if name not in volatile}
    plain["phases"] = dict(machine.phases)
    sleep = machine.sleep
    plain["sleep"] = (
        None if sleep is None else (sleep.snapshot, sleep.stage, sleep.suspended_s, sleep.slept_s, sleep.is_wanted)
    )
    plain["sent_functions"] = sorted(machine.sent_functions)
    plain["sent_packages"] = sorted(machine.sent_packages)
    plain["trail"] = list(machine.trail)
    plain["free"] = dict(machine.resources.free)
    plain["gpu_free"] = list(machine.resources.gpu_free)
    plain["awake"] = list(machine.awake)
    plain["reservations"] = [_reservation(each) for each in machine.reservations]
    plain["slots"] = {
        slot.slot_id: (slot.shape, slot.gpu_ids, [t.task_id for t in slot.tasks], slot.work_s, slot.is_closed)
        for slot in machine.slots.values()
    }
    return plain


def _reservation(bundle: Reservation) -> tuple[Any, ...]:
    of = (bundle.group.group_id, bundle.index, bundle.gpu_ids, bundle.slots, bundle.is_over)
    return of, list(bundle.awake), dict(bundle.resources.free), list(bundle.resources.gpu_free)


def _group(group: Group) -> dict[str, Any]:
    places = [None if each is None else (each.machine.machine_id, each.gpu_ids) for each in group.places]
    kept = (group.owner_id, group.state, group.attempt, group.due_s, group.failure, sorted(group.tasks))
    return {"record": group.record, "places": places, "rest": kept}


def _object(obj: Object) -> dict[str, Any]:
    maker = None if obj.maker is None else obj.maker.task_id
    dependents = [task.task_id for task in obj.dependents or ()]
    subscribers = list(obj.subscribers or ())
    kept = (
        obj.state,
        obj.value,
        obj.failure,
        obj.holders,
        obj.pins,
        obj.contained,
        obj.promised_by,
        obj.lineage,
        obj.gone,
    )
    return {"maker": maker, "dependents": dependents, "subscribers": subscribers, "rest": kept}


def _actor(actor: Actor) -> tuple[Any, ...]:
    told = (actor.host_id, actor.address, actor.secret, actor.failure)
    return actor.record, actor.state, told, actor.is_restart_wanted, list(actor.watchers)


def _client(client: Client) -> tuple[Any, ...]:
    refs = (sorted(client.held), list(client.tasks), sorted(client.functions))
    more = (sorted(client.promised), sorted(client.watched), list(client.streams))
    return client.executor_id, client.lease_until_s, client.frame_seq, refs, more


def _function(function: Function) -> tuple[Any, ...]:
    counts = (function.clients, function.uses, function.mean_s)
    return function.name, function.payload, function.package_ids, function.pinned, counts
