"""What came out: ranking, boot phases, tables and files."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.training.board import Board, MachineRow, Row
from runner.training.timings import PhaseTimes, Timings, timings

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Results:
    """The runs as they ended, in the order they were given to `watch`."""

    runs: tuple[Row, ...]
    machines: tuple[MachineRow, ...]
    total_s: float  # wall time of the watching
    metrics: tuple[str, ...] = ("loss", "accuracy")
    epochs: int | None = None

    @classmethod
    def of(cls, board: Board, total_s: float, metrics: Sequence[str], epochs: int | None) -> Results:
        return cls(tuple(board.rows.values()), tuple(board.machines.values()), total_s, tuple(metrics), epochs)

    def ranking(self, by: str = "accuracy", *, ascending: bool | None = None) -> list[Row]:
        """Best first, by the last reported value; runs that failed or never reported it come last.

        `ascending=None` decides by the name: a loss is better when lower, anything else when higher. The other
        metrics decide where it is equal.
        """
        others = [name for name in self.metrics if name != by]

        def key(row: Row) -> tuple[object, ...]:
            ties = (_sort_key(row.last(name), ascending=_is_loss(name)) for name in others)
            order = _is_loss(by) if ascending is None else ascending
            return row.state != "done", _sort_key(row.last(by), ascending=order), *ties

        return sorted(self.runs, key=key)

    @property
    def failed(self) -> list[Row]:
        """Runs that ended without a result, cancelled ones included."""
        return [row for row in self.runs if row.state != "done"]

    def timings(self) -> Timings:
        """How long the machines took for each phase of their boot, and for what they loaded after it."""
        return timings(machine.phases for machine in self.machines)

    def boot_phases(self) -> list[PhaseTimes]:
        """The phases of `timings` in one list.

        "ready" is the whole boot, from the request to the registration; phases after it (a template that imports
        torch, say) overlap with work.
        """
        return self.timings().all

    def table(self, by: str = "accuracy") -> RenderableType:
        """The ranking as something that rich prints."""
        from runner.training.tables import ranking_table

        return ranking_table(self, by)

    def boot_table(self) -> RenderableType:
        """The boot phases as something that rich prints."""
        from runner.training.tables import phases_table

        return phases_table(self.timings())

    def save_csv(self, path: str | Path) -> Path:
        """One line per report: run, attempt-cut curve, every metric any run reported."""
        names = sorted({name for row in self.runs for point in row.points for name in point.values} - {"epoch"})
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["run", "state", "epoch", "step", *names])
            for row in self.runs:
                for point in row.points:
                    cells = [point.values.get(name, "") for name in names]
                    writer.writerow([row.name, row.state, point.epoch, point.step, *cells])
        return path

    def save_png(
        self, path: str | Path, *, title: str = "", baselines: Mapping[str, Mapping[str, float]] | None = None
    ) -> Path:
        """The curves of all runs, one panel per metric. Needs matplotlib.

        `baselines`: metric -> name -> value, drawn as level lines.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from runner.training.plot import save_curves

        return save_curves(self, Path(path), title, baselines or {})


def _is_loss(metric: str) -> bool:
    return "loss" in metric


def _sort_key(value: float | None, *, ascending: bool) -> tuple[bool, float]:
    """What is missing comes last, and so does NaN: it compares as nothing, and a diverged run would land anywhere."""
    if value is None or math.isnan(value):
        return True, 0.0
    return False, value if ascending else -value
