from __future__ import annotations

import pytest

from runner.training import Board
from runner.training.board import printable
from tests.unit.training.stories import Event, booting, four_running, half_epochs, queued, settled, started


def board_of(*events: Event) -> Board:
    board = Board()
    for event in events:
        board.apply(event)
    return board


def test_a_run_goes_through_its_states() -> None:
    board = board_of(*queued(1))
    assert board.rows["t0"].state == "queued"
    for event in started(0):
        board.apply(event)
    row = board.rows["t0"]
    assert (row.state, row.machine_id, row.name, row.attempt) == ("running", "m-0000", "lr=5e-06", 1)
    board.apply(settled(0, "SUCCEEDED"))
    assert row.state == "done"
    assert board.is_settled
    assert row.duration_s(now_s=2000.0) == pytest.approx(39.5)


def test_metrics_make_a_curve_and_the_last_values() -> None:
    row = board_of(*queued(2), *half_epochs(1, 5)).rows["t1"]
    assert row.epoch == 2.5
    assert row.last("accuracy") == pytest.approx(0.54)
    assert [epoch for epoch, _ in row.curve("accuracy")] == [1.0, 2.0]
    assert row.last("nothing") is None


def test_without_an_epoch_the_step_is_the_place_on_the_axis() -> None:
    row = board_of(Event("metrics", 1.0, "t0", "a", step=7, values={"loss": 1})).rows["t0"]
    assert row.curve("loss") == [(7.0, 1.0)]


def test_a_later_attempt_cuts_the_curve_where_it_goes_on() -> None:
    board = board_of(*queued(1), *started(0), *half_epochs(0, 5))
    board.apply(Event("attempt", 1050.0, "t0", attempt=2, step=1, machine_id="m-0001"))
    row = board.rows["t0"]
    assert [point.epoch for point in row.points] == [0.5, 1.0]
    assert (row.resumes, row.attempt, row.machine_id) == ([1.0], 2, "m-0001")
    board.apply(Event("attempt", 1060.0, "t0", attempt=3, step=-1))
    assert row.points == []
    assert row.resumes == [1.0, 0.0]


def test_values_that_are_no_numbers_are_not_drawn() -> None:
    values = {"loss": "n/a", "done": True, "accuracy": None}
    row = board_of(Event("metrics", 1.0, "t0", "a", step=1, values=values)).rows["t0"]
    assert [row.last(name) for name in values] == [None, None, None]


def test_the_reason_of_a_failure_is_kept() -> None:
    board = board_of(*queued(1), settled(0, "FAILED", failure="ValueError: no"))
    assert board.rows["t0"].failure == "ValueError: no"


def test_machines_and_what_runs_on_them() -> None:
    board = board_of(*queued(1), *booting(2), *started(0))
    assert [machine.state for machine in board.machines.values()] == ["ready", "ready"]
    assert board.machines["m-0001"].ready_s == 0.31
    assert board.running_on("m-0000") == ["lr=5e-06"]
    assert board.running_on("m-0001") == []


def test_a_gap_in_the_log_is_told() -> None:
    board = board_of(*queued(1), Event("log_gap", 1.0, "t0", lines_dropped=12))
    assert board.log[-1].text == "(12 lines were not kept)"


def test_a_reader_that_comes_late_knows_the_name_from_any_event() -> None:
    assert board_of(Event("log", 1.0, "t9", "late", text="x")).rows["t9"].name == "late"


def test_kinds_that_it_does_not_know_change_nothing() -> None:
    board = board_of(Event("checkpoint", 1.0, "t0", "a", step=1))
    assert board.rows["t0"].points == []


@pytest.mark.parametrize(
    ("raw", "shown"),
    [("plain\n", "plain"), (" 10%|#\r 50%|###\r\n", " 50%|###"), ("\x1b[31mred", " [31mred"), ("a\tb", "a    b")],
)
def test_log_lines_cannot_move_the_cursor(raw: str, shown: str) -> None:
    assert printable(raw) == shown


def test_rows_keep_the_order_of_submission() -> None:
    assert list(board_of(*four_running()).rows) == ["t0", "t1", "t2", "t3"]
