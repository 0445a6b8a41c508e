"""Decisions about sessions and refs. An unknown session has ended: nothing it says counts any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import events as e
from runner.core import facts as f
from runner.core.clients import Client
from runner.core.commands import FreeSegment, NotifyReady
from runner.core.decide.groups import remove_groups_of
from runner.core.decide.streams import resume
from runner.core.lineage import lose_strays, rebuild
from runner.core.objects import ObjectState
from runner.core.settle import cancel, end_promise
from runner.core.turn import Turn
from runner.core.values import FailureKind, FailureRecord
from runner.ids import ObjectId


def _connected(turn: Turn, event: e.ClientConnected) -> None:
    client = turn.state.clients.get(event.client_id)
    if client is None:
        turn.record(f.ClientSeen(event.client_id, event.executor_id))
    elif client.lease_until_s is not None:
        turn.record(f.ClientLeased(event.client_id, None))


def _disconnected(turn: Turn, event: e.ClientDisconnected) -> None:
    client = turn.state.clients.get(event.client_id)
    if client is not None and client.lease_until_s is None:
        turn.record(f.ClientLeased(event.client_id, turn.now_s + turn.state.config.client_lost_after_s))


def _closed(turn: Turn, event: e.ClientClosed) -> None:
    client = turn.state.clients.get(event.client_id)
    if client is not None:
        close_client(turn, client)


def close_client(turn: Turn, client: Client) -> None:
    """End a session: its refs and its unfinished work go, but for what is detached."""
    cancel(turn, [t for t in client.tasks.values() if not t.record.detached], force=False, recursive=True)
    for object_id in sorted(client.promised):
        text = f"the process that was to make object {object_id} has ended before it had the value"
        end_promise(turn, client.client_id, object_id, None, FailureRecord(FailureKind.OWNER_DIED, text))
    remove_groups_of(turn, client)
    turn.record(f.ClientGone(client.client_id))


def _frame(turn: Turn, event: e.FrameApplied) -> None:
    client = turn.state.clients.get(event.client_id)
    if client is not None and event.seq > client.frame_seq:
        turn.record(f.FrameDone(event.client_id, event.seq))


def _function(turn: Turn, event: e.FunctionRegistered) -> None:
    client = turn.state.clients.get(event.client_id)
    if client is None or event.function_id in client.functions:
        return
    payload = b"" if event.function_id in turn.state.functions else event.payload
    turn.record(
        f.FunctionAdded(event.client_id, event.function_id, event.name, payload, event.contained, event.package_ids)
    )


def _package(turn: Turn, event: e.PackageRegistered) -> None:
    if event.package_id not in turn.state.packages:
        turn.record(f.PackageAdded(event.package_id, event.payload))


def _put(turn: Turn, event: e.ObjectPut) -> None:
    state = turn.state
    obj = state.objects.by_id.get(event.object_id)
    if obj is not None:
        if obj.promised_by and event.client_id in state.clients:  # by the caller of the actor that stores its result
            turn.record(f.RefsTaken(event.client_id, (event.object_id,)))
            end_promise(turn, obj.promised_by, event.object_id, event.value, None)
            if event.value.segment is not None:
                lose_strays(turn, (event.object_id,))
        return
    if event.client_id in state.clients:
        turn.record(f.ObjectStored(event.client_id, event.object_id, event.value))
        if event.value.segment is not None:
            lose_strays(turn, (event.object_id,))
    else:
        _refused(turn, e.PutRefused(event.object_id, event.value))


def _refused(turn: Turn, event: e.PutRefused) -> None:
    segment = event.value.segment
    if segment is not None and event.object_id not in turn.state.objects.by_id:  # nobody will ever name it
        turn.state.commands.append(FreeSegment(event.object_id, segment))


def _refs_added(turn: Turn, event: e.RefsAdded) -> None:
    client = turn.state.clients.get(event.client_id)
    if client is None:
        return
    by_id, held = turn.state.objects.by_id, client.held
    news = tuple(object_id for object_id in event.object_ids if object_id in by_id and object_id not in held)
    if news:
        turn.record(f.RefsTaken(event.client_id, news))


def _refs_released(turn: Turn, event: e.RefsReleased) -> None:
    client = turn.state.clients.get(event.client_id)
    if client is None:
        return
    held = client.held
    released = tuple(object_id for object_id in event.object_ids if object_id in held)
    if released:
        turn.record(f.RefsDropped(event.client_id, released))


def _resolved(turn: Turn, event: e.ObjectsResolved) -> None:
    state, client_id = turn.state, event.client_id
    if client_id not in state.clients:
        return
    streams = state.clients[client_id].streams
    pending: list[ObjectId] = []
    for object_id in event.object_ids:
        obj = state.objects.by_id.get(object_id)
        if streams and resume(turn, client_id, object_id):
            continue
        if obj is None:
            state.commands.append(NotifyReady(client_id, object_id, None, unknown_object(object_id)))
        elif obj.state not in (ObjectState.PENDING, ObjectState.EVICTED):
            state.commands.append(NotifyReady(client_id, object_id, obj.value, obj.failure))
        elif obj.subscribers is None or client_id not in obj.subscribers:
            pending.append(object_id)
    if pending:
        turn.record(f.ObjectsAwaited(client_id, tuple(pending)))
        rebuild(turn, pending)


def unknown_object(object_id: ObjectId) -> FailureRecord:
    return FailureRecord(
        FailureKind.OBJECT_LOST, f"object {object_id} is not known: it was freed when nobody held it, or never made"
    )


CLIENT_EVENTS: dict[type[Any], Callable[[Turn, Any], None]] = {
    e.ClientConnected: _connected,
    e.ClientDisconnected: _disconnected,
    e.ClientClosed: _closed,
    e.FrameApplied: _frame,
    e.FunctionRegistered: _function,
    e.PackageRegistered: _package,
    e.ObjectPut: _put,
    e.PutRefused: _refused,
    e.RefsAdded: _refs_added,
    e.RefsReleased: _refs_released,
    e.ObjectsResolved: _resolved,
}
