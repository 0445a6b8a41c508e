from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from runner.training import Board, Results
from runner.training.sparkline import sparkline
from runner.training.timings import percentile
from tests.unit.training.stories import Event, booting, four_running, half_epochs, queued, settled


def results_of(events: list[Event]) -> Results:
    board = Board()
    for event in events:
        board.apply(event)
    return Results.of(board, total_s=40.0, metrics=("loss", "accuracy"), epochs=3)


def finished() -> list[Event]:
    """All four ended; the last one, which diverged, failed."""
    return [*four_running(6), *(settled(index, "SUCCEEDED") for index in range(3)), settled(3, "FAILED", failure="no")]


def test_the_best_run_comes_first_and_failed_ones_last() -> None:
    results = results_of(finished())
    assert [row.name for row in results.ranking()] == ["lr=0.0003", "lr=0.0001", "lr=5e-06", "lr=0.002"]
    assert [row.name for row in results.failed] == ["lr=0.002"]


def test_a_loss_is_better_when_it_is_lower() -> None:
    results = results_of(finished())
    assert results.ranking(by="loss")[0].name == "lr=0.0003"
    assert results.ranking(by="loss", ascending=False)[0].name == "lr=5e-06"


def test_other_metrics_decide_where_it_is_equal() -> None:
    events = queued(2)
    for task, loss in (("t0", 0.7), ("t1", 0.6)):
        events.append(Event("metrics", 1.0, task, step=1, values={"loss": loss, "accuracy": 0.5}))
    events += [settled(0, "SUCCEEDED"), settled(1, "SUCCEEDED")]
    assert [row.task_id for row in results_of(events).ranking()] == ["t1", "t0"]


def test_a_run_that_diverged_ranks_after_those_that_did_not() -> None:
    events = [*finished()[:-1], settled(3, "SUCCEEDED")]
    assert results_of(events).ranking(by="loss")[-1].name == "lr=0.002"


def test_a_run_that_never_reported_ranks_last() -> None:
    events = [*queued(2), *half_epochs(1, 2), settled(0, "SUCCEEDED"), settled(1, "SUCCEEDED")]
    assert [row.task_id for row in results_of(events).ranking()] == ["t1", "t0"]


def test_boot_phases_are_times_spent_and_not_moments() -> None:
    phases = {phase.phase: phase for phase in results_of(booting(3)).boot_phases()}
    assert list(phases) == ["created", "started", "agent_up", "registered", "ready"]
    assert phases["registered"].p50_s == pytest.approx(0.21)
    assert phases["ready"].p95_s == pytest.approx(0.31)
    assert phases["ready"].machines == 3


def test_what_comes_after_the_registration_is_no_part_of_the_boot() -> None:
    event = booting(1)[-1]
    late = replace(event, phases={**event.phases, "template_ready+torch": 3.31, "first_task": 3.41})
    phases = {phase.phase: phase.p50_s for phase in results_of([late]).boot_phases()}
    assert list(phases)[-3:] == ["ready", "template_ready+torch", "first_task"]
    assert phases["ready"] == pytest.approx(0.31)
    assert phases["template_ready+torch"] == pytest.approx(3.0)
    assert phases["first_task"] == pytest.approx(0.1)


def test_no_machines_no_phases() -> None:
    assert results_of(queued(1)).boot_phases() == []


@pytest.mark.parametrize(
    ("values", "share", "expected"), [([3.0], 0.95, 3.0), ([1.0, 2.0], 0.5, 1.5), ([4.0, 1.0, 2.0, 3.0], 1.0, 4.0)]
)
def test_percentile(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_the_tables_can_be_printed(tmp_path: Path) -> None:
    results = results_of([*finished(), Event("attempt", 1041.0, "t0", attempt=2, step=2)])
    console = Console(width=100, force_terminal=False, _environ={})
    with console.capture() as capture:
        console.print(results.table(), results.boot_table())
    text = capture.get()
    assert "1  lr=0.0003" in text
    assert "attempts" in text
    assert "agent up" in text


def test_csv_has_a_line_per_report(tmp_path: Path) -> None:
    path = results_of(finished()).save_csv(tmp_path / "new" / "curves.csv")
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 24
    assert lines[1] == {
        "run": "lr=5e-06", "state": "done", "epoch": "1.0", "step": "1", "accuracy": "0.5", "loss": "0.7"
    }  # fmt: skip


@pytest.fixture
def no_open_fonts() -> Iterator[None]:
    """matplotlib keeps the files of the fonts it used open."""
    fonts = pytest.importorskip("matplotlib.font_manager")
    yield
    fonts._get_font.cache_clear()


@pytest.mark.usefixtures("no_open_fonts")
def test_png_is_a_picture(tmp_path: Path) -> None:
    path = results_of(finished()).save_png(tmp_path / "curves.png", title="x", baselines={"accuracy": {"coin": 0.5}})
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 10_000


@pytest.mark.usefixtures("no_open_fonts")
def test_png_of_nothing(tmp_path: Path) -> None:
    assert results_of(queued(1)).save_png(tmp_path / "curves.png").exists()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1.0], "▅"),
        ([1.0, 2.0], "▁█"),
        ([2.0, 2.0], "▅▅"),
        ([float("nan"), 1.0, 2.0], "!▁█"),
        ([float("inf")], "!"),
        ([1.0] * 50 + [2.0] * 50, "▁▁▁▁▁█████"),
    ],
)
def test_sparkline(values: list[float], line: str) -> None:
    assert sparkline(values, 10) == line
