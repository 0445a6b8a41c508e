"""Snapshots of the live view. `UPDATE_SNAPSHOTS=1 pytest` writes them anew; then look at the difference."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console

from runner.training import Board
from runner.training.view import Look, choose, clock, metric_text, render
from tests.unit.training.stories import Event, four_running, many, queued, settled

SNAPSHOTS = Path(__file__).parent / "snapshots"
NOTICE = "Ctrl-C: cancelling 4 runs, waiting for them to end. Once more: quit at once."


def board_of(events: list[Event]) -> Board:
    board = Board()
    for event in events:
        board.apply(event)
    return board


def draw(board: Board, look: Look) -> list[str]:
    console = Console(width=look.width, height=look.height, force_terminal=True, color_system=None, _environ={})
    with console.capture() as capture:
        console.print(render(board, look, now_s=board.now_s + 3))
    return [line.rstrip() for line in capture.get().rstrip("\n").split("\n")]


def check(name: str, lines: list[str]) -> None:
    path = SNAPSHOTS / f"{name}.txt"
    text = "\n".join(lines) + "\n"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def retried() -> list[Event]:
    lost = Event("attempt", 1050.0, "t1", attempt=2, step=1, machine_id="m-0003")
    boot = Event("machine", 1051.0, machine_id="m-0004", state="BOOTING", phases={"requested": 0.0, "created": 0.02})
    failed = settled(3, "FAILED", failure="ValueError: no")
    return [*four_running(), lost, boot, settled(0, "SUCCEEDED"), failed]


def asleep() -> list[Event]:
    moves = [("m-0002", "SUSPENDING"), ("m-0003", "SUSPENDED"), ("m-0004", "RESUMING")]
    return [*four_running(), *(Event("machine", 1052.0, machine_id=name, state=state) for name, state in moves)]


@pytest.mark.parametrize(
    ("name", "events", "look"),
    [
        ("four_80", four_running(), Look(epochs=3, width=80, height=30)),
        ("four_140", four_running(), Look(epochs=3, width=140, height=30)),
        ("four_cancelling", four_running(), Look(epochs=3, width=80, height=24, notice=NOTICE)),
        ("four_low", four_running(), Look(epochs=3, width=80, height=10)),
        ("retried_100", retried(), Look(epochs=3, width=100, height=30)),
        ("asleep_100", asleep(), Look(epochs=3, width=100, height=30)),
        ("queued_80", queued(3), Look(epochs=3, width=80, height=24)),
        ("without_epochs", four_running(), Look(metrics=("loss",), width=80, height=24)),
        ("many_80", many(), Look(epochs=3, width=80, height=24)),
        ("many_140", many(), Look(epochs=3, width=140, height=40)),
    ],
)
def test_snapshot(name: str, events: list[Event], look: Look) -> None:
    lines = draw(board_of(events), look)
    assert len(lines) <= look.height
    assert max(map(len, lines)) <= look.width
    check(name, lines)


@pytest.mark.parametrize("width", [40, 60, 80, 91, 92, 100, 140])
@pytest.mark.parametrize("height", [8, 12, 24, 50])
@pytest.mark.parametrize("runs", [1, 4, 64])
def test_it_never_overflows(width: int, height: int, runs: int) -> None:
    board = board_of(many(runs) if runs == 64 else four_running()[-10 * runs :])
    lines = draw(board, Look(epochs=3, width=width, height=height, notice=NOTICE))
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_an_empty_board_can_be_drawn() -> None:
    assert draw(Board(), Look())[0].startswith("0 runs")


def test_the_most_interesting_runs_stay_in_sight() -> None:
    rows = list(board_of(many()).rows.values())
    states = [row.state for row in choose(rows, 18)]
    assert states.count("running") == 16
    assert states.count("failed") == 1
    assert choose(rows, 64) == rows


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0.000"), (0.6931, "0.693"), (12.5, "12.500"), (123456.0, "1.2e+05"), (1e-9, "1.0e-09")],
)
def test_numbers_fit_their_column(value: float | None, text: str) -> None:
    assert metric_text(value) == text
    assert len(text) <= 8


def test_numbers_that_are_none() -> None:
    assert [metric_text(value) for value in (float("nan"), float("inf"))] == ["nan", "inf"]


@pytest.mark.parametrize(("seconds", "text"), [(-1, "0:00"), (61.9, "1:01"), (3661, "1:01:01")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
