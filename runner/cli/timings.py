"""`runner machines timings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from runner.cli import output
from runner.cli.options import address_option, checked_address, home_option, inherited, json_option, settings


@click.command("timings")
@address_option
@home_option
@json_option
@click.option("--pool", metavar="NAME", help="Only machines of this pool.")
def command(address: str | None, home: Path | None, as_json: bool, pool: str | None) -> None:
    """Where the time of machines' boots went, phase by phase.

    A phase is counted from the one before it. Machines that are gone count with what they told when they registered.
    """
    from runner.cli import connection
    from runner.training.tables import phases_table
    from runner.training.timings import timings

    target = connection.find(settings(inherited("home", home)), checked_address(inherited("address", address)))
    machines = connection.call(target, read_phases)
    of_all = sorted({name for name, _ in machines})
    if pool is not None:
        machines = [(name, phases) for name, phases in machines if name == pool]
    shown = timings(phases for _, phases in machines)
    if as_json:
        output.print_json(shown.to_dict())
    elif shown.all:
        output.print_rich(phases_table(shown))
    else:
        output.note(
            "no machine has told of a phase yet"
            if pool is None
            else f"no machine of pool {pool!r} has told of a phase yet; of others: {', '.join(of_all) or 'none'}"
        )


async def read_phases(connection: Any) -> list[tuple[str, dict[str, float]]]:
    """Pool and phases of every machine that has any."""
    from runner.rpc.gen import client_pb2

    request = client_pb2.ListMachinesRequest(page_size=500)
    machines = await connection.pages("ListMachines", request, "machines")
    return [(machine.pool, dict(machine.phases)) for machine in machines if machine.phases]
