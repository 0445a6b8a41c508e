"""`runner up` and `runner down` of a cluster whose coordinator is a machine at Fly."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from runner.cli import connection, output
from runner.config import ADDRESS, CA, FLY_API_TOKEN, TOKEN_FILE, Settings, set_grpc_defaults
from runner.coordinator.config import STOP_REMOTE_S_MAX, CoordinatorConfig
from runner.errors import BadOptionsError, CoordinatorUnreachableError, RunnerError, UsageError
from runner.ids import random_id
from runner.rpc.clusters import CA_NAME, TOKEN_NAME, ClusterInfo, Target

if TYPE_CHECKING:
    from runner.cli.fly_cluster import Booted, Wanted

_F = TypeVar("_F", bound=Callable[..., Any])

COORDINATOR_OPTIONS = ("on", "reach", "coordinator_size", "client_lost_after_s")
REACHES = ("public", "private", "proxy")
_REACHABLE_S = 60.0
_HOME_ON_MACHINE = "/tmp/runner-coordinator"


def coordinator_flags(command: _F) -> _F:
    """--on, --reach, --coordinator-size, --client-lost-after-s."""
    options = [
        click.option(
            "--on",
            type=click.Choice(["here", "fly"]),
            help="Where the coordinator runs.  [default: here; with --provider fly there]",
        ),
        click.option(
            "--reach",
            type=click.Choice(REACHES),
            help="How this host reaches a coordinator at Fly: by a public address of the app, over WireGuard, or through "
            "`fly proxy`.  [default: public]",
        ),
        click.option("--coordinator-size", help="Fly's name for the coordinator's machine.  [default: shared-cpu-2x]"),
        click.option(
            "--client-lost-after-s",
            type=click.FloatRange(min=1.0),
            help="A coordinator at Fly ends when no client and no detached work was there for so long.  [default: 120]",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def wanted(provider: str, options: Mapping[str, Any], *, cluster: str, foreground: bool) -> Wanted | None:
    """The coordinator's machine; None where it runs on this host.

    Raises:
        click.UsageError: the options contradict each other.
    """
    on = options["on"] or ("fly" if provider == "fly" else "here")
    if on == "here":
        said = [name for name in COORDINATOR_OPTIONS if name != "on" and options[name]]
        if said:
            raise click.UsageError(f"--{said[0].replace('_', '-')} is of a coordinator at Fly; say --provider fly")
        return None
    if provider != "fly":
        raise click.UsageError("--on fly needs --provider fly: the coordinator boots its machines beside it")
    if cluster or foreground:
        flag = "--cluster" if cluster else "--foreground"
        raise click.UsageError(f"{flag} is of a coordinator on this host; one at Fly has no past and no terminal")
    from runner.cli.fly_cluster import Wanted

    given = {
        "reach": options["reach"],
        "size": options["coordinator_size"],
        "client_lost_after_s": options["client_lost_after_s"],
    }
    try:
        return Wanted(**{name: value for name, value in given.items() if value})
    except BadOptionsError as error:
        raise click.UsageError(str(error)) from None


def start(loaded: Settings, config: CoordinatorConfig, wanted: Wanted, *, as_json: bool) -> None:
    """Boot the cluster and print how to connect. Nothing is left of one that did not come up.

    Raises:
        RunnerError: it did not come up, or cannot be reached from here.
    """
    from runner.cli import fly_cluster

    set_grpc_defaults()
    cluster_id = random_id("c").removeprefix("c-")
    config = replace(config, cluster_id=cluster_id)
    booted = asyncio.run(fly_cluster.boot(config, wanted, _home_on_machine(loaded, config), output.note))
    info = remember(loaded, booted)
    try:
        if wanted.reach != "proxy":
            _await_reachable(Target(booted.address, booted.ca_pem, booted.token))
    except BaseException:
        # It would end by itself, but cost money until then.
        _end(info, loaded, patience_s=0.0)
        raise
    if as_json:
        output.print_json(_map(info))
    else:
        click.echo(_text(info, booted, wanted.client_lost_after_s))


def remember(loaded: Settings, booted: Booted) -> ClusterInfo:
    """Write what connecting and ending take into this host's state directory."""
    folder = loaded.clusters_dir / booted.cluster_id
    folder.mkdir(mode=0o700, parents=True)
    _write_private(folder / TOKEN_NAME, booted.token.encode())
    _write_private(folder / CA_NAME, booted.ca_pem)
    made = ClusterInfo.of_this_process(booted.cluster_id, str(folder), booted.address, embedded=False)
    where = {"provider": "fly", "app": booted.app, "machine_id": booted.machine_id, "base_url": booted.base_url}
    info = replace(made, pid=0, pid_start_ticks=0, host_id="", machine=where)
    info.write()
    return info


def stop(info: ClusterInfo, loaded: Settings, *, force: bool) -> None:
    """Have the coordinator end its machines and itself; then see that none is left, and forget the cluster.

    With `force`, or when it cannot be reached, its machines are destroyed from here.

    Raises:
        RunnerError: not all of it could be ended.
    """
    patience_s = 0.0
    if not force:
        try:
            connection.call(Target(info.address, info.read_ca(), info.read_token()), _shut_down)
            patience_s = STOP_REMOTE_S_MAX + 5.0
        except RunnerError as error:
            output.note(f"the coordinator at {info.address} could not be told ({error}); ending its machines from here")
    _end(info, loaded, patience_s=patience_s)


def _end(info: ClusterInfo, loaded: Settings, *, patience_s: float) -> None:
    from runner.cli import fly_end
    from runner.providers.fly.options import parse_options

    where = info.machine
    try:
        options = parse_options({"app": where["app"], "base_url": where["base_url"], "image": "none"}, loaded)
    except BadOptionsError as error:
        raise UsageError(
            f"cluster {info.cluster_id} may have machines in Fly's app {where['app']}, and looking takes a token: "
            f"set {FLY_API_TOKEN} and run `runner down` again ({error})"
        ) from None
    left = asyncio.run(fly_end.end(options, info.cluster_id, patience_s=patience_s))
    if left.destroyed and patience_s:
        output.note(f"destroyed from here: {', '.join(left.destroyed)}")
    shutil.rmtree(info.state_dir, ignore_errors=True)
    shutil.rmtree(loaded.home / "machines" / info.cluster_id, ignore_errors=True)  # of a simulator


def _home_on_machine(loaded: Settings, config: CoordinatorConfig) -> str:
    """Where its state is; a simulator's machines have no disk of their own, so there it is in a folder of ours."""
    from runner.providers.fly.options import parse_options

    if parse_options(config.provider_options, loaded).is_real:
        return _HOME_ON_MACHINE
    return str(loaded.home / "machines" / config.cluster_id)


def _await_reachable(target: Target) -> None:
    """A new address takes a moment until it leads to the machine."""
    try:
        asyncio.run(_ask(target))
    except (TimeoutError, RunnerError) as error:
        raise CoordinatorUnreachableError(
            f"the coordinator serves, but {target.address} does not lead to it from here ({error}); with --reach private it is "
            f"reached over WireGuard, with --reach proxy through `fly proxy` (docs/fly.md)"
        ) from None


async def _ask(target: Target) -> None:
    from runner.rpc.gen import client_pb2

    last: RunnerError | None = None
    deadline_s = asyncio.get_running_loop().time() + _REACHABLE_S
    while asyncio.get_running_loop().time() < deadline_s:
        try:
            async with connection.connect(target) as opened:
                await opened.stub.GetStatus(client_pb2.GetStatusRequest(), timeout=5.0)
                return
        except RunnerError as error:
            last = error
            await asyncio.sleep(1.0)
    raise last or TimeoutError("no answer")


async def _shut_down(opened: connection.Connection) -> None:
    from runner.rpc.gen import client_pb2

    await opened.stub.Shutdown(client_pb2.ShutdownRequest(reason="runner down"), timeout=connection.CALL_TIMEOUT_S)


def _map(info: ClusterInfo) -> Mapping[str, Any]:
    state = Path(info.state_dir)
    return {
        "cluster_id": info.cluster_id,
        "address": info.address,
        "state_dir": info.state_dir,
        "token_file": str(state / TOKEN_NAME),
        "ca_file": str(state / CA_NAME),
        "machine": info.machine,
    }


def _text(info: ClusterInfo, booted: Booted, lost_after_s: float) -> str:
    state = Path(info.state_dir)
    lines = [
        f"cluster {info.cluster_id} serves at {info.address} (machine {booted.machine_id} of Fly's app {booted.app})"
    ]
    if booted.reach == "proxy":
        port = booted.address.rpartition(":")[2]
        host = f"{booted.machine_id}.vm.{booted.app}.internal"
        lines += [
            "",
            "first open the way to it, and leave it open:",
            f"    fly proxy {port}:{port} {host} -a {booted.app}",
        ]
    lines += [
        "",
        "connect on this host:",
        f'    runner.init("{info.address}")',
        "or from anywhere, with a copy of the two files:",
        f"    export {ADDRESS}={info.address}",
        f"    export {TOKEN_FILE}={shlex.quote(str(state / TOKEN_NAME))}",
        f"    export {CA}={shlex.quote(str(state / CA_NAME))}",
        "",
        f"With no client and no detached work for {lost_after_s:g} s it ends, with its runs and logs.",
        "look:  runner status",
        "stop:  runner down",
    ]
    return "\n".join(lines)


def _write_private(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
