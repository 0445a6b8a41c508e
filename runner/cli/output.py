"""Tables for people, JSON for programs."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from runner.core.values import MEMORY, UNIT

if TYPE_CHECKING:
    from rich.console import RenderableType

# A pipe or a file has no width: lines are not folded there.
_WIDTH_UNFOLDED = 10_000
_GIB = 1024**3


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A plain table on stdout; columns named in `right` are aligned there."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(Text(column, style="bold"), justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        # Text, because names of runs may hold brackets, which are markup in plain strings.
        table.add_row(*(Text(cell) for cell in row))
    print_rich(table)


def print_rich(table: RenderableType) -> None:
    """Something of rich's on stdout: in colour and folded on a terminal, plain elsewhere."""
    from rich.console import Console

    from runner import config

    if sys.stdout.isatty():
        Console(file=sys.stdout, no_color=config.load().no_color, highlight=False).print(table)
        return
    plain = Console(file=io.StringIO(), width=_WIDTH_UNFOLDED, color_system=None, highlight=False)
    with plain.capture() as captured:
        plain.print(table)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def note(text: str) -> None:
    """A line for the person, on stderr."""
    click.echo(text, err=True)


def amounts(units: Mapping[str, int]) -> dict[str, float]:
    """Resource amounts as people count them: CPUs, GPUs, bytes of memory."""
    return {name: float(value) if name == MEMORY else value / UNIT for name, value in sorted(units.items())}


def amount_text(name: str, value: float) -> str:
    """One amount: `2`, `0.5`, or `3.5 GiB`."""
    return f"{value / _GIB:.1f} GiB" if name == MEMORY else f"{value:g}"


def used_of_total(name: str, total: Mapping[str, float], available: Mapping[str, float]) -> str:
    """`3/4`, or nothing when there is none of it."""
    all_of_it = total.get(name, 0.0)
    if not all_of_it:
        return ""
    used = all_of_it - available.get(name, 0.0)
    return f"{amount_text(name, used)}/{amount_text(name, all_of_it)}"


def duration_text(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f} s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def time_text(unix_s: float) -> str:
    """Local date and time to the second; empty for 0."""
    return datetime.fromtimestamp(unix_s).strftime("%Y-%m-%d %H:%M:%S") if unix_s else ""  # noqa: DTZ006  local on purpose


def count_text(counts: Mapping[str, int], nothing: str = "none") -> str:
    """`3 running, 2 queued`."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()) if count) or nothing


def plural(count: int, noun: str) -> str:
    """`1 machine`, `4 machines`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_line(text: str) -> str:
    """The first of several lines, marked as such: --json has the others."""
    first, newline, _ = text.partition("\n")
    return f"{first} …" if newline else first
