"""`runner runs`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import output
from runner.cli.options import home_option, json_option, settings

if TYPE_CHECKING:
    from runner.cli.history import Run

_METRICS_ROWS = 20


@click.group("runs", invoke_without_command=True)
@home_option
@json_option
@click.pass_context
def command(ctx: click.Context, home: Path | None, as_json: bool) -> None:
    """List the runs of this host's clusters, the newest first; `show NAME` tells one.

    Reads the state directories: no coordinator has to run.
    """
    if ctx.invoked_subcommand is None:
        _list(home, as_json=as_json)


@command.command("list")
@home_option
@json_option
def list_command(home: Path | None, as_json: bool) -> None:
    """List runs, the newest first."""
    _list(home, as_json=as_json)


@command.command("show")
@click.argument("name")
@home_option
@json_option
def show_command(name: str, home: Path | None, as_json: bool) -> None:
    """Show the run NAME (or with that task id): outcome, attempts, metrics."""
    from runner.cli import history

    runs = history.find_runs(settings(home).clusters_dir, name)
    tell_others(runs)
    details = _details(runs[0])
    if as_json:
        output.print_json(details)
    else:
        _print_details(runs[0], details)


def tell_others(runs: list[Run]) -> None:
    """Say so when the name is not unique."""
    if len(runs) > 1:
        others = ", ".join(run.task_id for run in runs[1:4]) + (", …" if len(runs) > 4 else "")
        output.note(f"{len(runs)} runs have this name; this is the newest, {runs[0].task_id}; earlier ones: {others}")


def values_text(values: dict[str, Any]) -> str:
    """`loss=0.41 accuracy=0.83`."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
    )


def _list(home: Path | None, *, as_json: bool) -> None:
    from runner.cli import history

    clusters_dir = settings(home).clusters_dir
    runs = history.list_runs(clusters_dir)
    if as_json:
        output.print_json([run.to_map() for run in runs])
        return
    if not runs:
        output.note(f"no runs in {clusters_dir}; a run is a task with a name: f.options(name=...).remote()")
        return
    rows = [
        (
            run.name,
            run.state,
            output.time_text(run.started_unix_s),
            _length(run),
            str(run.attempt or ""),
            str(run.step) if run.step >= 0 else "",
            values_text(run.values),
            run.cluster_id,
            run.task_id,
        )
        for run in runs
    ]
    output.print_table(
        ("RUN", "STATE", "STARTED", "TOOK", "ATTEMPT", "STEP", "LAST METRICS", "CLUSTER", "TASK"),
        rows,
        right=("TOOK", "ATTEMPT", "STEP"),
    )


def _length(run: Run) -> str:
    if run.is_final:
        return output.duration_text(run.ended_unix_s - run.started_unix_s)
    from runner.rpc.clusters import read_cluster

    info = read_cluster(run.state_dir)
    # Without its coordinator it goes on when that is started again, not before.
    return output.duration_text(time.time() - run.started_unix_s) if info and info.is_running() else ""


def _details(run: Run) -> dict[str, Any]:
    from runner.cli import history
    from runner.rpc.gen import client_pb2

    states, attempts, metrics, checkpoints = [], [], [], []
    failure: Any = None
    lines = 0
    for event in history.read_events(run):
        stamp = {"time_s": event.time_s, "attempt": event.attempt}
        if event.kind == client_pb2.EVENT_KIND_STATE:
            states.append({**stamp, "state": event.state, "machine_id": event.machine_id})
            failure = event.failure if event.HasField("failure") else failure
        elif event.kind == client_pb2.EVENT_KIND_ATTEMPT:
            attempts.append({**stamp, "resumed_from_step": event.step if event.step >= 0 else None})
        elif event.kind == client_pb2.EVENT_KIND_METRICS:
            metrics.append({**stamp, "step": event.step, "values": history.unpack_values(event)})
        elif event.kind == client_pb2.EVENT_KIND_CHECKPOINT:
            checkpoints.append({**stamp, "step": event.step})
        elif event.kind == client_pb2.EVENT_KIND_LOG:
            lines += 1
    return {
        **run.to_map(),
        "states": states,
        "attempts": attempts,
        "metrics": metrics,
        "checkpoints": checkpoints,
        "log_lines": lines,
        "history": list(failure.history) if failure is not None else [],
        "traceback": failure.traceback if failure is not None and run.failure else None,
    }


def _print_details(run: Run, details: dict[str, Any]) -> None:
    click.echo(f"run       {run.name} ({run.task_id}) in cluster {run.cluster_id}")
    where = f", attempt {run.attempt}" + (f" on {run.machine_id}" if run.machine_id else "") if run.attempt else ""
    click.echo(f"state     {run.state}{where}")
    click.echo(f"started   {output.time_text(run.started_unix_s)}")
    if run.is_final:
        took = output.duration_text(run.ended_unix_s - run.started_unix_s)
        click.echo(f"ended     {output.time_text(run.ended_unix_s)}, after {took}")
    for attempt in details["attempts"]:
        if attempt["resumed_from_step"] is not None:
            click.echo(f"attempt   {attempt['attempt']} went on from step {attempt['resumed_from_step']}")
    if details["checkpoints"]:
        click.echo(f"saved     checkpoint of step {details['checkpoints'][-1]['step']}")
    click.echo(f"log       {output.plural(details['log_lines'], 'line')}: runner logs {run.task_id}")
    for line in details["history"]:
        click.echo(f"before    {line}")
    if run.failure:
        click.echo(f"failure   {run.failure}")
    if details["traceback"]:
        click.echo(details["traceback"].rstrip())
    if details["metrics"]:
        click.echo("")
        _print_metrics(details["metrics"])


def _print_metrics(metrics: list[dict[str, Any]]) -> None:
    keys = list(dict.fromkeys(key for entry in metrics for key in entry["values"]))
    rows = [
        (str(entry["step"]), str(entry["attempt"]), *(_cell(entry["values"].get(key)) for key in keys))
        for entry in metrics[-_METRICS_ROWS:]
    ]
    left_out = len(metrics) - len(rows)
    if left_out:
        click.echo(f"… {left_out} earlier ones: --json prints all")
    output.print_table(("STEP", "ATTEMPT", *keys), rows, right=("STEP", "ATTEMPT", *keys))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
