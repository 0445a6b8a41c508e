"""`runner up`."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from runner.cli import output, up_fly
from runner.cli.fleet_options import (
    POOL_OPTIONS,
    chosen_pools,
    fleet_options,
    parse_provider_options,
    provider_flags,
)
from runner.cli.options import home_option, json_option, settings
from runner.cli.up_fly import COORDINATOR_OPTIONS, coordinator_flags
from runner.client.fleet_options import estimate, provider_options
from runner.config import ADDRESS, CA, TOKEN_FILE
from runner.coordinator.config import (
    DURABILITIES,
    LOOPBACK,
    PROVIDERS,
    CoordinatorConfig,
    CoordinatorReady,
    read_kept,
)
from runner.errors import BadOptionsError
from runner.pools import DEFAULT_POOL, Pool

if TYPE_CHECKING:
    import subprocess

DEFAULT_PORT = 7420
_OF_PROVIDER = ("image", "region", "provider_option")


@click.command("up")
@click.option(
    "--provider", type=click.Choice(PROVIDERS), default="local", show_default=True, help="What boots machines."
)
@fleet_options
@provider_flags
@click.option(
    "--max-cost",
    type=click.FloatRange(min=0, min_open=True),
    metavar="USD",
    help="Near this cost no more machines are booted.  [default: no bound]",
)
@click.option("--strict", is_flag=True, help="Fewer machines than were asked for are a failure.")
@click.option(
    "--host", default=LOOPBACK, show_default=True, help="Address to serve at; only with care another than loopback."
)
@click.option("--advertise", metavar="HOST", default="", help="Where machines find this host.  [default: --host]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port for clients; 0 for any free one.",
)
@click.option(
    "--cluster",
    metavar="ID",
    default="",
    help="Take up this cluster again: its tasks, runs, token, and what it was started with.",
)
@click.option(
    "--durability",
    type=click.Choice(DURABILITIES),
    default=DURABILITIES[0],
    show_default=True,
    help="What an accepted task survives: the end of the process, or loss of power.",
)
@coordinator_flags
@click.option("--foreground", is_flag=True, help="Stay, with the coordinator's log on stderr, until Ctrl-C.")
@home_option
@json_option
def command(home: Path | None, as_json: bool, foreground: bool, cluster: str, **options: Any) -> None:
    """Start a standing cluster: its coordinator on this host, or with --provider fly on a small machine at Fly.

    Returns when it serves. On this host it runs until `runner down`, whatever becomes of this terminal.
    """
    from runner.cli import daemon

    loaded = settings(home)
    of_coordinator = {name: options.pop(name) for name in COORDINATOR_OPTIONS}
    at_fly = up_fly.wanted(options["provider"], of_coordinator, cluster=cluster, foreground=foreground)
    if cluster and not (loaded.clusters_dir / cluster).is_dir():
        raise click.UsageError(f"there is no cluster {cluster} in {loaded.clusters_dir}")
    try:
        chosen = _chosen(options, read_kept(loaded.clusters_dir / cluster) if cluster else {})
        packed = {**chosen, "home": str(loaded.home), "cluster_id": cluster, "embedded": False}
        config = CoordinatorConfig.from_dict(packed)
        for line in estimate({**packed, "pools": config.pools, "max_cost": config.max_cost}, loaded.prices_file):
            output.note(line)
    except BadOptionsError as error:
        raise click.UsageError(str(error)) from None
    if at_fly is not None:
        up_fly.start(loaded, config, at_fly, as_json=as_json)
        return
    relay = _Relay() if foreground else None
    started = daemon.start(config, foreground=foreground)
    if as_json:
        output.print_json(ready_map(started.ready))
    else:
        click.echo(ready_text(config, started.ready, foreground=foreground))
    if relay is not None:
        relay.attach(started.process)
        status = started.process.wait()
        output.note(f"cluster {started.ready.cluster_id} has stopped")
        raise SystemExit(0 if status == 0 else 1)


def _chosen(options: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """The options under the names of the coordinator's settings; what was kept stands where nothing was said."""
    context = click.get_current_context()
    said = {name for name in options if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    of_fleet = {name: options.pop(name) for name in POOL_OPTIONS}
    of_provider = {name: options.pop(name) for name in _OF_PROVIDER}
    chosen = {**kept, **{name: value for name, value in options.items() if not kept or name in said}}
    pools = chosen_pools(of_fleet, said, kept.get("pools", []))
    given = provider_options(
        parse_provider_options(of_provider["provider_option"]), of_provider["image"], of_provider["region"] or None
    )
    # Options of another provider would mean nothing to this one.
    before = kept.get("provider_options", {}) if chosen["provider"] == kept.get("provider") else {}
    return {**chosen, "pools": [pool.to_dict() for pool in pools], "provider_options": {**before, **given}}


def ready_map(ready: CoordinatorReady) -> dict[str, Any]:
    """What --json prints: where the secrets are, not what they are."""
    return {
        "cluster_id": ready.cluster_id,
        "address": ready.address,
        "pid": ready.pid,
        "state_dir": ready.state_dir,
        "token_file": str(Path(ready.state_dir) / "token"),
        "ca_file": str(Path(ready.state_dir) / "ca.pem"),
    }


def ready_text(config: CoordinatorConfig, ready: CoordinatorReady, *, foreground: bool) -> str:
    """Where it serves, how to connect, how to look at it, how to stop it."""
    state = Path(ready.state_dir)
    fleet = ", ".join(_pool_text(pool) for pool in config.pools)
    lines = [
        f"cluster {ready.cluster_id} serves at {ready.address} ({fleet})",
        "",
        "connect on this host:",
        f'    runner.init("{ready.address}")',
        "or from anywhere, with a copy of the two files:",
        f"    export {ADDRESS}={ready.address}",
        f"    export {TOKEN_FILE}={shlex.quote(str(state / 'token'))}",
        f"    export {CA}={shlex.quote(str(state / 'ca.pem'))}",
        "",
        "look:  runner status",
        "stop:  Ctrl-C" if foreground else "stop:  runner down",
    ]
    if not foreground:
        lines.append(f"log:   {state / 'coordinator.log'}")
    return "\n".join(lines)


def _pool_text(pool: Pool) -> str:
    each = [f"{pool.num_cpus:g} CPU"] if pool.num_cpus else []
    each += [f"{pool.num_gpus} GPU"] if pool.num_gpus else []
    what = f" of {', '.join(each)}" if each else ""
    name = "" if pool.name == DEFAULT_POOL else f"{pool.name}: "
    if pool.min != pool.most and pool.most > 1:
        return f"{name}{pool.min} to {output.plural(pool.most, 'machine')}{what}"
    return f"{name}{output.plural(pool.first, 'machine')}{what}" if pool.first else f"{name}no machines yet"


class _Relay:
    """Passes on to the coordinator what is to end this process.

    Made before the coordinator is started, so that no signal can leave it behind;
    one that comes before it serves is passed on when it does: then it ends in order.
    """

    def __init__(self) -> None:
        self._was_told = False
        self._process: subprocess.Popen[bytes] | None = None
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._pass_on)

    def attach(self, process: subprocess.Popen[bytes]) -> None:
        """The coordinator serves."""
        self._process = process
        if self._was_told:
            process.send_signal(signal.SIGTERM)

    def _pass_on(self, _signum: int, _frame: Any) -> None:
        self._was_told = True
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
