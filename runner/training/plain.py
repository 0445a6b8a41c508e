"""One line per event, for pipes, files and continuous integration."""

from __future__ import annotations

from collections.abc import Sequence

from runner.training.board import Board, RunEvent, number, printable
from runner.training.view import epoch_text, metric_text

QUIET_STATES = frozenset({"waiting", "queued", "assigned"})


def plain_line(event: RunEvent, board: Board, metrics: Sequence[str], epochs: int | None) -> str:
    """The line for an event that `board` has taken in already; empty for one that says nothing new.

    Reports within an epoch are left out: a log of a long job should have a line per epoch.
    """
    stamp = f"[{event.time_s - board.started_s:7.1f} s]"
    if event.kind == "machine":
        machine = board.machines[event.machine_id]
        took = f" after {machine.ready_s:.2f} s" if machine.phases else ""
        return f"{stamp} machine {event.machine_id}: {machine.state}{took}"
    row = board.rows.get(event.task_id)
    if row is None:
        return ""
    what = ""
    if event.kind == "state" and event.state.lower() not in QUIET_STATES:
        what = f"failed: {event.failure}" if row.state == "failed" else row.state
        what += f" on {event.machine_id}" if row.state == "running" and event.machine_id else ""
    elif event.kind == "attempt" and event.attempt > 1:
        what = f"attempt {event.attempt} goes on after {f'step {event.step}' if event.step >= 0 else 'nothing'}"
    elif event.kind == "log":
        what = f"| {printable(event.text)}"
    elif event.kind == "metrics":
        what = _metrics(event, metrics, epochs)
    return f"{stamp} {row.name}: {what}" if what else ""


def _metrics(event: RunEvent, metrics: Sequence[str], epochs: int | None) -> str:
    reported = number(event.values.get("epoch"))
    epoch = float(event.step) if reported is None else reported
    if epoch != int(epoch):
        return ""
    total = f"/{epochs}" if epochs else ""
    values = [(name, number(event.values.get(name))) for name in metrics]
    return "  ".join(
        [
            f"epoch {epoch_text(epoch)}{total}",
            *(f"{name} {metric_text(value)}" for name, value in values if value is not None),
        ]
    )
