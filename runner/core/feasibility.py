"""Whether a task can ever run: judged by the machines that there are, that come, and that pools may still boot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from runner.core.failures import failure_of
from runner.core.machine import COUNTED, Machine
from runner.core.resources import describe, missing
from runner.core.state import State
from runner.core.task import Task
from runner.core.values import FailureKind, FailureRecord, Labels, Shape
from runner.core.wants import Key, Want, describe_labels, matches, shape_of

_VERDICTS_MAX = 1024


class Kind(NamedTuple):
    """Machines that are all the same, and how many of them there may be at once."""

    shape: Shape
    labels: Labels
    unknown: tuple[str, ...]  # labels that are seen only once such a machine is there
    how_many: int
    is_there: bool  # not only a pool's promise


def kinds(state: State) -> list[Kind]:
    """All that there is or may be."""
    found = [Kind(shape, labels, (), count, True) for (shape, labels), count in state.capacity.items()]
    for pool in state.pools.values():
        more = pool.record.max - pool.coming - pool.ready
        if not state.is_budget_spent and pool.can_ever_grow:
            # One that is full may lose a machine and get another one.
            record = pool.record
            found.append(Kind(record.shape, record.labels, record.unknown_labels, max(more, 0), False))
    return found


def is_feasible(state: State, key: Key) -> bool:
    """Whether some machine, present or expected, can ever hold this."""
    verdict = state.verdicts.get(key)
    if verdict is None:
        if len(state.verdicts) >= _VERDICTS_MAX:
            state.verdicts.clear()
        verdict = not state.is_fleet_known or _can_hold(state, key)
        state.verdicts[key] = verdict
    return verdict


def _can_hold(state: State, key: Key) -> bool:
    if isinstance(key, Want) and key.group_id:
        bundles = state.groups.by_id[key.group_id].record.bundles
        chosen = bundles if key.bundle < 0 else bundles[key.bundle : key.bundle + 1]
        return any(not missing(key.shape, dict(bundle)) for bundle in chosen)
    if isinstance(key, Want) and key.machine_id:
        machine = _named(state, key.machine_id)
        return machine is not None and fits_kind(key, machine.shape, machine.labels)
    return any(fits_kind(key, kind.shape, kind.labels, kind.unknown) for kind in kinds(state))


def _named(state: State, machine_id: str) -> Machine | None:
    machine = state.machines.get(machine_id)  # type: ignore[call-overload]  # an id as a client said it
    return machine if machine is not None and machine.state in COUNTED else None


def fits_kind(key: Key, shape: Shape, labels: Labels, unknown: tuple[str, ...] = ()) -> bool:
    """Whether an empty machine of this kind would do."""
    if missing(shape_of(key), dict(shape)):
        return False
    return not isinstance(key, Want) or matches(labels, key.labels, unknown)


def unschedulable(state: State, task: Task) -> FailureRecord:
    """What it needs, what is missing, and what the cluster has."""
    what = "actor" if task.record.actor is not None else "task"
    text = f"{what} {task.task_id} needs {why_never(state, task.key)}"
    return failure_of(task, FailureKind.UNSCHEDULABLE, text)


def why_never(state: State, key: Key) -> str:
    """For people: what nobody can ever hold, and what the cluster has."""
    shape = shape_of(key)
    needs = describe(shape)
    if isinstance(key, Want) and key.group_id:
        return f"{needs} {_why_no_bundle(state, key)}"
    all_kinds: Iterable[Kind] = kinds(state)
    if isinstance(key, Want) and key.machine_id:
        if _named(state, key.machine_id) is None:
            return f"{needs} on machine {key.machine_id}, which is not there; NodeAffinity with soft=True takes another"
        all_kinds = [k for k in all_kinds if k.shape == state.machines[key.machine_id].shape]  # type: ignore[index]
        needs += f" on machine {key.machine_id}"
    elif isinstance(key, Want) and key.labels:
        needs += f" where {describe_labels(key.labels)}"
    text = f"{needs}, which no machine of this cluster can ever hold"
    able = [kind for kind in all_kinds if kind.shape or kind.how_many]
    if able:
        text += _lacks(key, able) + f"; the cluster has {'; '.join(describe_kinds(able))}"
    else:
        reasons = [machine.reason for machine in state.machines.values() if machine.reason]
        text += ": it has no machines left" + (f" (the last: {reasons[-1]})" if reasons else "")
    if state.is_budget_spent:
        text += "; max_cost is used up, so none is booted"
    return text


def _why_no_bundle(state: State, key: Want) -> str:
    group = state.groups.by_id[key.group_id]
    bundles = group.record.bundles
    if key.bundle >= len(bundles):
        return f"in bundle {key.bundle} of {group.story()}, which has the bundles 0 to {len(bundles) - 1}"
    if key.bundle >= 0:
        return f"in bundle {key.bundle} of {group.story()}, which has {describe(bundles[key.bundle])}"
    have = "; ".join(sorted({describe(bundle) for bundle in bundles}))
    return f"in {group.story()}, of which no bundle can hold that: they have {have}"


def _lacks(key: Key, able: list[Kind]) -> str:
    lacks = min((missing(shape_of(key), dict(kind.shape)) for kind in able), key=len)
    if not lacks and isinstance(key, Want) and key.labels:
        return "; missing: a machine with these labels"
    return f"; missing: {', '.join(lacks)}" if lacks else ""


def describe_kinds(able: list[Kind]) -> list[str]:
    """For people: each kind once, and how many there are."""
    there = {(kind.shape, kind.labels) for kind in able if kind.is_there}
    have = [f"{kind.how_many} x ({_machine(kind)})" for kind in sorted(able) if kind.is_there]
    return have + [
        f"machines of ({_machine(kind)}) on demand"
        for kind in sorted(able)
        if not kind.is_there and (kind.shape, kind.labels) not in there
    ]


def _machine(kind: Kind) -> str:
    labels = [pair for pair in kind.labels if not pair[0].startswith("runner.io/")]
    return describe(kind.shape) + (f" with {describe_labels(tuple(labels))}" if labels else "")
