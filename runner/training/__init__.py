"""Watch training runs live, rank them, plot their curves.

`watch(runs, epochs=3)` shows a live table in a terminal, plain lines elsewhere, and returns `Results`.
`Board` is the state behind it, for other views. rich and matplotlib are loaded on first use.
"""

from __future__ import annotations

from runner.training.board import Board, MachineRow, Point, Row
from runner.training.results import Results
from runner.training.timings import PhaseTimes, Timings, timings
from runner.training.watch import Interrupted, run_script, watch

__all__ = [
    "Board",
    "Interrupted",
    "MachineRow",
    "PhaseTimes",
    "Point",
    "Results",
    "Row",
    "Timings",
    "run_script",
    "timings",
    "watch",
]
