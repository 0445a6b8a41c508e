"""The live picture of a board: what rich draws at a given width and height. Reads no clock."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.training.board import Board, MachineRow, Row
from runner.training.sparkline import sparkline

STATE_STYLES = {
    "failed": "bold red",
    "running": "bold green",
    "starting": "yellow",
    "retrying": "bold yellow",
    "done": "cyan",
    "cancelled": "magenta",
    "queued": "dim",
    "waiting": "dim",
}
# Which runs stay in sight when not all fit: what moves, what went wrong, what came out, what waits.
INTEREST = ("running", "starting", "retrying", "failed", "done", "cancelled", "queued", "waiting")
WIDE = 92  # columns from which bars are longer and times shown
LOG_LINES_MAX = 8
MACHINE_LINES_MAX = 8


@dataclass(frozen=True)
class Look:
    """What to draw and how large."""

    metrics: tuple[str, ...] = ("loss", "accuracy")
    epochs: int | None = None  # per run; None: unknown, no bar
    width: int = 80
    height: int = 24
    notice: str = ""  # one line at the bottom


def render(board: Board, look: Look, now_s: float) -> RenderableType:
    """At most `look.height` lines of at most `look.width` columns. `now_s`: unix seconds."""
    rows = list(board.rows.values())
    free = look.height - 2 - bool(look.notice)  # the title, the table's head
    n_rows = min(len(rows), max(3, free - 6))
    free -= n_rows + (n_rows < len(rows))
    n_machines = min(len(board.machines), MACHINE_LINES_MAX, max(0, (free - 2) // 2))
    free -= n_machines + 2 if board.machines else 0
    n_log = max(0, min(LOG_LINES_MAX, free - 1, len(board.log)))

    parts: list[RenderableType] = [title(board, now_s), runs_table(rows, n_rows, look, now_s)]
    if board.machines and free >= 0:
        parts += [Text(), *machine_lines(board, n_machines)]
    if n_log:
        parts += [Text(), *log_lines(board, n_log)]
    if look.notice:
        parts.append(one_line(Text(look.notice, style="bold yellow")))
    return Group(*parts)


def one_line(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


# ---- runs ----
def title(board: Board, now_s: float) -> Text:
    """How many runs are in which state, and for how long this has gone on."""
    counts = Counter(row.state for row in board.rows.values())
    text = Text(f"{len(board.rows)} runs", style="bold")
    for state, style in STATE_STYLES.items():
        if counts[state]:
            text.append(" · ", style="dim").append(f"{counts[state]} {state}", style=style)
    elapsed_s = now_s - board.started_s if board.started_s else 0.0
    return one_line(text.append(f" · {clock(elapsed_s)}", style="dim"))


def runs_table(rows: Sequence[Row], n_rows: int, look: Look, now_s: float) -> Table:
    is_wide = look.width >= WIDE
    shown = choose(rows, n_rows)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", expand=False)
    name_width = look.width - 76 if is_wide else 18
    table.add_column("run", no_wrap=True, overflow="ellipsis", max_width=name_width, min_width=8)
    table.add_column("state", no_wrap=True, min_width=9)
    table.add_column("epoch", no_wrap=True, justify="right", min_width=5)
    table.add_column("", no_wrap=True, width=bar_width(look))
    for metric in look.metrics:
        table.add_column(metric[:8], no_wrap=True, justify="right", min_width=6, max_width=8)
    table.add_column("trend", no_wrap=True, width=trend_width(look))
    if is_wide:
        table.add_column("time", no_wrap=True, justify="right", min_width=5)
    for row in shown:
        table.add_row(*run_cells(row, look, now_s, is_wide=is_wide))
    if len(shown) < len(rows):
        counts = Counter(row.state for row in rows)
        counts.subtract(row.state for row in shown)
        rest = ", ".join(f"{count} {state}" for state, count in counts.items() if count > 0)
        # In the first column a long line would be cut to the column's width.
        table.caption = Text(f"+ {len(rows) - len(shown)} more: {rest}", style="dim", no_wrap=True, overflow="ellipsis")
        table.caption_justify = "left"
    return table


def choose(rows: Sequence[Row], limit: int) -> list[Row]:
    """The `limit` most interesting rows, in the order they came in."""
    if len(rows) <= limit:
        return list(rows)
    rank = {state: place for place, state in enumerate(INTEREST)}
    by_interest = sorted(range(len(rows)), key=lambda index: (rank.get(rows[index].state, 0), index))
    return [rows[index] for index in sorted(by_interest[:limit])]


def run_cells(row: Row, look: Look, now_s: float, *, is_wide: bool) -> list[RenderableType]:
    state = Text(row.state, style=STATE_STYLES.get(row.state, ""))
    if row.attempt > 1 and row.state == "running":
        state = Text(f"attempt {row.attempt}", style="bold yellow")
    total = f"/{look.epochs}" if look.epochs else ""
    cells: list[RenderableType] = [
        Text(row.name),
        state,
        Text(f"{epoch_text(row.epoch)}{total}" if row.points else ""),
        progress(row, look),
        *(Text(metric_text(row.last(metric))) for metric in look.metrics),
        Text(trend(row, look), style="cyan"),
    ]
    if is_wide:
        cells.append(Text(clock(row.duration_s(now_s)) if row.started_s else ""))
    return cells


def bar_width(look: Look) -> int:
    if look.epochs is None:
        return 1
    return 14 if look.width >= WIDE else 10


def trend_width(look: Look) -> int:
    return 14 if look.width >= WIDE else 10


def progress(row: Row, look: Look) -> RenderableType:
    if look.epochs is None or not row.points:
        return Text()
    return ProgressBar(total=look.epochs, completed=min(row.epoch, look.epochs), width=bar_width(look))


def trend(row: Row, look: Look) -> str:
    """The curve of the first metric."""
    values = [value for _, value in row.curve(look.metrics[0])] if look.metrics else []
    return sparkline(values, trend_width(look))


def epoch_text(epoch: float) -> str:
    return f"{epoch:.0f}" if epoch == int(epoch) else f"{epoch:.1f}"


def metric_text(value: float | None) -> str:
    """Four significant digits in at most eight columns."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    return f"{value:.3f}" if 0.001 <= size < 1000 or value == 0 else f"{value:.1e}"


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest_s = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest_s:02}" if hours else f"{minutes}:{rest_s:02}"


# ---- machines and log ----
def machine_lines(board: Board, limit: int) -> list[Text]:
    """A count by state, then a line each; when there are more than `limit`, only those that are not ready."""
    machines = list(board.machines.values())
    counts = Counter(machine.state for machine in machines)
    head = Text("machines", style="dim")
    for state, count in sorted(counts.items()):
        head.append(" · ", style="dim").append(f"{count} {words(state)}", style=machine_style(state))
    shown = machines
    if len(machines) > limit:
        shown = [machine for machine in machines if machine.state != "ready"][:limit]
    tasks = [", ".join(board.running_on(machine.machine_id)) or "-" for machine in shown]
    id_width = max((len(machine.machine_id) for machine in shown), default=0)
    task_width = min(24, max(map(len, tasks), default=0))
    state_width = max(8, max((len(words(machine.state)) for machine in shown), default=0))
    widths = (id_width, state_width, task_width)
    rows = zip(shown, tasks, strict=True)
    return [one_line(head), *(machine_line(machine, task, widths) for machine, task in rows)]


def machine_line(machine: MachineRow, task: str, widths: tuple[int, int, int]) -> Text:
    """One machine; `widths` are those of its id, its state and its tasks."""
    id_width, state_width, task_width = widths
    text = Text(f"{machine.machine_id:<{id_width}}  ")
    text.append(f"{words(machine.state):<{state_width}}", style=machine_style(machine.state))
    text.append(f" {machine.ready_s:6.2f} s  {task:<{task_width}}")
    phases = " · ".join(f"{words(name)} {at_s:.2f}" for name, at_s in machine.phases.items() if name != "requested")
    return one_line(text.append(f"  {phases}", style="dim"))


def words(name: str) -> str:
    """A state or phase as people write it: template_ready+torch is a template that has imported torch."""
    base, plus, modules = name.partition("+")
    return base.replace("_", " ") + (f" with {modules.replace('+', ', ')}" if plus else "")


def machine_style(state: str) -> str:
    if state == "ready":
        return "green"
    if state == "suspended":
        return "dim"
    return "bold red" if state in {"lost", "boot_failed"} else "yellow"


def log_lines(board: Board, limit: int) -> list[Text]:
    lines = list(board.log)[-limit:]
    width = min(18, max(len(line.name) for line in lines))
    return [
        one_line(Text(f"{line.name[:width]:<{width}} │ ", style="dim").append(line.text, style="not dim"))
        for line in lines
    ]
