"""Facts about the items of generators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core import facts as f
from runner.core.commands import NotifyItems, TellItemsRead
from runner.core.objects import Object
from runner.core.state import State
from runner.core.streams import Stream
from runner.core.task import Task
from runner.ids import item_id


def _store(state: State, fact: f.ItemsStored) -> None:
    task, stream = _stream_of(state, fact)
    client_id, first_index = task.record.client_id, stream.stored
    held, objects = state.clients[client_id].held, state.objects
    for value in fact.values:
        object_id = item_id(fact.task_id, stream.stored)
        obj = objects.by_id[object_id] = Object(object_id, task, holders=1)
        held.add(object_id)
        objects.settle(obj, value, None)
        stream.stored += 1
    task.live_returns += len(fact.values)
    state.commands.append(NotifyItems(client_id, fact.task_id, first_index, fact.values))


def _read(state: State, fact: f.ItemsTaken) -> None:
    task, stream = _stream_of(state, fact)
    stream.read = fact.up_to
    _tell_maker(state, task)


def _drop(state: State, fact: f.StreamEnded) -> None:
    task, stream = _stream_of(state, fact)
    client = state.clients[task.record.client_id]
    del client.streams[fact.task_id]
    close(state, task)
    unread = (item_id(fact.task_id, index) for index in range(fact.up_to, stream.stored))
    state.objects.drop(client.held, unread)
    state.sweep()


def close(state: State, task: Task) -> None:
    """Nobody reads on: what its generator yields from now on goes, and it waits for nobody."""
    assert task.stream is not None
    task.stream.is_open = False
    _tell_maker(state, task)


def _tell_maker(state: State, task: Task) -> None:
    if task.record.backpressure and task.machine is not None and task.stream is not None:
        machine, count = task.machine, task.stream.allowance
        told = TellItemsRead(machine.machine_id, machine.generation, task.task_id, task.attempt, count)
        state.commands.append(told)


def _stream_of(state: State, fact: f.ItemsStored | f.ItemsTaken | f.StreamEnded) -> tuple[Task, Stream]:
    task = state.tasks[fact.task_id]
    assert task.stream is not None
    return task, task.stream


STREAM_FACTS: dict[type[Any], Callable[[State, Any], None]] = {
    f.ItemsStored: _store,
    f.ItemsTaken: _read,
    f.StreamEnded: _drop,
}
