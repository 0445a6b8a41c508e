"""Facts about actors and promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import facts as f
from runner.core.actors import ActorState
from runner.core.apply.ends import announce, feed_dependents
from runner.core.commands import StopAttempt
from runner.core.objects import Object
from runner.core.state import State
from runner.core.task import NO_CLIENT


# ---- promises ----
def _promise(state: State, fact: f.PromisesMade) -> None:
    client = state.clients[fact.client_id]
    for object_id in fact.object_ids:
        state.objects.by_id[object_id] = Object(object_id, None, holders=1, promised_by=fact.client_id)
        client.held.add(object_id)
        client.promised.add(object_id)


def _fulfil(state: State, fact: f.PromiseEnded) -> None:
    obj = state.objects.by_id[fact.object_id]
    state.clients[fact.client_id].promised.discard(fact.object_id)
    obj.promised_by = NO_CLIENT
    state.objects.settle(obj, fact.value, fact.failure)
    if obj.subscribers is not None:
        announce(state.commands, obj)
    if fact.value is not None and obj.dependents is not None:
        feed_dependents(state, obj.dependents)
        obj.dependents = None
    state.objects.free_if_unused(obj)
    state.sweep()


# ---- actors ----
def _watch(state: State, fact: f.ActorWatched) -> None:
    state.actors.by_id[fact.actor_id].watchers[fact.client_id] = None
    state.clients[fact.client_id].watched.add(fact.actor_id)


def _come_up(state: State, fact: f.ActorUp) -> None:
    actor = state.actors.by_id[fact.actor_id]
    machine = actor.task.machine
    assert machine is not None
    actor.host_id, actor.address, actor.secret = machine.host_id, fact.address, fact.secret
    state.move_actor(actor.task, ActorState.ALIVE)


def _release(state: State, fact: f.ActorReleased) -> None:
    actor = state.actors.by_id[fact.actor_id]
    state.actors.free_name(actor)
    task = actor.task
    task.is_cancelling = True
    machine = task.machine
    assert machine is not None
    state.commands.append(StopAttempt(machine.machine_id, machine.generation, task.task_id, task.attempt, "released"))


def _shoot(state: State, fact: f.ActorShot) -> None:
    actor = state.actors.by_id[fact.actor_id]
    actor.is_restart_wanted = True
    task = actor.task
    machine = task.machine
    assert machine is not None
    state.commands.append(
        StopAttempt(machine.machine_id, machine.generation, task.task_id, task.attempt, "killed", True)
    )


ACTOR_FACTS: dict[type[Any], Callable[[State, Any], None]] = {
    f.PromisesMade: _promise,
    f.PromiseEnded: _fulfil,
    f.ActorWatched: _watch,
    f.ActorUp: _come_up,
    f.ActorReleased: _release,
    f.ActorShot: _shoot,
}
