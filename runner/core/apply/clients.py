"""Facts about sessions, functions and refs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import facts as f
from runner.core.apply.streams import close as close_stream
from runner.core.clients import Client, Function
from runner.core.objects import Object
from runner.core.state import CLIENT, State


def _see(state: State, fact: f.ClientSeen) -> None:
    state.clients[fact.client_id] = Client(fact.client_id, fact.executor_id)


def _lease(state: State, fact: f.ClientLeased) -> None:
    state.clients[fact.client_id].lease_until_s = fact.until_s
    if fact.until_s is not None:
        state.set_timer(fact.until_s, CLIENT, fact.client_id)


def _go(state: State, fact: f.ClientGone) -> None:
    client = state.clients.pop(fact.client_id)
    for task in client.streams.values():
        close_stream(state, task)
    for actor_id in client.watched:
        actor = state.actors.by_id.get(actor_id)
        if actor is not None:
            actor.watchers.pop(fact.client_id, None)
    state.queues.forget_client(fact.client_id)
    state.objects.drop(client.held, sorted(client.held))
    state.sweep()
    for function_id in sorted(client.functions):
        function = state.functions[function_id]
        function.clients -= 1
        state.drop_function_if_unused(function)
    state.sweep()


def _frame(state: State, fact: f.FrameDone) -> None:
    state.clients[fact.client_id].frame_seq = fact.seq


def _add_function(state: State, fact: f.FunctionAdded) -> None:
    function = state.functions.get(fact.function_id)
    if function is None:
        pinned = state.objects.pin(fact.contained)
        function = Function(fact.function_id, fact.name, fact.payload, fact.package_ids, pinned)
        state.functions[fact.function_id] = function
    state.clients[fact.client_id].functions.add(fact.function_id)
    function.clients += 1


def _add_package(state: State, fact: f.PackageAdded) -> None:
    state.packages[fact.package_id] = fact.payload


def _store(state: State, fact: f.ObjectStored) -> None:
    obj = Object(fact.object_id, None, holders=1)
    state.objects.by_id[fact.object_id] = obj
    state.clients[fact.client_id].held.add(fact.object_id)
    state.objects.settle(obj, fact.value, None)


def _take_refs(state: State, fact: f.RefsTaken) -> None:
    state.objects.hold(state.clients[fact.client_id].held, fact.object_ids)


def _drop_refs(state: State, fact: f.RefsDropped) -> None:
    state.objects.drop(state.clients[fact.client_id].held, fact.object_ids)
    state.sweep()


def _await(state: State, fact: f.ObjectsAwaited) -> None:
    for object_id in fact.object_ids:
        obj = state.objects.by_id[object_id]
        obj.subscribers = (*(obj.subscribers or ()), fact.client_id)


CLIENT_FACTS: dict[type[Any], Callable[[State, Any], None]] = {
    f.ClientSeen: _see,
    f.ClientLeased: _lease,
    f.ClientGone: _go,
    f.FrameDone: _frame,
    f.FunctionAdded: _add_function,
    f.PackageAdded: _add_package,
    f.ObjectStored: _store,
    f.RefsTaken: _take_refs,
    f.RefsDropped: _drop_refs,
    f.ObjectsAwaited: _await,
}
