"""What is always true. Looks at everything, so it is for tests and debug builds."""

from __future__ import annotations

from collections import Counter

from runner.core.actors import ActorState
from runner.core.feasibility import is_feasible
from runner.core.groups import GroupState
from runner.core.machine import COUNTED, ENDED, SLEEPY, Machine, MachineState
from runner.core.objects import ObjectState
from runner.core.reservation import Reservation
from runner.core.resources import Resources, amount_of, only_cpus
from runner.core.sleep import REVOCABLE, Stage
from runner.core.state import State
from runner.core.streams import index_of
from runner.core.task import Block, Task, TaskState
from runner.core.values import CPU
from runner.core.wants import Key, Want
from runner.ids import MachineId, ObjectId

# Which stages stand behind a machine's state.
STAGES = {
    MachineState.SUSPENDING: {*REVOCABLE, Stage.PREPARING, Stage.SAVING, Stage.CALLED_OFF, Stage.WAKING},
    MachineState.SUSPENDED: {Stage.SAVED},
    MachineState.RESUMING: {Stage.STARTING, Stage.WAKING},
}
_PLACED = frozenset({TaskState.ASSIGNED, TaskState.RUNNING})


def check(state: State) -> None:
    """Raise AssertionError for the first invariant that does not hold."""
    for machine in state.machines.values():
        _check_machine(machine)
    for task in state.tasks.values():
        _check_task(state, task)
    _check_attempts(state)
    _check_queues(state)
    _check_groups(state)
    _check_objects(state)
    _check_clients(state)
    _check_streams(state)
    _check_actors(state)
    _check_counts(state)


def _check_machine(machine: Machine) -> None:
    """Resources are never overcommitted: what is free is the total less what the slots hold."""
    heads = [slot.tasks[0] for slot in machine.slots.values() if slot.bundle is None]
    lent = [amount_of(head.shape, CPU) for head in heads if head.block is not Block.NONE]
    assert machine.lent == sum(lent), machine.story()
    expected = Resources(machine.shape)
    for bundle in machine.reservations:
        expected.take(bundle.shape, bundle.gpu_ids)
        _check_bundle(machine, bundle)
    for slot in machine.slots.values():
        if slot.bundle is not None:
            continue
        assert slot.tasks, f"empty slot {slot.slot_id}"
        assert slot.machine is machine
        expected.take(slot.shape, slot.gpu_ids)
        if slot.tasks[0].block is not Block.NONE:
            expected.give(only_cpus(slot.shape), ())
            assert len(slot.tasks) == 1, "nothing is chained behind a blocked attempt"
        assert all(task.block is Block.NONE for task in slot.tasks[1:])
        assert all(task.shape == slot.shape for task in slot.tasks)
    assert expected.free == machine.resources.free, machine.story()
    assert expected.gpu_free == machine.resources.gpu_free, machine.story()
    assert min([0, *expected.free.values(), *expected.gpu_free]) == 0, f"overcommitted: {machine.story()}"
    if machine.state in ENDED or not machine.generation:
        assert not machine.slots, machine.story()
    assert (machine.sleep is not None) == (machine.state in SLEEPY), machine.story()
    if machine.sleep is not None:
        assert machine.sleep.snapshot == machine.snapshot, machine.story()
        assert machine.sleep.stage in STAGES[machine.state], machine.story()
    awake = {t.task_id for s in machine.slots.values() if s.bundle is None for t in s.tasks if t.block is Block.AWAKE}
    assert awake == set(machine.awake)


def _check_bundle(machine: Machine, bundle: Reservation) -> None:
    """As a machine: what is free is what was reserved less what the slots hold."""
    slots = [slot for slot in machine.slots.values() if slot.bundle is bundle]
    assert len(slots) == bundle.slots
    assert bundle.machine is machine
    assert slots or not bundle.is_over, "given back when its last attempt has ended"
    assert bundle.is_over or bundle.group.places[bundle.index] is bundle
    assert bundle.is_over or machine.state is MachineState.READY, machine.story()
    expected = Resources.part(bundle.shape, bundle.gpu_ids)
    for slot in slots:
        assert len(slot.tasks) == 1, "nothing is chained in a bundle"
        expected.take(slot.shape, slot.gpu_ids)
        if slot.tasks[0].block is not Block.NONE:
            expected.give(only_cpus(slot.shape), ())
        assert slot.tasks[0].shape == slot.shape
    assert expected.free == bundle.resources.free, machine.story()
    assert expected.gpu_free == bundle.resources.gpu_free
    assert min([0, *expected.free.values(), *expected.gpu_free]) == 0, f"overcommitted: {bundle.group.story()}"
    awake = {slot.tasks[0].task_id for slot in slots if slot.tasks[0].block is Block.AWAKE}
    assert awake == set(bundle.awake)


def _check_groups(state: State) -> None:
    """All or nothing, and as the strategy says."""
    for group in state.groups.by_id.values():
        machines = [bundle.machine for bundle in group.standing()]
        assert all(bundle in bundle.machine.reservations for bundle in group.standing())
        if group.state is GroupState.CREATED:
            assert len(machines) == len(group.places), f"{group.story()} stands in part"
        elif group.state is not GroupState.RESCHEDULING:
            assert not machines, f"{group.story()} holds what it cannot use"
        if group.record.strategy == "STRICT_PACK":
            assert len(set(machines)) <= 1
        elif group.record.strategy == "STRICT_SPREAD":
            assert len(set(machines)) == len(machines)
        assert (group in state.groups.waiting) == (group.state in (GroupState.PENDING, GroupState.RESCHEDULING))
        assert not group.is_over() or all(task.is_cancel_forced for task in group.tasks.values())
        assert all(not task.is_settled() for task in group.tasks.values())


def _check_task(state: State, task: Task) -> None:
    placed = task.state in _PLACED
    assert placed == (task.slot is not None) == (task.machine is not None), task.story()
    assert placed or (task.block is Block.NONE and not task.executor_id)
    assert not task.is_settled() or (task.function is None) == (task.lineage is None), task.story()
    assert not task.is_settled() or not task.pinned or task.record.is_run, "only runs keep what they came to"
    assert task.lineage is None or task.state is TaskState.SUCCEEDED, task.story()
    assert task.is_settled() == (task.ended_s is not None)
    assert (task.missing == 0) or task.state in (TaskState.WAITING, TaskState.FAILED, TaskState.CANCELLED)
    assert not (task.state is TaskState.WAITING and task.missing == 0), f"ready but not queued: {task.story()}"
    assert not task.is_settled() or task.live_returns or task.record.is_run, f"not forgotten: {task.story()}"
    # Cancelled tasks are never tried again.
    assert not task.is_cancelling or placed or task.is_settled(), task.story()
    for child in (task.children or {}).values():
        assert not child.is_settled(), child.story()
    returns = [obj for obj in state.objects.by_id.values() if obj.maker is task]
    assert len(returns) == task.live_returns, task.story()


def _check_attempts(state: State) -> None:
    placed = [task for machine in state.machines.values() for task in machine.attempts()]
    assert len(placed) == len(set(placed)), "one current attempt per task"
    for task in placed:
        assert task.slot is not None
        assert task in task.slot.tasks
        assert state.tasks[task.task_id] is task


def _check_queues(state: State) -> None:
    queued = [task for queue in state.queues.by_key.values() for task in queue.tasks()]
    assert len(queued) == len(set(queued)), "queued once"
    assert set(queued) == {task for task in state.tasks.values() if task.state is TaskState.QUEUED}
    for key, queue in state.queues.by_key.items():
        assert queue.live == sum(task.key == key for task in queued)
        assert is_feasible(state, key), f"{queue.head().task_id} waits for what can never be"
        # Work conserving: nothing waits while a machine has room for it.
        idle = (
            [machine.machine_id for machine in state.machines.values() if _may_go(machine, key)]
            if not _group_id(key)
            else _free_bundles(state, key)
        )
        assert not idle, f"{queue.head().task_id} waits while {idle} have room"


def _group_id(key: Key) -> str:
    return key.group_id if isinstance(key, Want) else ""


def _free_bundles(state: State, key: Key) -> list[MachineId]:
    bundles = state.groups.by_id[_group_id(key)].standing()
    return [bundle.machine.machine_id for bundle in bundles if bundle.will_do(key)]


def _may_go(machine: Machine, key: Key) -> bool:
    return machine.will_do(key) and not (isinstance(key, Want) and key.machine_id not in ("", machine.machine_id))


def _check_objects(state: State) -> None:
    """Counts are what they count, and nothing lives without a reason."""
    holders = Counter(object_id for client in state.clients.values() for object_id in client.held)
    pins: Counter[ObjectId] = Counter()
    for task in state.tasks.values():
        if task.pinned:
            pins.update(task.pinned)
    for function in state.functions.values():
        pins.update(function.pinned)
    for obj in state.objects.by_id.values():
        if obj.contained:
            pins.update(obj.contained)
    lineage = Counter(object_id for task in state.tasks.values() for object_id in task.lineage or ())
    assert set(lineage) <= set(state.objects.by_id), "the record of what a task may need again was dropped"
    assert set(pins) <= set(state.objects.by_id), "a pinned object was freed"
    assert set(holders) <= set(state.objects.by_id), "a held object was freed"
    for object_id, obj in state.objects.by_id.items():
        assert obj.holders == holders[object_id], obj.story()
        assert obj.pins == pins[object_id], obj.story()
        assert obj.state is not ObjectState.FREED
        assert obj.lineage == lineage[object_id], obj.story()
        assert obj.state is ObjectState.PENDING or obj.holders or obj.pins or obj.lineage, f"leaked: {obj.story()}"
        if obj.value is not None and obj.value.segment is not None:
            assert obj.holders or obj.pins, f"lineage alone keeps no segment: {obj.story()}"
        assert (obj.state is ObjectState.READY) == (obj.value is not None)
        assert (obj.state is ObjectState.FAILED) == (obj.failure is not None)
        if obj.promised_by:
            assert obj.state is ObjectState.PENDING, obj.story()
            assert object_id in state.clients[obj.promised_by].promised, obj.story()
        elif obj.state is ObjectState.PENDING:
            assert obj.maker is not None
            assert not obj.maker.is_settled(), obj.story()
            if obj.maker.record.actor is not None and not obj.maker.record.detached:
                assert obj.holders or obj.pins or obj.maker.is_cancelling, f"nobody can call it: {obj.story()}"
        else:
            assert obj.subscribers is None
    assert not state.objects.freed
    assert not state.objects.dropped
    _check_places(state)


def _check_places(state: State) -> None:
    """What only one machine has lies on a machine that is there."""
    expected: dict[str, set[str]] = {}
    for obj in state.objects.by_id.values():
        segment = None if obj.value is None else obj.value.segment
        if segment is not None and segment.machine_id:
            expected.setdefault(segment.machine_id, set()).add(obj.object_id)
            machine = state.machines[segment.machine_id]
            assert machine.is_live or (machine.sleep is not None and machine.sleep.stage is Stage.CALLED_OFF), (
                obj.story()
            )
    assert {machine_id: set(there) for machine_id, there in state.objects.volatile.items()} == expected


def _check_clients(state: State) -> None:
    uses = Counter(task.function for task in state.tasks.values() if task.function is not None)
    users = Counter(function_id for client in state.clients.values() for function_id in client.functions)
    for function_id, function in state.functions.items():
        assert function.uses == uses[function]
        assert function.clients == users[function_id]
        assert function.uses or function.clients
    for client_id, client in state.clients.items():
        unfinished = {i for i, t in state.tasks.items() if t.owner_id == client_id and not t.is_settled()}
        # A session that comes back under the same name does not own what it left detached.
        assert set(client.tasks) <= unfinished


def _check_streams(state: State) -> None:
    """Items are numbered without gaps, and a stream is open as long as its reader is there and reads on."""
    for task_id, task in state.tasks.items():
        stream, reader = task.stream, state.clients.get(task.record.client_id)
        assert (stream is not None) == task.record.is_streaming
        if stream is not None:
            is_read = reader is not None and reader.streams.get(task_id) is task
            assert stream.is_open == is_read, task.story()
    for client in state.clients.values():
        assert all(state.tasks.get(task_id) is task for task_id, task in client.streams.items())
    for object_id, obj in state.objects.by_id.items():
        index = index_of(object_id)
        if index is not None and obj.maker is not None:
            assert obj.maker.stream is not None, obj.story()
            assert index < obj.maker.stream.stored, obj.story()
            assert obj.state is ObjectState.READY, obj.story()


def _check_actors(state: State) -> None:
    actors = state.actors
    assert set(actors.by_id) == {i for i, task in state.tasks.items() if task.record.actor is not None}
    for actor_id, actor in actors.by_id.items():
        assert actor.task is state.tasks[actor_id]
        assert (actor.state is ActorState.DEAD) == actor.task.is_settled(), actor.task.story()
        assert (actor.state is ActorState.ALIVE) == bool(actor.address), actor.task.story()
        assert actor.state is not ActorState.ALIVE or actor.task.state is TaskState.RUNNING, actor.task.story()
        assert all(actor_id in state.clients[client_id].watched for client_id in actor.watchers)
        key = (actor.record.namespace, actor.record.name)
        has_name = bool(actor.record.name) and actor.state is not ActorState.DEAD and not actor.task.is_cancelling
        assert (actors.names.get(key) is actor) == has_name, actor.task.story()
    for client in state.clients.values():
        assert client.promised <= client.held | set(state.objects.by_id)


def _check_counts(state: State) -> None:
    counts = Counter(task.state for task in state.tasks.values())
    assert all(counts[kind] == count for kind, count in state.task_counts.items())
    capacity = Counter(
        (machine.shape, machine.labels) for machine in state.machines.values() if machine.state in COUNTED
    )
    assert capacity == state.capacity
    for name, pool in state.pools.items():
        mine = [machine for machine in state.machines.values() if machine.pool == name]
        counted = Counter(machine.state for machine in mine)
        assert all(counted[kind] == count for kind, count in pool.counts.items() if kind is not MachineState.DESTROYED)
        assert pool.there <= pool.record.max, f"pool {name} has more machines than its maximum"
        assert set(pool.asleep) == {m for m in mine if m.state is MachineState.SUSPENDED}
        assert set(pool.idle) == {
            m for m in mine if m.state is MachineState.READY and not m.slots and not m.reservations
        }
    draining = [m for m in state.machines.values() if m.state is MachineState.DRAINING and not m.slots]
    volatile = state.objects.volatile
    assert all(m.machine_id in volatile for m in draining), "an empty draining machine stops"
    assert all(m.emptying >= set(volatile[m.machine_id]) for m in draining), "what it has was asked for"
