"""Where a task would rather be: wishes that no task waits for."""

from __future__ import annotations

from collections.abc import Iterable

from runner.core.machine import Machine
from runner.core.state import State
from runner.core.task import Task
from runner.ids import MachineId, ObjectId

# Inputs smaller than this are quicker fetched than thought about.
_LARGE_BYTES = 1 << 20
# Of one host: those that are looked at, and inputs that are.
_LOOKED_AT = 8
_INPUTS_MAX = 256


def preferred(state: State, task: Task, best: Machine) -> Machine:
    """`best` has room and the least load; another one may be worth more to this task, if it has room too."""
    wishes = task.record.wishes
    if wishes is not None:
        for machine_id in (wishes.machine_id, state.warm.get(wishes.affinity_key) if wishes.affinity_key else ""):
            machine = state.machines.get(MachineId(machine_id)) if machine_id else None
            if machine is not None and machine.will_do(task.key):
                return machine
    host_id = data_host(state, task.record.dependencies)
    if host_id and host_id != best.host_id:
        for machine, _ in zip(state.hosts.get(host_id, ()), range(_LOOKED_AT), strict=False):
            if machine.will_do(task.key):
                return machine
    return best


def data_host(state: State, inputs: Iterable[ObjectId]) -> str:
    """The host that has most of the large inputs; empty when there are none."""
    sizes: dict[str, int] = {}
    for object_id, _ in zip(inputs, range(_INPUTS_MAX), strict=False):
        obj = state.objects.by_id.get(object_id)
        segment = None if obj is None or obj.value is None else obj.value.segment
        if segment is not None:
            sizes[segment.host_id] = sizes.get(segment.host_id, 0) + segment.size_bytes
    host_id = max(sizes, key=lambda host: sizes[host], default="")
    return host_id if host_id and sizes[host_id] >= _LARGE_BYTES else ""
