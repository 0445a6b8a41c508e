"""`runner machines suspend`, `resume` and `wait`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runner import config as environment
from runner.cli import output
from runner.cli.connection import CALL_TIMEOUT_S, call, find
from runner.cli.options import address_option, checked_address, home_option, inherited, settings

if TYPE_CHECKING:
    from runner.client.machine_states import Judge

_machines = click.argument("machine_ids", nargs=-1, metavar="[MACHINE]...")
_timeout = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Wait no longer.  [default: no limit]",
)
_no_wait = click.option("--no-wait", is_flag=True, help="Return when it is asked for, not when it is done.")


@click.command("suspend")
@_machines
@click.option("--all", "is_all", is_flag=True, help="All that are ready.")
@click.option(
    "--now", is_flag=True, help="Do not wait for tasks: they are interrupted, and run again elsewhere, uncharged."
)
@_no_wait
@_timeout
@address_option
@home_option
def suspend(
    machine_ids: tuple[str, ...], is_all: bool, now: bool, address: str | None, home: Path | None, **wait: Any
) -> None:
    """Have machines sleep, each when what it runs has ended.

    They come back by `runner machines resume`, or when there is work for them.
    """
    from runner.client.machine_states import has_slept
    from runner.rpc.gen import client_pb2

    _check_chosen(machine_ids, is_all)

    async def use(connection: Any) -> None:
        request = client_pb2.SuspendMachinesRequest(machine_ids=machine_ids, interrupts=now)
        reply = await connection.stub.SuspendMachines(request, timeout=CALL_TIMEOUT_S)
        if _tell_asked(reply.machine_ids, "no machine is ready", "goes to sleep", **wait):
            await _wait_for(connection, reply.machine_ids, has_slept, "suspended", wait["timeout_s"])

    _call(address, home, use)


@click.command("resume")
@_machines
@click.option("--all", "is_all", is_flag=True, help="All that sleep, or are about to.")
@click.option(
    "--config",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="What after_resume hooks are handed from now on, in place of what was set; again for more. Without a value: what "
    "the environment says, so that a secret is on no command line.",
)
@_no_wait
@_timeout
@address_option
@home_option
def resume(
    machine_ids: tuple[str, ...],
    is_all: bool,
    config: tuple[str, ...],
    address: str | None,
    home: Path | None,
    **wait: Any,
) -> None:
    """Have machines back from their snapshots; those whose snapshot cannot be used boot cold."""
    from runner.client.machine_states import is_back
    from runner.rpc.gen import client_pb2

    _check_chosen(machine_ids, is_all)
    values = _parse_config(config)

    async def use(connection: Any) -> None:
        if values:
            await connection.stub.SetMachineConfig(
                client_pb2.SetMachineConfigRequest(config=values), timeout=CALL_TIMEOUT_S
            )
        request = client_pb2.ResumeMachinesRequest(machine_ids=machine_ids)
        reply = await connection.stub.ResumeMachines(request, timeout=CALL_TIMEOUT_S)
        if _tell_asked(reply.machine_ids, "no machine sleeps", "comes back", **wait):
            await _wait_for(connection, reply.machine_ids, is_back, "ready", wait["timeout_s"])

    _call(address, home, use)


@click.command("wait")
@click.argument("machine_id", metavar="MACHINE")
@click.option("--state", required=True, help="Such as ready, suspended or destroyed.")
@_timeout
@address_option
@home_option
def wait(machine_id: str, state: str, timeout_s: float | None, address: str | None, home: Path | None) -> None:
    """Wait until a machine is in a state; exit 1 when it can never be, or the time is over."""
    from runner.client.machine_states import reaches
    from runner.errors import BadOptionsError

    try:
        judge = reaches(state)
    except BadOptionsError as error:
        raise click.UsageError(str(error)) from None

    async def use(connection: Any) -> None:
        if machine_id not in await _read(connection):
            raise BadOptionsError(f"there is no machine {machine_id!r}; `runner machines --all` lists them")
        await _wait_for(connection, [machine_id], judge, state, timeout_s)

    _call(address, home, use)


def _check_chosen(machine_ids: Sequence[str], is_all: bool) -> None:
    if bool(machine_ids) == is_all:
        raise click.UsageError("--all leaves no machines to name" if is_all else "name machines, or say --all")


def _parse_config(texts: Sequence[str]) -> dict[str, str]:
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise click.UsageError("a --config is not NAME=VALUE")  # what it is may be a secret
        if not equals:
            found = environment.variable(name)
            if found is None:
                raise click.UsageError("a --config has no value, and the environment has none by its name")
            value = found
        if name in values:
            raise click.UsageError(f"--config {name} is there twice")
        values[name] = value
    return values


def _tell_asked(machine_ids: Sequence[str], nothing: str, does: str, *, no_wait: bool, **_: Any) -> bool:
    """Whether there is something to wait for."""
    if not machine_ids:
        output.note(nothing)
    elif no_wait:
        for machine_id in machine_ids:
            click.echo(f"{machine_id} {does}")
    return bool(machine_ids) and not no_wait


async def _wait_for(
    connection: Any, machine_ids: Sequence[str], judge: Judge, wanted: str, timeout_s: float | None
) -> None:
    """Tell of each machine what it waits for, whenever that changes, and of its arrival."""
    from runner.client.machine_states import LOOK_S, LOOK_S_MAX, check, describe, too_late

    begin_s, pause_s = time.monotonic(), LOOK_S
    told: dict[str, str] = {}
    waiting = list(machine_ids)
    while True:
        infos = await _read(connection)
        late = check(infos, machine_ids, judge, wanted)
        for info in late:
            text = describe(info)
            if told.get(info.machine_id) != text:
                told[info.machine_id] = text
                output.note(text)
        still = {info.machine_id for info in late}
        for machine_id in waiting:
            if machine_id not in still:
                click.echo(describe(infos[machine_id]))
        waiting = [machine_id for machine_id in waiting if machine_id in still]
        if not late:
            return
        if timeout_s is not None and time.monotonic() >= begin_s + timeout_s:
            raise too_late(late, machine_ids, wanted, timeout_s)
        await asyncio.sleep(pause_s)
        pause_s = min(1.5 * pause_s, LOOK_S_MAX)


async def _read(connection: Any) -> dict[str, Any]:
    from runner.rpc.gen import client_pb2

    request = client_pb2.ListMachinesRequest(page_size=1000)
    return {info.machine_id: info for info in await connection.pages("ListMachines", request, "machines")}


def _call(address: str | None, home: Path | None, use: Any) -> None:
    call(find(settings(inherited("home", home)), checked_address(inherited("address", address))), use)
