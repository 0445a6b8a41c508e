"""`runner machines`."""

from __future__ import annotations

from typing import Any

import click

from runner.cli import output
from runner.cli.options import address_option, checked_address, home_option, json_option, settings
from runner.core.values import CPU, GPU, MEMORY


@click.command("machines")
@address_option
@home_option
@json_option
@click.option("--all", "show_all", is_flag=True, help="Also machines that are gone.")
def command(address: str | None, home: Any, as_json: bool, show_all: bool) -> None:
    """List a cluster's machines: state, what is in use, and how long they took to boot."""
    from runner.cli import connection

    target = connection.find(settings(home), checked_address(address))
    machines = connection.call(target, _read)
    if not show_all:
        machines = [machine for machine in machines if machine["state"] != "destroyed"]
    if as_json:
        output.print_json(machines)
    elif machines:
        _print(machines)
    else:
        output.note("the cluster has no machines")


async def _read(connection: Any) -> list[dict[str, Any]]:
    from runner.rpc.gen import client_pb2

    request = client_pb2.ListMachinesRequest(page_size=500)
    return [_as_map(machine) for machine in await connection.pages("ListMachines", request, "machines")]


def _as_map(machine: Any) -> dict[str, Any]:
    return {
        "machine_id": machine.machine_id,
        "state": machine.state,
        "generation": machine.generation,
        "total": output.amounts(machine.total.amounts),
        "available": output.amounts(machine.available.amounts),
        "running_tasks": machine.running_tasks,
        "provider": machine.provider,
        "provider_machine_id": machine.provider_machine_id,
        "pid": machine.pid,
        "host_id": machine.host_id,
        "phases_s": dict(sorted(machine.phases.items(), key=lambda item: item[1])),
        "reason": machine.reason,
    }


def _print(machines: list[dict[str, Any]]) -> None:
    columns = ["MACHINE", "STATE", "TASKS", "CPU", "GPU", "MEMORY", "PROVIDER", "PID", "BOOT", "NOTE"]
    rows = [
        (
            machine["machine_id"],
            machine["state"],
            str(machine["running_tasks"]),
            *(output.used_of_total(name, machine["total"], machine["available"]) for name in (CPU, GPU, MEMORY)),
            machine["provider"],
            str(machine["pid"] or ""),
            _boot_text(machine["phases_s"]),
            machine["reason"],
        )
        for machine in machines
    ]
    # A column that is empty for all says nothing.
    kept = [index for index in range(len(columns)) if index < 3 or any(row[index] for row in rows)]
    output.print_table(
        [columns[index] for index in kept],
        [[row[index] for index in kept] for row in rows],
        right=("TASKS", "CPU", "GPU", "MEMORY", "PID", "BOOT"),
    )


def _boot_text(phases: dict[str, float]) -> str:
    return f"{phases['registered']:.2f} s" if "registered" in phases else ""
