"""`runner down`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner.cli import output
from runner.cli.options import address_option, checked_address, home_option, settings
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.config import Settings
    from runner.rpc.clusters import ClusterInfo


@click.command("down")
@address_option
@home_option
@click.option("--all", "stop_all", is_flag=True, help="Every standing cluster of this host.")
@click.option("--force", is_flag=True, help="Kill a coordinator that does not stop by itself.")
def command(address: str | None, home: Path | None, stop_all: bool, force: bool) -> None:
    """Stop a standing cluster and its machines.

    Its runs, logs and metrics stay readable: `runner runs`, `runner logs`.
    """
    from runner.rpc.clusters import running_clusters

    loaded = settings(home)
    chosen = checked_address(address) or loaded.address
    running = running_clusters(loaded.clusters_dir)
    if chosen is not None and not stop_all:
        _stop_at(chosen, loaded, force=force)
        return
    if not running:
        output.note(f"no standing cluster runs on this host (looked in {loaded.clusters_dir})")
        return
    if len(running) > 1 and not stop_all:
        addresses = ", ".join(info.address for info in running)
        raise UsageError(f"several clusters run on this host: {addresses}; choose one with --address, or use --all")
    for info in running:
        _stop(info, loaded, force=force)


def _stop_at(address: str, loaded: Settings, *, force: bool) -> None:
    from runner.cli import connection
    from runner.rpc.clusters import find_cluster

    info = find_cluster(loaded.clusters_dir, address)
    if info is not None:
        _stop(info, loaded, force=force)
        return
    # On another host: only the coordinator itself can end it.
    connection.call(connection.find(loaded, address), _shut_down)
    click.echo(f"the cluster at {address} is stopping")


async def _shut_down(connection: Any) -> None:
    from runner.cli.connection import CALL_TIMEOUT_S
    from runner.rpc.gen import client_pb2

    await connection.stub.Shutdown(client_pb2.ShutdownRequest(reason="runner down"), timeout=CALL_TIMEOUT_S)


def _stop(info: ClusterInfo, loaded: Settings, *, force: bool) -> None:
    if info.machine:
        from runner.cli import up_fly

        up_fly.stop(info, loaded, force=force)
    else:
        from runner.cli import daemon

        daemon.stop(info, force=force)
    _stopped(info)


def _stopped(info: ClusterInfo) -> None:
    from runner.coordinator.costs import read_costs
    from runner.coordinator.estimate import total_text

    click.echo(f"cluster {info.cluster_id} at {info.address} has stopped")
    told = read_costs(Path(info.state_dir))
    if told is not None:
        click.echo(total_text(told["spent"], told["unpriced_machines"]))
