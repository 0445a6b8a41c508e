"""The event log: cursors, what is kept, who is woken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.coordinator.event_log import READ_EVENTS_MAX, EventLog, Selector
from runner.rpc.gen import client_pb2

METRICS = client_pb2.EVENT_KIND_METRICS
LOG = client_pb2.EVENT_KIND_LOG


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    log = EventLog(tmp_path / "events.db", tail_max=10)
    yield log
    log.close()


def append(
    log: EventLog, task_id: str, *, client_id: str = "c", kind: int = METRICS, item: int = 0, **more: bool
) -> None:
    event = client_pb2.Event(task_id=task_id, kind=kind, attempt=1, step=item)  # type: ignore[arg-type]
    log.append(event, client_id, item=item, **more)


def read_all(log: EventLog, selector: Selector, from_seq: int = 1) -> list[client_pb2.Event]:
    events: list[client_pb2.Event] = []
    while from_seq <= log.newest_seq:
        found, from_seq = log.read(selector, from_seq)
        events.extend(found)
    return events


def test_a_cursor_sees_everything_once_in_order_from_file_and_memory(log: EventLog) -> None:
    for n in range(100):
        append(log, f"t-{n % 3}", item=n)
        log.flush()
    everything = read_all(log, Selector())
    assert [event.step for event in everything] == list(range(100))
    assert [event.seq for event in everything] == list(range(1, 101))
    mine = read_all(log, Selector(frozenset({"t-1"})))
    assert [event.step for event in mine] == list(range(1, 100, 3))
    assert [event.seq for event in read_all(log, Selector(), from_seq=95)] == list(range(95, 101))


@pytest.mark.parametrize("tasks", [1, 100])
def test_frames_are_bounded(log: EventLog, tasks: int) -> None:
    for n in range(2 * READ_EVENTS_MAX):
        append(log, f"t-{n % tasks}", item=n)
    selector = Selector(frozenset(f"t-{n}" for n in range(tasks)))
    for _ in ("from memory", "from the file"):
        events, next_seq = log.read(selector, 1)
        assert len(events) <= READ_EVENTS_MAX
        assert next_seq <= 2 * READ_EVENTS_MAX
        assert len(read_all(log, selector)) == 2 * READ_EVENTS_MAX
        log.flush()


def test_selectors(log: EventLog) -> None:
    append(log, "t-1", client_id="a", kind=LOG)
    append(log, "t-2", client_id="b", kind=METRICS)
    append(log, "t-3", client_id="a", kind=METRICS)

    def tasks(selector: Selector) -> list[str]:
        return [event.task_id for event in read_all(log, selector)]

    assert tasks(Selector(client_id="a")) == ["t-1", "t-3"]
    assert tasks(Selector(kinds=frozenset({METRICS}))) == ["t-2", "t-3"]
    assert tasks(Selector(client_id="a", kinds=frozenset({METRICS}))) == ["t-3"]
    assert tasks(Selector(frozenset({"t-2"}), client_id="a")) == ["t-2"]


def test_numbers_go_on_after_a_restart_even_of_events_that_were_not_kept(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.db")
    append(log, "t-1")
    append(log, "t-1", keep=False)
    log.flush()
    newest = log.newest_seq
    log.close()
    log = EventLog(tmp_path / "events.db")
    assert len(read_all(log, Selector())) == 1
    append(log, "t-2")
    assert log.newest_seq > newest
    assert [event.task_id for event in read_all(log, Selector(), from_seq=newest + 1)] == ["t-2"]
    log.close()


def test_forgotten_tasks_leave_no_rows_and_runs_stay(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.db")
    append(log, "plain")
    append(log, "run", is_run=True)
    log.flush()
    log.close()
    log = EventLog(tmp_path / "events.db")  # also after a restart
    for task_id in ("plain", "run"):
        log.forget(task_id)
    log.flush()
    assert [event.task_id for event in read_all(log, Selector())] == ["run"]
    log.close()


def test_newest_item_of_an_attempt(log: EventLog) -> None:
    assert log.newest_item("t-1", 1) == 0
    append(log, "t-1", item=4)
    append(log, "t-1", item=7)
    log.flush()
    assert log.newest_item("t-1", 1) == 7
    assert log.newest_item("t-1", 2) == 0


async def test_only_who_wants_it_is_woken(log: EventLog) -> None:
    named = log.watch(Selector(frozenset({"t-1"})))
    other = log.watch(Selector(frozenset({"t-2"})))
    wide = log.watch(Selector(client_id="c", kinds=frozenset({METRICS})))
    append(log, "t-1")
    async with asyncio.timeout(1):
        await named.wait()
        await wide.wait()
    assert not other._event.is_set()
    assert log.is_wanted("t-2", "x", LOG)
    log.unwatch(other)
    log.unwatch(other)
    assert not log.is_wanted("t-2", "x", LOG)
    for watcher in (named, wide):
        log.unwatch(watcher)


def test_events_of_a_turn_that_was_not_committed_never_happened(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    log = EventLog(path)
    append(log, "t-1", item=1)
    log.flush(turn=1)
    append(log, "t-1", item=2)
    log.flush()  # of a turn that had nothing to commit
    append(log, "t-1", item=3)
    append(log, "t-1", item=4)
    log.flush(turn=2)
    log.close()
    for _ in range(2):
        log = EventLog(path)
        log.drop_uncommitted(1)
        assert [event.step for event in read_all(log, Selector())] == [1, 2]
        log.close()


def test_events_of_committed_turns_stay(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    log = EventLog(path)
    append(log, "t-1", item=1)
    log.flush(turn=7)
    log.close()
    log = EventLog(path)
    log.drop_uncommitted(7)
    assert log.newest_item("t-1", 1) == 1
    log.close()


def test_hidden_events_reach_no_reader(log: EventLog) -> None:
    append(log, "t-1", item=1)
    log.flush()
    first_seq = log.newest_seq + 1
    append(log, "t-1", item=2)
    log.hide(first_seq)
    assert [event.step for event in read_all(log, Selector())] == [1]
    assert log.read(Selector(), first_seq) == ([], first_seq)
