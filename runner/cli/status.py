"""`runner status`."""

from __future__ import annotations

from typing import Any

import click

from runner.cli import output
from runner.cli.options import address_option, checked_address, home_option, json_option, settings
from runner.coordinator.estimate import dollars

# More than these are counted, not listed: people read the first screen, programs ask for pages.
PENDING_MAX = 20
_GONE_STATES = ("boot_failed", "lost", "destroying", "destroyed")
_PENDING_STATES = ("waiting", "queued", "backoff")


@click.command("status")
@address_option
@home_option
@json_option
def command(address: str | None, home: Any, as_json: bool) -> None:
    """What a cluster has, does, and why tasks wait."""
    from runner.cli import connection

    target = connection.find(settings(home), checked_address(address))
    status = connection.call(target, read_status)
    if as_json:
        output.print_json(status)
    else:
        _print(status)


async def read_status(connection: Any) -> dict[str, Any]:
    """The status as the map that --json prints."""
    from runner.cli.connection import CALL_TIMEOUT_S
    from runner.rpc.gen import client_pb2
    from runner.rpc.version import check_protocol

    reply = await connection.stub.GetStatus(client_pb2.GetStatusRequest(), timeout=CALL_TIMEOUT_S)
    check_protocol(reply.peer, who=f"the coordinator at {connection.address}")
    pending = []
    for state in _PENDING_STATES:
        if reply.tasks_by_state.get(state, 0):
            request = client_pb2.ListTasksRequest(state=state, page_size=PENDING_MAX)
            pending += await connection.pages("ListTasks", request, "tasks", limit=PENDING_MAX)
    total, available = output.amounts(reply.total.amounts), output.amounts(reply.available.amounts)
    return {
        "cluster_id": reply.cluster_id,
        "address": connection.address,
        "embedded": reply.embedded,
        "uptime_s": round(reply.uptime_s, 3),
        "runner_version": reply.peer.runner_version,
        "python_version": reply.peer.python_version,
        "protocol": reply.peer.protocol,
        "pid": reply.pid,
        "state_dir": reply.state_dir,
        "resources": {name: {"total": amount, "available": available.get(name, 0.0)} for name, amount in total.items()},
        "machines": dict(sorted(reply.machines_by_state.items())),
        "tasks": dict(sorted(reply.tasks_by_state.items())),
        "objects": reply.objects,
        "clients": reply.clients,
        "pools": [_pool(pool) for pool in reply.pools],
        "cost": _cost(reply.cost) if reply.HasField("cost") else None,
        "pending": [_pending(task) for task in pending[:PENDING_MAX]],
        "pending_total": sum(reply.tasks_by_state.get(state, 0) for state in _PENDING_STATES),
    }


def _pool(pool: Any) -> dict[str, Any]:
    return {
        "name": pool.name,
        "machine": output.amounts(pool.machine.amounts),
        "min": pool.min,
        "max": pool.max,
        "coming": pool.coming,
        "ready": pool.ready,
        "asleep": pool.asleep,
        "idle": pool.idle,
        "going": pool.going,
        "problem": pool.problem,
        "hopeless": pool.hopeless,
    }


def pool_text(pool: dict[str, Any]) -> str:
    """How many machines a pool has and may have, and what is wrong with it."""
    bounds = str(pool["min"]) if pool["min"] == pool["max"] else f"{pool['min']} to {pool['max']}"
    states = {name: pool[name] for name in ("coming", "ready", "asleep", "going")}
    text = f"{pool['name']}: {output.count_text(states)}, {pool['idle']} idle, of {bounds}"
    problem = output.first_line(pool["problem"])
    return f"{text}; {problem}{' (no more are tried)' if pool['hopeless'] else ''}" if problem else text


def _cost(cost: Any) -> dict[str, Any]:
    return {
        "spent": cost.spent,
        "per_hour": cost.per_hour,
        "spent_by_pool": dict(sorted(cost.spent_by_pool.items())),
        "unpriced_machines": cost.unpriced_machines,
        "max_cost": cost.max_cost or None,
        "is_budget_spent": cost.is_budget_spent,
    }


def cost_text(cost: dict[str, Any]) -> str:
    """What has been spent, at which rate, and how far from the bound that is."""
    parts = [f"{dollars(cost['spent'])} so far, {dollars(cost['per_hour'])} per hour"]
    if cost["max_cost"]:
        near = ": too near for more machines" if cost["is_budget_spent"] else ""
        parts.append(f"of at most {dollars(cost['max_cost'])}{near}")
    if cost["unpriced_machines"]:
        parts.append(f"without {output.plural(cost['unpriced_machines'], 'machine')} whose price is not known")
    return ", ".join(parts)


def _pending(task: Any) -> dict[str, Any]:
    return {
        "task_id": task.task_id,
        "name": task.name,
        "function_name": task.function_name,
        "state": task.state,
        "submitted_s": task.submitted_s,
        "why_waiting": task.why_waiting,
    }


def _print(status: dict[str, Any]) -> None:
    kind = "embedded" if status["embedded"] else "standing"
    click.echo(f"cluster   {status['cluster_id']} at {status['address']} ({kind})")
    click.echo(
        f"up        {output.duration_text(status['uptime_s'])}, pid {status['pid']}, "
        f"runner {status['runner_version']}, Python {status['python_version']}"
    )
    click.echo(f"state in  {status['state_dir']}")
    gone = any(status["machines"].get(state) for state in _GONE_STATES)
    click.echo(f"machines  {output.count_text(status['machines'])}{' (why: runner machines --all)' if gone else ''}")
    for pool in status["pools"]:
        if len(status["pools"]) > 1 or pool["min"] != pool["max"] or pool["problem"]:
            click.echo(f"pool      {pool_text(pool)}")
    used = ", ".join(
        f"{output.amount_text(name, of['total'] - of['available'])} of {output.amount_text(name, of['total'])} {name}"
        for name, of in status["resources"].items()
    )
    click.echo(f"in use    {used or 'nothing'}")
    if status["cost"]:
        click.echo(f"cost      {cost_text(status['cost'])}")
    click.echo(f"tasks     {output.count_text(status['tasks'])}")
    click.echo(f"clients   {status['clients']}, {output.plural(status['objects'], 'object')}")
    if not status["pending"]:
        return
    click.echo("")
    rows = [
        (task["name"] or task["function_name"], task["task_id"], task["state"], task["why_waiting"])
        for task in status["pending"]
    ]
    output.print_table(("PENDING", "TASK", "STATE", "WHY"), rows)
    more = status["pending_total"] - len(rows)
    if more > 0:
        click.echo(f"… and {more} more")
