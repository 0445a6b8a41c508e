"""`runner logs`."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import output
from runner.cli.options import home_option, settings

if TYPE_CHECKING:
    from runner.cli.history import Run
    from runner.rpc.clusters import ClusterInfo


@click.command("logs")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run has ended.")
@click.option("-n", "--tail", type=click.IntRange(min=0), help="Only the last N of the lines written so far.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only what was written there.")
@home_option
def command(name: str, follow: bool, tail: int | None, stream: str | None, home: Path | None) -> None:
    """Print what the run NAME (or with that task id) wrote to stdout and stderr.

    Reads the state directory: no coordinator has to run. A new attempt and lines
    that were not kept are told on stderr.
    """
    from runner.cli import history
    from runner.cli.runs import tell_others
    from runner.rpc.clusters import read_cluster

    runs = history.find_runs(settings(home).clusters_dir, name)
    tell_others(runs)
    run = runs[0]
    printer = _Printer(stream)
    newest_seq = printer.print_stored(history.read_events(run), tail)
    info = read_cluster(run.state_dir)
    if follow and not run.is_final:
        if info is None or not info.is_running():
            output.note(f"the coordinator of cluster {run.cluster_id} does not run: nothing more comes for now")
        else:
            _follow(info, run, newest_seq + 1, printer)


class _Printer:
    """Lines to stdout; what is about them to stderr."""

    def __init__(self, stream: str | None) -> None:
        self._stream = stream
        self._attempt = 0

    def print_stored(self, events: Iterable[Any], tail: int | None) -> int:
        """Print stored events, or the last `tail` lines of them; returns the newest sequence number."""
        newest_seq = 0
        kept: deque[Any] = deque(maxlen=tail)
        for event in events:
            newest_seq = event.seq
            if tail is None:
                self.print(event)
            elif self._is_wanted(event):
                kept.append(event)
        for event in kept:
            self.print(event)
        return newest_seq

    def print(self, event: Any) -> None:
        """Print one event if it is about the log."""
        from runner.rpc.gen import client_pb2

        if event.kind == client_pb2.EVENT_KIND_LOG_GAP:
            output.note(f"… {output.plural(event.lines_dropped, 'line')} not kept …")
        elif self._is_wanted(event):
            if self._attempt and event.attempt != self._attempt:
                output.note(f"--- attempt {event.attempt} ---")
            self._attempt = event.attempt
            click.echo(event.text)

    def _is_wanted(self, event: Any) -> bool:
        from runner.rpc.gen import client_pb2

        return event.kind == client_pb2.EVENT_KIND_LOG and self._stream in (None, event.stream)


def _follow(info: ClusterInfo, run: Run, from_seq: int, printer: _Printer) -> None:
    from runner.cli import connection
    from runner.rpc.clusters import Target

    async def follow(connected: Any) -> None:
        async for event in _watch(connected, run, from_seq):
            printer.print(event)

    # By its state directory: an embedded cluster can be followed as well.
    connection.call(Target(info.address, info.read_ca(), info.read_token()), follow)


async def _watch(connected: Any, run: Run, from_seq: int) -> AsyncIterator[Any]:
    from runner.rpc.gen import client_pb2

    kinds = [client_pb2.EVENT_KIND_LOG, client_pb2.EVENT_KIND_LOG_GAP]
    request = client_pb2.WatchRequest(
        task_ids=[run.task_id], from_seq=from_seq, kinds=kinds, follow=True, until_done=True
    )
    async for reply in connected.stub.Watch(request):
        for event in reply.events:
            yield event
