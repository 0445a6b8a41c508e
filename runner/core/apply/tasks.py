"""Facts about tasks and attempts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import facts as f
from runner.core.actors import Actor, ActorState
from runner.core.apply.ends import end_actor, release_inputs, restart_actor, settle_returns
from runner.core.apply.lineage import await_inputs, may_rerun
from runner.core.commands import (
    DropCheckpoint,
    NoteCheckpoint,
    ReplyCheckpoint,
    ResumeAttempt,
    SendFunction,
    SendPackage,
    StartAttempt,
    StopAttempt,
    SweepCheckpoints,
)
from runner.core.machine import Machine, Slot
from runner.core.objects import Object
from runner.core.placement import expected_duration_s
from runner.core.reservation import Reservation
from runner.core.resources import amount_of, only_cpus
from runner.core.state import BACKOFF, State
from runner.core.streams import Stream
from runner.core.task import LINES_MAX, NO_CLIENT, Block, Task, TaskState
from runner.core.values import CPU, MEMORY, TaskRecord
from runner.ids import ClientId, ExecutorId, TaskId, return_id


# ---- from submission to a slot ----
def _add(state: State, fact: f.TaskAdded) -> None:
    record = fact.task
    function = state.functions.get(record.function_id)
    task = Task(record, state.task_order, function, _owner_of(state, record))
    state.task_order += 1
    state.tasks[record.task_id] = task
    state.task_counts[TaskState.WAITING] += 1
    owner = state.clients.get(task.owner_id)
    if owner is not None:
        owner.tasks[record.task_id] = task
    if function is not None:
        function.uses += 1
    if record.parent is not None:
        _add_child(state, record.parent[0], task)
    _make_returns(state, task, fact.is_subscribed)
    if record.dependencies or record.contained:
        task.pinned = state.objects.pin(record.dependencies + record.contained)
        task.missing = await_inputs(state, task)
    if record.actor is not None:
        state.actors.add(Actor(task, record.actor))
    if record.wishes is not None and record.wishes.group_id in state.groups.by_id:
        state.groups.by_id[record.wishes.group_id].tasks[record.task_id] = task
    if not task.missing:
        state.enqueue(task)
    if record.is_run:
        state.note_task(task)


def _owner_of(state: State, record: TaskRecord) -> ClientId:
    """An executor's session ends with its process, which says nothing about the children submitted through it."""
    parent = None if record.parent is None else state.tasks.get(record.parent[0])
    if parent is None:
        return record.client_id
    return NO_CLIENT if parent.record.detached else parent.owner_id


def _add_child(state: State, parent_id: TaskId, task: Task) -> None:
    parent = state.tasks.get(parent_id)
    if parent is not None:
        if parent.children is None:
            parent.children = {}
        parent.children[task.task_id] = task


def _make_returns(state: State, task: Task, is_subscribed: bool) -> None:
    record = task.record
    task.live_returns = record.num_returns
    client = state.clients[record.client_id]
    subscribers = client.only if is_subscribed else None
    if record.is_streaming:
        task.stream = Stream()
        client.streams[record.task_id] = task
    for index in range(record.num_returns):
        object_id = return_id(record.task_id, index)
        client.held.add(object_id)
        state.objects.by_id[object_id] = Object(object_id, task, holders=1, subscribers=subscribers)


def _end_backoff(state: State, fact: f.BackoffEnded) -> None:
    task = state.tasks[fact.task_id]
    state.enqueue(task)
    if task.record.is_run:
        state.note_task(task)


def _assign(state: State, fact: f.AttemptAssigned) -> None:
    task = state.tasks[fact.task_id]
    machine = state.machines[fact.machine_id]
    state.queues.take(task)
    if task.record.client_id not in state.clients:  # it ended before its task: nobody would forget its turn
        state.queues.forget_client(task.record.client_id)
    state.move_task(task, TaskState.ASSIGNED)
    task.attempt = fact.attempt
    task.last_machine_id = fact.machine_id
    slot = machine.slots.get(fact.slot)
    if slot is None:
        bundle = _bundle_of(state, task, fact.bundle) if fact.bundle >= 0 else None
        slot = machine.slots[fact.slot] = Slot(fact.slot, machine, task.shape, fact.gpu_ids, bundle)
        state.next_slot = fact.slot + 1
        if bundle is None:
            machine.resources.take(slot.shape, slot.gpu_ids)
        else:
            bundle.resources.take(slot.shape, slot.gpu_ids)
            state.dirty_bundles[bundle] = None
        state.dirty_machines[machine] = None
        machine.has_served = True
        state.note_idleness(machine)
    task.machine, task.slot = machine, slot
    if task.record.wishes is not None:
        state.note_warm(task.record.wishes.affinity_key, machine.machine_id)
    task.expected_s = expected_duration_s(task)
    slot.tasks.append(task)
    slot.work_s += task.expected_s
    state.dirty_slots[slot] = None
    _send(state, task, machine, slot)


def _bundle_of(state: State, task: Task, index: int) -> Reservation:
    assert task.record.wishes is not None
    bundle = state.groups.by_id[task.record.wishes.group_id].places[index]
    assert bundle is not None
    bundle.slots += 1
    return bundle


def _send(state: State, task: Task, machine: Machine, slot: Slot) -> None:
    record, function = task.record, task.function
    if function is not None and function.function_id not in machine.sent_functions:
        for package_id in function.package_ids:
            if package_id not in machine.sent_packages and package_id in state.packages:
                machine.sent_packages.add(package_id)
                package = state.packages[package_id]
                state.commands.append(SendPackage(machine.machine_id, machine.generation, package_id, package))
        machine.sent_functions.add(function.function_id)
        state.commands.append(
            SendFunction(machine.machine_id, machine.generation, function.function_id, function.payload)
        )
    stream = task.stream
    by_id = state.objects.by_id
    values = tuple((object_id, by_id[object_id].value) for object_id in record.dependencies)
    state.commands.append(
        StartAttempt(
            machine.machine_id,
            machine.generation,
            record.task_id,
            task.attempt,
            slot.slot_id,
            record.payload,
            task.owner_id or record.client_id,
            values,  # type: ignore[arg-type]  # a task is queued only when all of them are ready
            slot.gpu_ids,
            task.checkpoint,
            0 if task.shape == record.shape else amount_of(task.shape, MEMORY),
            0 if stream is None else stream.stored,
            0 if stream is None else stream.allowance,
        )
    )


# ---- on a slot ----
def _begin(state: State, fact: f.AttemptBegan) -> None:
    task = state.tasks[fact.task_id]
    state.move_task(task, TaskState.RUNNING)
    task.executor_id = fact.executor_id
    task.started_s = fact.now_s
    if task.record.is_run:
        state.note_task(task, resumed_from_step=-1 if task.checkpoint is None else task.checkpoint.step)


def _pause(state: State, fact: f.AttemptPaused) -> None:
    task = state.tasks[fact.task_id]
    slot, _ = _place_of(task)
    task.block = Block.BLOCKED
    slot.place.resources.give(only_cpus(slot.shape), ())
    _lend(slot, 1)
    state.dirty_slots[slot] = None
    state.touch(slot)
    state.is_placement_due = True


def _lend(slot: Slot, sign: int) -> None:
    if slot.bundle is None:
        slot.machine.lent += sign * amount_of(slot.shape, CPU)


def _awake(state: State, fact: f.AttemptAwoke) -> None:
    task = state.tasks[fact.task_id]
    slot, _ = _place_of(task)
    task.block = Block.AWAKE
    slot.place.awake[task.task_id] = task
    state.touch(slot)


def _resume(state: State, fact: f.AttemptResumed) -> None:
    task = state.tasks[fact.task_id]
    slot, machine = _place_of(task)
    slot.place.awake.pop(task.task_id, None)
    task.block = Block.NONE
    slot.place.resources.take(only_cpus(slot.shape), ())
    _lend(slot, -1)
    state.touch(slot)
    state.commands.append(ResumeAttempt(machine.machine_id, machine.generation, task.task_id, task.attempt))


def _mark_cancel(state: State, fact: f.CancelMarked) -> None:
    task = state.tasks[fact.task_id]
    _, machine = _place_of(task)
    task.is_cancelling = True
    task.is_cancel_forced |= fact.is_forced
    task.is_cancel_recursive |= fact.is_recursive
    if (actor := state.actors.by_id.get(fact.task_id)) is not None:
        state.actors.free_name(actor)
    state.commands.append(
        StopAttempt(machine.machine_id, machine.generation, task.task_id, task.attempt, "cancelled", fact.is_forced)
    )


def _checkpoint(state: State, fact: f.CheckpointCommitted) -> None:
    task = state.tasks[fact.task_id]
    _, machine = _place_of(task)
    old, task.checkpoint = task.checkpoint, fact.checkpoint
    step, record = fact.checkpoint.step, task.record
    if old is not None and old.uri != fact.checkpoint.uri:
        state.commands.append(DropCheckpoint(task.task_id, old))
    state.commands.append(
        ReplyCheckpoint(machine.machine_id, machine.generation, task.task_id, task.attempt, step, True)
    )
    state.commands.append(NoteCheckpoint(task.task_id, record.name, record.client_id, task.attempt, step))


# ---- leaving the slot ----
def _place_of(task: Task) -> tuple[Slot, Machine]:
    assert task.slot is not None
    assert task.machine is not None
    return task.slot, task.machine


def _leave_slot(state: State, task: Task) -> None:
    """The allocation passes to the next attempt on the slot; the last one frees it."""
    slot, machine = _place_of(task)
    place = machine if slot.bundle is None else slot.bundle
    slot.tasks.remove(task)
    slot.work_s = slot.work_s - task.expected_s if task.expected_s < 1e9 else sum(t.expected_s for t in slot.tasks)
    slot.is_closed = False
    state.dirty_slots[slot] = None
    state.is_placement_due = True
    if not slot.tasks:
        del machine.slots[slot.slot_id]
        if task.block is not Block.NONE:
            _lend(slot, -1)
        held = (
            slot.shape if task.block is Block.NONE else tuple(p for p in slot.shape if p not in only_cpus(slot.shape))
        )
        place.resources.give(held, slot.gpu_ids)
        state.dirty_machines[machine] = None
        if slot.bundle is not None:
            _leave_bundle(state, slot.bundle)
        state.note_idleness(machine)
    place.awake.pop(task.task_id, None)
    task.machine = task.slot = None
    task.block = Block.NONE
    task.executor_id = ExecutorId("")


def _leave_bundle(state: State, bundle: Reservation) -> None:
    bundle.slots -= 1
    state.dirty_bundles[bundle] = None
    if bundle.is_over and not bundle.slots:
        state.give_bundle_back(bundle)


def _give_back(state: State, fact: f.AttemptGivenBack) -> None:
    task = state.tasks[fact.task_id]
    slot, machine = _place_of(task)
    _leave_slot(state, task)
    slot.is_closed = bool(slot.tasks)
    if fact.is_fenced:
        state.commands.append(StopAttempt(machine.machine_id, machine.generation, task.task_id, task.attempt, "fenced"))
    state.enqueue(task, first=True)
    if task.record.actor is not None:
        restart_actor(state, task, "its machine gave it back")
    if task.record.is_run:
        state.note_task(task)


def _retry(state: State, fact: f.AttemptRetried) -> None:
    task = state.tasks[fact.task_id]
    _leave_slot(state, task)
    state.commands.append(SweepCheckpoints(task.task_id, task.checkpoint))
    task.retries_used += fact.is_charged
    task.kills += fact.is_killed
    if task.record.actor is not None:
        restart_actor(state, task, fact.line)
    if fact.line:
        task.lines = (*task.lines[1 - LINES_MAX :], fact.line)
    if fact.until_s is None:
        state.enqueue(task)
    else:
        state.move_task(task, TaskState.BACKOFF)
        task.backoff_until_s = fact.until_s
        state.set_timer(fact.until_s, BACKOFF, task.task_id)
    state.note_task(task)


# ---- the end ----
def _reshape(state: State, fact: f.TaskReshaped) -> None:
    state.tasks[fact.task_id].reshape(fact.shape)


def _finish(state: State, fact: f.AttemptDone) -> None:
    task = state.tasks[fact.task_id]
    if task.state is TaskState.ASSIGNED:  # agents do not report the start of what ended in the same batch
        state.move_task(task, TaskState.RUNNING)
        task.started_s = fact.now_s - fact.duration_s
    if task.function is not None and task.record.actor is None:
        task.function.learn(fact.duration_s)
    _leave_slot(state, task)
    state.move_task(task, TaskState.SUCCEEDED)
    task.ended_s = fact.now_s
    if task.record.is_run:
        state.note_task(task)
        state.commands.append(SweepCheckpoints(task.task_id, task.checkpoint))
    failure = end_actor(state, task) if task.record.actor is not None else None
    settle_returns(state, task, fact.values, failure)
    release_inputs(state, task, may_rerun=may_rerun(task, fact.values))


def _settle(state: State, fact: f.TaskSettled) -> None:
    task = state.tasks[fact.task_id]
    if task.slot is not None:
        _leave_slot(state, task)
    elif task.state is TaskState.QUEUED:
        state.queues.discard(task)
    state.move_task(task, TaskState.CANCELLED if fact.is_cancelled else TaskState.FAILED)
    task.failure = fact.failure
    task.ended_s = fact.now_s
    state.note_task(task)
    if task.record.is_run and task.attempt:
        state.commands.append(SweepCheckpoints(task.task_id, task.checkpoint))
    if task.record.actor is not None:
        state.move_actor(task, ActorState.DEAD, fact.failure)
    settle_returns(state, task, (), fact.failure)
    release_inputs(state, task)


TASK_FACTS: dict[type[Any], Callable[[State, Any], None]] = {
    f.TaskAdded: _add,
    f.BackoffEnded: _end_backoff,
    f.AttemptAssigned: _assign,
    f.AttemptBegan: _begin,
    f.AttemptPaused: _pause,
    f.AttemptAwoke: _awake,
    f.AttemptResumed: _resume,
    f.CancelMarked: _mark_cancel,
    f.CheckpointCommitted: _checkpoint,
    f.AttemptGivenBack: _give_back,
    f.AttemptRetried: _retry,
    f.TaskReshaped: _reshape,
    f.AttemptDone: _finish,
    f.TaskSettled: _settle,
}
