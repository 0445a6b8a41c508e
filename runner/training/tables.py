"""The tables printed at the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from runner.training.sparkline import BARS, sparkline
from runner.training.timings import READY
from runner.training.view import STATE_STYLES, clock, epoch_text, metric_text, words

if TYPE_CHECKING:
    from runner.training.results import Results
    from runner.training.timings import PhaseTimes, Timings

TREND_WIDTH = 16
HISTOGRAM_BINS = 16


def ranking_table(results: Results, by: str) -> Table:
    """Best run first."""
    now_s = max((row.ended_s for row in results.runs), default=0.0)
    metrics = [by, *(name for name in results.metrics if name != by)]
    has_retries = any(row.attempt > 1 for row in results.runs)
    table = plain_table("", "run", "state", "epochs", *metrics, f"{results.metrics[0]} over time", "time")
    if has_retries:
        table.add_column("attempts", justify="right", style="yellow")
    for place, row in enumerate(results.ranking(by), start=1):
        trend = sparkline([value for _, value in row.curve(results.metrics[0])], TREND_WIDTH)
        cells = [
            Text(str(place) if row.state == "done" else "-", style="dim"),
            Text(row.name, style="bold" if place == 1 and row.state == "done" else ""),
            Text(row.state, style=STATE_STYLES.get(row.state, "")),
            Text(epoch_text(row.epoch)),
            *(Text(metric_text(row.last(name))) for name in metrics),
            Text(trend, style="cyan"),
            Text(clock(row.duration_s(now_s))),
        ]
        table.add_row(*cells, *([Text(str(row.attempt))] if has_retries else []))
    return table


def phases_table(shown: Timings) -> Table:
    """How long machines took, phase by phase: the boot, and after it what is loaded beside work."""
    table = plain_table("boot phase", "p50", "p95", "max", "machines", "0 to max")
    table.columns[0].no_wrap = False  # where there is little room, names give way and not numbers
    for phase in shown.all:
        style = "bold" if phase.phase == READY else ""
        seconds = (phase.p50_s, phase.p95_s, phase.max_s)
        cells = (words(phase.phase), *map(_seconds, seconds), str(phase.machines))
        table.add_row(*(Text(cell, style=style) for cell in cells), Text(_bars(phase), style="cyan"))
        if phase.phase == READY and shown.loading:
            table.add_row(Text("after the boot", style="dim"))
    return table


def _bars(phase: PhaseTimes) -> str:
    """A bar for each part of 0 to max: nothing where no machine is, at least the lowest where one is."""
    counts = phase.histogram(HISTOGRAM_BINS)
    most = max(counts)
    return "".join(BARS[math.ceil(count / most * len(BARS)) - 1] if count else " " for count in counts).rstrip()


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def plain_table(*headers: str) -> Table:
    """No lines, two blanks between columns; all but the first text columns to the right."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    left = {"", "run", "state", "boot phase", "0 to max"}
    for header in headers:
        is_left = header in left or header.endswith("over time")
        table.add_column(header, no_wrap=True, justify="left" if is_left else "right", overflow="ellipsis")
    return table
