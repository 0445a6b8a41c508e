"""Machines and resources of the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.client.requests import ask
from runner.options import from_units
from runner.rpc.gen import client_pb2

if TYPE_CHECKING:
    from runner.client.session import Session

_ALIVE = frozenset({"ready", "draining"})


@dataclass(frozen=True, slots=True)
class Node:
    """One machine."""

    machine_id: str
    state: str
    generation: int
    resources: Mapping[str, float]  # CPU, GPU, memory in bytes, custom ones
    available: Mapping[str, float]
    running_tasks: int
    provider: str
    provider_machine_id: str
    pid: int  # of its agent
    host_id: str  # machines with the same one share memory
    phases: Mapping[str, float]  # boot phase -> seconds since the machine was requested
    reason: str  # why it is lost or failed
    pool: str
    size: str  # the provider's name for such a machine, where it has one
    region: str
    labels: Mapping[str, str]
    cost: float | None  # US dollars until now; None: free, or its price is not known
    snapshot: int = 0  # how often a suspend of it has begun
    sleep: str = ""  # while it is on its way to sleep or back: how far, as "waits for task t-7 to end"
    wake: str = ""  # how it came back last: "resumed", "cold", or "cancelled" where the suspend did not take place
    slept_s: float = 0.0  # of a suspended machine: for how long it has; else how long it slept last

    @property
    def is_alive(self) -> bool:
        """Whether tasks can run there."""
        return self.state in _ALIVE

    def __getitem__(self, name: str) -> Any:
        """What Ray's dicts of nodes have under these names."""
        named = {
            "NodeID": self.machine_id,
            "Alive": self.is_alive,
            "Resources": dict(self.resources),
            "NodeManagerHostname": self.host_id,
            "alive": self.is_alive,
        }
        return named[name]


def list_nodes(session: Session) -> list[Node]:
    """All machines that the cluster knows, in order of their request."""
    request = client_pb2.ListMachinesRequest(page_size=1000)
    nodes: list[Node] = []
    while True:
        reply = ask(session, "ListMachines", request, client_pb2.ListMachinesReply)
        nodes += [_node(machine) for machine in reply.machines]
        if not reply.next_page_token:
            return nodes
        request.page_token = reply.next_page_token


def resources(session: Session, *, available: bool) -> dict[str, float]:
    """Sums over all machines that are ready."""
    status = ask(session, "GetStatus", client_pb2.GetStatusRequest(), client_pb2.GetStatusReply)
    return from_units(status.available.amounts if available else status.total.amounts)


def read_cost(session: Session, timeout_s: float) -> client_pb2.Cost | None:
    """What the cluster's machines have cost until now; None where they are free."""
    status = ask(session, "GetStatus", client_pb2.GetStatusRequest(), client_pb2.GetStatusReply, timeout_s)
    return status.cost if status.HasField("cost") else None


def _node(machine: client_pb2.MachineInfo) -> Node:
    return Node(
        machine_id=machine.machine_id,
        state=machine.state,
        generation=machine.generation,
        resources=from_units(machine.total.amounts),
        available=from_units(machine.available.amounts),
        running_tasks=machine.running_tasks,
        provider=machine.provider,
        provider_machine_id=machine.provider_machine_id,
        pid=machine.pid,
        host_id=machine.host_id,
        phases=dict(machine.phases),
        reason=machine.reason,
        pool=machine.pool,
        size=machine.size,
        region=machine.region,
        labels=dict(machine.labels),
        cost=machine.cost if machine.HasField("cost") else None,
        snapshot=machine.snapshot,
        sleep=machine.sleep,
        wake=machine.wake,
        slept_s=machine.slept_s,
    )
