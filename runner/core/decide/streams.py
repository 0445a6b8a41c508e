"""Decisions about generators: which items are new, and what follows when nobody reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from runner.core import facts as f
from runner.core import stream_events as e
from runner.core.commands import FreeSegment, NotifyItems, NotifyReady
from runner.core.settle import cancel
from runner.core.state import State
from runner.core.streams import index_of, is_reader
from runner.core.task import Task
from runner.core.turn import Turn
from runner.core.values import ValueRecord
from runner.ids import ClientId, ObjectId, TaskId, item_id, return_id, task_of


def _yielded(turn: Turn, event: e.ItemsYielded) -> None:
    state = turn.state
    task = state.current(event.machine_id, event.generation, event.task_id, event.attempt)
    stream = None if task is None else task.stream
    values = event.values
    # An attempt is told what is stored and goes on from there, so no item is ever missing before these.
    if stream is None or not stream.is_open or event.first_index > stream.stored:
        _free(state, event.task_id, event.first_index, values)
        return
    repeated = stream.stored - event.first_index
    _free(state, event.task_id, event.first_index, values[:repeated])
    if news := values[repeated:]:
        turn.record(f.ItemsStored(event.task_id, news))


def _free(state: State, task_id: TaskId, first_index: int, values: Iterable[ValueRecord]) -> None:
    """They lie in segments that nobody will ever name; what is told again does not."""
    for index, value in enumerate(values, first_index):
        if value.segment is not None:
            object_id = item_id(task_id, index)
            obj = state.objects.by_id.get(object_id)
            if obj is None or obj.value is None or obj.value.segment != value.segment:
                state.commands.append(FreeSegment(object_id, value.segment))


def _read(turn: Turn, event: e.StreamRead) -> None:
    task = turn.state.tasks.get(event.task_id)
    if task is None or task.stream is None or not is_reader(task, event.client_id):
        return
    if task.stream.read < event.count:
        turn.record(f.ItemsTaken(event.task_id, event.count))


def _dropped(turn: Turn, event: e.StreamDropped) -> None:
    task = turn.state.tasks.get(event.task_id)
    if task is None or not is_reader(task, event.client_id):
        return
    # First, so that a generator that waits for its reader is interrupted there, and not let go on until it is.
    if not event.go_on and not task.is_settled():
        cancel(turn, [task], force=False, recursive=True)
    turn.record(f.StreamEnded(event.task_id, event.count))


def resume(turn: Turn, client_id: ClientId, object_id: ObjectId) -> bool:
    """The reader of a stream asks for its next item: tell that and all after it again. False: it is no such reader."""
    state = turn.state
    client, task_id, index = state.clients[client_id], task_of(object_id), index_of(object_id)
    task = client.streams.get(task_id) if task_id is not None else None
    if task is None or task.stream is None or index is None:
        return False
    by_id = state.objects.by_id
    values: list[ValueRecord] = []
    for number in range(index, task.stream.stored):
        obj = by_id.get(item_id(task.task_id, number))
        if obj is None or obj.value is None:
            break  # it has let go of this one, so it has had those before it
        values.append(obj.value)
    if values:
        state.commands.append(NotifyItems(client_id, task.task_id, index, tuple(values)))
    if task.is_settled():
        _tell_end(state, client_id, task)
    return True


def _tell_end(state: State, client_id: ClientId, task: Task) -> None:
    assert task.stream is not None
    completion = state.objects.by_id.get(return_id(task.task_id, 0))
    if completion is not None:
        state.commands.append(NotifyReady(client_id, completion.object_id, completion.value, completion.failure))
    state.commands.append(NotifyItems(client_id, task.task_id, task.stream.stored, (), True))


STREAM_EVENTS: dict[type[Any], Callable[[Turn, Any], None]] = {
    e.ItemsYielded: _yielded,
    e.StreamRead: _read,
    e.StreamDropped: _dropped,
}
