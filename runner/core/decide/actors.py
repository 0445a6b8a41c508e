"""Decisions about actors and promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import events as e
from runner.core import facts as f
from runner.core.actors import Actor, ActorState
from runner.core.commands import FreeSegment, NotifyActor, NotifyFound
from runner.core.decide.suspend import wake_to_tell
from runner.core.lineage import lose_strays
from runner.core.settle import cancelled, end_promise
from runner.core.settle import settle as settle_task
from runner.core.state import State, actor_notice
from runner.core.task import Task, TaskState
from runner.core.turn import Turn
from runner.core.values import FailureKind, FailureRecord, TaskRecord
from runner.ids import ClientId, ExecutorId, TaskId, return_id


# ---- promises ----
def _promised(turn: Turn, event: e.ObjectsPromised) -> None:
    state = turn.state
    client = state.clients.get(event.client_id)
    if client is None:
        return
    by_id, held = state.objects.by_id, client.held
    object_ids = tuple(dict.fromkeys(event.object_ids))
    if news := tuple(object_id for object_id in object_ids if object_id not in by_id):
        turn.record(f.PromisesMade(event.client_id, news))
    # The actor's process was faster and has stored the value: who promises holds it all the same.
    if stored := tuple(object_id for object_id in object_ids if object_id not in held):
        turn.record(f.RefsTaken(event.client_id, stored))


def _fulfilled(turn: Turn, event: e.PromiseFulfilled) -> None:
    state = turn.state
    client = state.clients.get(event.client_id)
    if client is not None and event.object_id in client.promised:
        end_promise(turn, event.client_id, event.object_id, event.value, event.failure)
        if event.value is not None and event.value.segment is not None:
            lose_strays(turn, (event.object_id,))
        return
    obj = state.objects.by_id.get(event.object_id)
    segment = None if event.value is None else event.value.segment
    there = None if obj is None or obj.value is None else obj.value.segment
    if segment is not None and (there is None or there.path != segment.path):
        state.commands.append(FreeSegment(event.object_id, segment))  # nobody will ever name it


# ---- names ----
def is_refused(turn: Turn, record: TaskRecord) -> bool:
    """Answer the creation of an actor with a name; True: there is one already, and the creator was told."""
    actor = record.actor
    if actor is None or not actor.name:
        return False
    state, client_id = turn.state, record.client_id
    there = state.actors.names.get((actor.namespace, actor.name))
    if there is None:
        state.commands.append(NotifyFound(client_id, record.task_id, record.task_id, actor.meta, None))
        return False
    if actor.get_if_exists:
        _hand_out(turn, client_id, record.task_id, there)
    else:
        text = (
            f"the name {actor.name!r} is taken by actor {there.actor_id}"
            + (f" in namespace {actor.namespace!r}" if actor.namespace else "")
            + "; use another name, get_if_exists=True, or runner.get_actor(name)"
        )
        failure = FailureRecord(FailureKind.SETUP, text, b"", record.task_id, record.name)
        state.commands.append(NotifyFound(client_id, record.task_id, None, b"", failure))
    return True


def _sought(turn: Turn, event: e.ActorSought) -> None:
    state = turn.state
    if event.client_id not in state.clients:
        return
    there = state.actors.names.get((event.namespace, event.name))
    if there is not None:
        _hand_out(turn, event.client_id, event.request_id, there)
        return
    space = f" in namespace {event.namespace!r}" if event.namespace else ""
    text = f"there is no actor with the name {event.name!r}{space}; it was never made, or has died"
    failure = FailureRecord(FailureKind.ACTOR_DIED, text)
    state.commands.append(NotifyFound(event.client_id, event.request_id, None, b"", failure))


def _hand_out(turn: Turn, client_id: ClientId, request_id: str, actor: Actor) -> None:
    """Tell of an actor; the session is a holder of its handle from now on."""
    state = turn.state
    if actor.handle_id in state.objects.by_id and actor.handle_id not in state.clients[client_id].held:
        turn.record(f.RefsTaken(client_id, (actor.handle_id,)))
    state.commands.append(NotifyFound(client_id, request_id, actor.actor_id, actor.record.meta, None))


# ---- watching ----
def _watched(turn: Turn, event: e.ActorsWatched) -> None:
    state, client_id = turn.state, event.client_id
    if client_id not in state.clients:
        return
    for actor_id in event.actor_ids:
        actor = state.actors.by_id.get(actor_id)
        if actor is None:
            text = f"actor {actor_id} is not known: it has died and was forgotten, or was never made"
            failure = FailureRecord(FailureKind.ACTOR_DIED, text, b"", actor_id)
            state.commands.append(NotifyActor(client_id, actor_id, ActorState.DEAD.label, failure=failure))
            continue
        if client_id not in actor.watchers:
            turn.record(f.ActorWatched(client_id, actor_id))
        state.commands.append(actor_notice(client_id, actor))


# ---- lives ----
def current_actor(state: State, task_id: TaskId) -> Actor | None:
    actor = state.actors.by_id.get(task_id)
    return None if actor is None or actor.state is ActorState.DEAD else actor


def _came_up(turn: Turn, event: e.ActorCameUp) -> None:
    task = turn.state.current(event.machine_id, event.generation, event.task_id, event.attempt)
    if task is None or current_actor(turn.state, event.task_id) is None:
        return
    if task.state is TaskState.ASSIGNED:
        turn.record(f.AttemptBegan(event.task_id, ExecutorId(""), turn.now_s))
    if turn.state.actors.by_id[event.task_id].state is not ActorState.ALIVE:
        turn.record(f.ActorUp(event.task_id, event.address, event.secret))


def _killed(turn: Turn, event: e.ActorKillRequested) -> None:
    actor = current_actor(turn.state, event.actor_id)
    if actor is None:
        return
    task = actor.task
    if not event.no_restart:
        if task.slot is not None and not task.is_cancelling and not actor.is_restart_wanted:
            turn.record(f.ActorShot(task.task_id))
    elif task.slot is None:
        settle_task(turn, task, cancelled(task), is_cancelled=True)
    elif not task.is_cancel_forced:
        turn.record(f.CancelMarked(task.task_id, True, True))
    wake_to_tell(turn, task)


def release_abandoned(turn: Turn) -> None:
    """Actors whose last handle is gone end, but for detached ones."""
    abandoned = turn.state.objects.abandoned
    while abandoned:
        task = abandoned.pop()
        if task.is_settled() or task.is_cancelling or task.record.detached or _is_held(turn.state, task):
            continue
        release(turn, task)


def _is_held(state: State, task: Task) -> bool:
    obj = state.objects.by_id.get(return_id(task.task_id, 0))
    return obj is not None and bool(obj.holders or obj.pins)


def release(turn: Turn, task: Task) -> None:
    """End an actor gracefully: its exit hooks run."""
    if task.slot is None:
        settle_task(turn, task, cancelled(task), is_cancelled=True)
    else:
        turn.record(f.ActorReleased(task.task_id))


ACTOR_EVENTS: dict[type[Any], Callable[[Turn, Any], None]] = {
    e.ObjectsPromised: _promised,
    e.PromiseFulfilled: _fulfilled,
    e.ActorSought: _sought,
    e.ActorsWatched: _watched,
    e.ActorCameUp: _came_up,
    e.ActorKillRequested: _killed,
}
