"""One line per event, for pipes, files and continuous integration."""

from __future__ import annotations

from collections.abc import Sequence

from runner.training.board import Board, RunEvent, number, printable
from runner.training.view import epoch_text, metric_text, words

QUIET_STATES = frozenset({"waiting", "queued", "assigned"})
QUIET_MACHINE_STATES = frozenset({"requested", "creating"})


def plain_text(event: RunEvent, board: Board, metrics: Sequence[str], epochs: int | None) -> str:
    """What to say of an event that `board` has taken in already; empty for one that says nothing new.

    Reports within an epoch are left out: a log of a long job should have a line per epoch.
    """
    if event.kind == "machine":
        what = _machine(event)
        return f"machine {event.machine_id}: {what}" if what else ""
    if event.kind == "fleet":
        return f"fleet: {printable(event.text)}"
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
    return f"{row.name}: {what}" if what else ""


def _machine(event: RunEvent) -> str:
    """The state, and the phase that was reached with it."""
    state = event.state.lower()
    if state in QUIET_MACHINE_STATES or not event.phases:
        return "" if state in QUIET_MACHINE_STATES else words(state)
    phase, at_s = max(event.phases.items(), key=lambda item: item[1])
    return f"{words(state)}, {words(phase)} after {at_s:.2f} s"


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
