"""Leases: who holds one alone may change the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.flysim.answers import OK, Answer, ApiError
from runner.flysim.calls import Call
from runner.flysim.cloud import Cloud
from runner.flysim.config_rules import seconds_of
from runner.flysim.records import Lease, Machine

NONCE = "fly-machine-lease-nonce"


def take_lease(cloud: Cloud, machine: Machine, ttl_s: float, description: str, owner: str) -> Lease:
    """A new lease with a nonce of its own. [1.2 lease]"""
    lease = Lease(cloud.dice.hex("nonce", 12), cloud.now_s + ttl_s, owner, description, machine.instance_id)
    machine.lease = lease
    return lease


def current_lease(cloud: Cloud, machine: Machine) -> Lease | None:
    """The lease, unless it has expired. [1.2 lease]"""
    lease = machine.lease
    return lease if lease is not None and cloud.now_s < lease.expires_s else None


def check_lease(cloud: Cloud, machine: Machine, headers: Mapping[str, str]) -> None:
    """The nonce must go on every change of a leased machine; else 409. [1.2 lease]"""
    lease = current_lease(cloud, machine)
    if lease is not None and headers.get(NONCE) != lease.nonce:
        text = f"machine ID {machine.machine_id} lease currently held by {lease.owner}"
        raise ApiError(409, f"{text}, expires at {cloud.iso(lease.expires_s)}")


def post_lease(cloud: Cloud, call: Call) -> Answer:
    """201: a new lease, or with the nonce the same one for longer; 409 while another holds it. [1.2 lease]"""
    machine = call.machine(cloud)
    check_lease(cloud, machine, call.headers)
    ttl: Any = call.first("ttl") or call.body.get("ttl")
    ttl_s = seconds_of(int(ttl) if str(ttl).isdigit() else ttl, cloud.settings.lease_ttl_s)
    lease = current_lease(cloud, machine)
    if lease is None:
        lease = take_lease(cloud, machine, ttl_s, str(call.body.get("description") or ""), call.org)
    else:
        lease.expires_s = cloud.now_s + ttl_s
    return Answer(201, {"status": "success", "data": lease_view(cloud, lease)})


def get_lease(cloud: Cloud, call: Call) -> Answer:
    """The lease; 404 where there is none (that status is inferred). [1.2 lease]"""
    lease = current_lease(cloud, call.machine(cloud))
    if lease is None:
        raise ApiError(404, "lease not found")
    shown = lease_view(cloud, lease)
    del shown["nonce"]  # a reader is not its holder
    return Answer(200, {"status": "success", "data": shown})


def delete_lease(cloud: Cloud, call: Call) -> Answer:
    """Only with its nonce. [1.2 lease]"""
    machine = call.machine(cloud)
    if current_lease(cloud, machine) is None:
        raise ApiError(404, "lease not found")
    check_lease(cloud, machine, call.headers)
    machine.lease = None
    return Answer(200, OK)


def lease_view(cloud: Cloud, lease: Lease) -> dict[str, Any]:
    """The lease object; its end in unix seconds. [1.2 lease]"""
    return {
        "nonce": lease.nonce,
        "expires_at": int(cloud.to_unix_s(lease.expires_s)),
        "owner": lease.owner,
        "description": lease.description,
        "version": lease.version,
    }
