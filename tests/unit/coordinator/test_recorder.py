"""What enters the event log: each item once, floods bounded and counted, attempts announced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.coordinator.event_log import EventLog, Selector
from runner.coordinator.recorder import LOG_LINES_BURST, LOG_LINES_PER_S, LogEntry, Recorder
from runner.coordinator.task_index import TaskIndex
from runner.core import commands
from runner.core.cluster import Cluster
from runner.core.values import TaskRecord
from runner.ids import ClientId, FunctionId, MachineId, TaskId
from runner.rpc.gen import client_pb2, fleet_pb2
from runner.testing import FakeClock

RUN = TaskId("run")


class Setup:
    def __init__(self, path: Path) -> None:
        self.log = EventLog(path)
        self.clock = FakeClock()
        tasks = TaskIndex(Cluster())
        tasks.add(TaskRecord(RUN, ClientId("c"), FunctionId("f"), b"", name="lr=1", is_run=True))
        self.recorder = Recorder(self.log, self.clock, tasks)

    def state(self, state: str, attempt: int = 1, *, resumed: int | None = None) -> None:
        note = commands.NoteTaskState(RUN, "lr=1", ClientId("c"), state, attempt, None, None, resumed)
        self.recorder.task_state(note)

    def lines(self, first_index: int, *texts: str, dropped: int = 0, attempt: int = 1) -> None:
        item = fleet_pb2.LogLines(first_index=first_index, stream="stdout", lines=texts, lines_dropped=dropped)
        self.recorder.attempt_item(LogEntry(MachineId("m"), 1, RUN, attempt, item))

    def metrics(self, index: int, attempt: int = 1) -> None:
        item = fleet_pb2.Metrics(index=index, step=index)
        self.recorder.attempt_item(LogEntry(MachineId("m"), 1, RUN, attempt, item))

    def shown(self) -> list[str]:
        events, next_seq = [], 1
        while next_seq <= self.log.newest_seq:
            found, next_seq = self.log.read(Selector(), next_seq)
            events.extend(found)
        return [_short(event) for event in events]


@pytest.fixture
def setup(tmp_path: Path) -> Iterator[Setup]:
    setup = Setup(tmp_path / "events.db")
    yield setup
    setup.log.close()


def test_items_are_kept_once(setup: Setup) -> None:
    setup.state("running", resumed=-1)
    setup.lines(1, "a", "b")
    setup.metrics(3)
    setup.lines(1, "a", "b")
    setup.metrics(3)
    setup.lines(2, "b", "c", "d")  # overlaps: `c` was index 3
    assert setup.shown() == ["running", "attempt 1 from -1", "a", "b", "metrics 3", "d"]


def test_a_new_attempt_counts_from_one_again(setup: Setup) -> None:
    setup.state("running", resumed=-1)
    setup.metrics(1)
    setup.state("running", attempt=2, resumed=5)
    setup.metrics(1, attempt=2)
    assert setup.shown() == [
        "running",
        "attempt 1 from -1",
        "metrics 1",
        "running",
        "attempt 2 from 5",
        "metrics 1",
    ]


def test_dropped_lines_leave_a_counted_gap(setup: Setup) -> None:
    setup.lines(1, "a")
    setup.lines(12, "b", dropped=10)
    setup.lines(12, "b", dropped=10)
    assert setup.shown() == ["a", "gap 10", "b"]


def test_lines_that_were_only_counted_take_an_index_too(setup: Setup) -> None:
    setup.lines(1, "a")
    setup.lines(2, dropped=7)
    setup.lines(2, dropped=7)
    setup.lines(3, "b")
    assert setup.shown() == ["a", "gap 7", "b"]


def test_a_flood_is_bounded_and_counted(setup: Setup) -> None:
    setup.lines(1, *["x"] * (LOG_LINES_BURST + 500))
    assert len(setup.shown()) == LOG_LINES_BURST
    setup.clock.advance(1.0)
    setup.lines(LOG_LINES_BURST + 501, "later")
    assert setup.shown()[-2:] == ["gap 500", "later"]
    assert LOG_LINES_PER_S > 1


def test_a_gap_at_the_end_is_told_when_the_attempt_ends(setup: Setup) -> None:
    setup.lines(1, *["x"] * (LOG_LINES_BURST + 3))
    setup.state("succeeded")
    assert setup.shown()[-2:] == ["gap 3", "succeeded"]


def test_the_log_remembers_what_a_restarted_recorder_does_not(setup: Setup) -> None:
    setup.lines(1, "a", "b")
    setup.log.flush()
    setup.recorder._streams.clear()
    setup.lines(1, "a", "b", "c")
    assert setup.shown() == ["a", "b", "c"]


def _short(event: client_pb2.Event) -> str:
    if event.kind == client_pb2.EVENT_KIND_LOG_GAP:
        return f"gap {event.lines_dropped}"
    if event.kind == client_pb2.EVENT_KIND_ATTEMPT:
        return f"attempt {event.attempt} from {event.step}"
    if event.kind == client_pb2.EVENT_KIND_METRICS:
        return f"metrics {event.step}"
    return event.state or event.text
