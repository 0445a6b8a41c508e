"""`runner machines`."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import click

from runner.cli import machine_sleep, output, timings
from runner.cli.options import address_option, checked_address, home_option, inherited, json_option, settings
from runner.coordinator.estimate import dollars
from runner.core.values import CPU, GPU, MEMORY
from runner.pools import DEFAULT_POOL


@click.group("machines", invoke_without_command=True)
@address_option
@home_option
@json_option
@click.option("--all", "show_all", is_flag=True, help="Also machines that are gone.")
@click.pass_context
def command(context: click.Context, /, address: str | None, home: Path | None, as_json: bool, show_all: bool) -> None:
    """List a cluster's machines: state, what is in use, how long they took to boot, what they cost."""
    from runner.cli import connection

    if context.invoked_subcommand is not None:
        return
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


for each in (timings.command, machine_sleep.suspend, machine_sleep.resume, machine_sleep.wait):
    command.add_command(each)


@command.command("add")
@click.argument("count", type=click.IntRange(min=1))
@address_option
@home_option
@click.option("--pool", metavar="NAME", default="", help="The pool that grows.  [default: the first one]")
def add(count: int, address: str | None, home: Path | None, pool: str) -> None:
    """Boot COUNT more machines, for good: the pool keeps that many more."""
    from runner.cli import connection
    from runner.rpc.gen import client_pb2

    request = client_pb2.AddMachinesRequest(count=count, request_id=secrets.token_hex(8), pool=pool)
    target = connection.find(settings(inherited("home", home)), checked_address(inherited("address", address)))
    reply = connection.call(target, lambda each: each.stub.AddMachines(request, timeout=connection.CALL_TIMEOUT_S))
    nothing = "none yet: the pool has as many already, or cannot have more now (look: runner status)"
    click.echo(f"asked for {', '.join(reply.machine_ids) or nothing}")


@command.command("remove")
@click.argument("machine_ids", nargs=-1, required=True, metavar="MACHINE...")
@address_option
@home_option
@click.option("--force", is_flag=True, help="At once: what runs there runs again elsewhere.")
def remove(machine_ids: tuple[str, ...], address: str | None, home: Path | None, force: bool) -> None:
    """Take machines away, each when it has finished what it runs."""
    from runner.cli import connection
    from runner.rpc.gen import client_pb2

    target = connection.find(settings(inherited("home", home)), checked_address(inherited("address", address)))

    async def remove_all(each: Any) -> None:
        for machine_id in machine_ids:
            request = client_pb2.RemoveMachineRequest(machine_id=machine_id, force=force)
            await each.stub.RemoveMachine(request, timeout=connection.CALL_TIMEOUT_S)
            click.echo(f"{machine_id} ends{'' if force else ' as soon as it runs nothing'}")

    connection.call(target, remove_all)


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
        "pool": machine.pool,
        "provider": machine.provider,
        "provider_machine_id": machine.provider_machine_id,
        "pid": machine.pid,
        "host_id": machine.host_id,
        "phases_s": dict(sorted(machine.phases.items(), key=lambda item: item[1])),
        "size": machine.size,
        "region": machine.region,
        "cost": machine.cost if machine.HasField("cost") else None,
        "reason": machine.reason,
        "snapshot": machine.snapshot,
        "sleep": machine.sleep,
        "wake": machine.wake,
        "slept_s": round(machine.slept_s, 3),
    }


def _print(machines: list[dict[str, Any]]) -> None:
    columns = [
        "MACHINE", "STATE", "TASKS", "POOL", "CPU", "GPU", "MEMORY", "PROVIDER", "SIZE", "REGION", "PID", "BOOT", "COST",
        "NOTE",
    ]  # fmt: skip
    rows = [
        (
            machine["machine_id"],
            _state_text(machine),
            str(machine["running_tasks"]),
            "" if machine["pool"] == DEFAULT_POOL else machine["pool"],
            *(output.used_of_total(name, machine["total"], machine["available"]) for name in (CPU, GPU, MEMORY)),
            machine["provider"],
            machine["size"],
            machine["region"],
            str(machine["pid"] or ""),
            _boot_text(machine["phases_s"]),
            dollars(machine["cost"]) if machine["cost"] else "",
            output.first_line(_note_text(machine)),
        )
        for machine in machines
    ]
    # A column that is empty for all says nothing.
    kept = [index for index in range(len(columns)) if index < 3 or any(row[index] for row in rows)]
    output.print_table(
        [columns[index] for index in kept],
        [[row[index] for index in kept] for row in rows],
        right=("TASKS", "CPU", "GPU", "MEMORY", "PID", "BOOT", "COST"),
    )


def _state_text(machine: dict[str, Any]) -> str:
    """The state; of one that sleeps, for how long it has."""
    slept = f" {output.duration_text(machine['slept_s'])}" if machine["state"] == "suspended" else ""
    return f"{machine['state']}{slept}"


def _note_text(machine: dict[str, Any]) -> str:
    """How far it is on its way to sleep or back; else why it is in its state."""
    if machine["sleep"]:
        return str(machine["sleep"])
    if machine["state"] == "ready" and machine["wake"] == "resumed":
        return f"resumed after {output.duration_text(machine['slept_s'])}"
    if machine["state"] in {"booting", "ready"} and machine["wake"] == "cold":
        return f"booted cold: {machine['reason']}"
    return str(machine["reason"])


def _boot_text(phases: dict[str, float]) -> str:
    return f"{phases['registered']:.2f} s" if "registered" in phases else ""
