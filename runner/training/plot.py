"""Curves of all runs as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.training.board import Row

if TYPE_CHECKING:
    from runner.training.results import Results

# Okabe and Ito's colours can be told apart by colour-blind readers; dashes go on from there.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
DASHES = ("-", "--", ":", "-.")
LEGEND_MAX = 24


def save_curves(results: Results, path: Path, title: str, baselines: Mapping[str, Mapping[str, float]]) -> Path:
    """One panel per metric, one line per run, the legend outside. A retried run is cut where it went on."""
    # The figure without pyplot: no backend is chosen for the caller's process, nothing to close.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = [name for name in results.metrics if any(row.curve(name) for row in results.runs)] or ["loss"]
    figure = Figure(figsize=(5.2 * len(metrics) + 2.4, 4.4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        draw_panel(panel, metric, results)
        draw_baselines(panel, baselines.get(metric, {}))
    draw_legend(figure, panels[0], results)
    if title:
        figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def draw_panel(panel: Any, metric: str, results: Results) -> None:
    for index, row in enumerate(results.runs):
        draw_run(panel, row, metric, COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)])
    panel.set_title(metric)
    panel.set_xlabel("epoch")
    panel.set_ylabel(metric)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.set_xlim(left=0, right=results.epochs and results.epochs * 1.03)
    panel.grid(visible=True, alpha=0.3)


def draw_run(panel: Any, row: Row, metric: str, colour: str, dash: str) -> None:
    curve = row.curve(metric)
    epochs, values = [epoch for epoch, _ in curve], [value for _, value in curve]
    # Few points are reports of whole epochs: mark them.
    marker = "o" if len(curve) <= 12 else ""
    panel.plot(epochs, values, dash, color=colour, marker=marker, markersize=4, linewidth=1.8, label=row.name)
    for resume in row.resumes:
        panel.axvline(resume, color=colour, linewidth=0.8, linestyle=":", alpha=0.7)


def draw_baselines(panel: Any, baselines: Mapping[str, float]) -> None:
    """Level lines with their names on them, at the right edge."""
    for name, value in baselines.items():
        panel.axhline(value, color="grey", linewidth=1.0, linestyle=(0, (6, 4)))
        panel.annotate(
            name, (0.99, value), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points",
            ha="right", va="bottom", fontsize=8, color="dimgrey",
        )  # fmt: skip


def draw_legend(figure: Any, panel: Any, results: Results) -> None:
    """To the right of the panels; the best runs when there are too many."""
    handles, labels = panel.get_legend_handles_labels()
    by_name = dict(zip(labels, handles, strict=True))
    by = "accuracy" if "accuracy" in results.metrics else results.metrics[0]
    best = [row.name for row in results.ranking(by) if row.name in by_name][:LEGEND_MAX]
    hidden = len(by_name) - len(best)
    figure.legend(
        [by_name[name] for name in best],
        best,
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        title=f"best {len(best)} of {len(by_name)}" if hidden > 0 else "best first",
    )
