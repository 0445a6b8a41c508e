"""A cluster of this process's own whose machines are at the simulator of Fly's API."""

from __future__ import annotations

from typing import Any
from unittest import mock

import runner
from runner.client.connection import ClientSession
from runner.client.context import current_session
from runner.client.fleet_options import FleetOptions
from runner.client.streams import client_transport
from runner.flysim import FlySim
from runner.flysim.settings import Delay
from runner.rpc.gen import client_pb2

APP, IMAGE = "bad-input", "runner-worker:1"
QUICK: dict[str, Any] = {
    "create_delay": Delay(0.05, 0.3),
    "pull_cold_delay": Delay(0.1),
    "pull_warm_delay": Delay(0.02),
    "start_delay": Delay(0.1, 0.3),
    "rate_limit": False,
    "gone_within_s": 15.0,
}


def init(
    sim: FlySim, *, options: dict[str, Any] | None = None, times: dict[str, float] | None = None, **more: Any
) -> ClientSession:
    """`runner.init` on the simulator; `options` are provider options beside the usual ones, `times` the coordinator's,
    which `runner.init` does not offer.
    """
    fixed = {"app": APP, "org": "personal", "base_url": sim.url, "token": sim.token, "rates": False, "poll_s": 0.5}
    chosen = {key: value for key, value in {**fixed, **(options or {})}.items() if value is not None}
    settings = {"image": IMAGE, "num_cpus": 1, "log_to_driver": False, **more}
    plain = FleetOptions.to_config
    with mock.patch.object(FleetOptions, "to_config", lambda self: {**plain(self), **(times or {})}):
        return runner.init(provider="fly", provider_options=chosen, **settings)


def there(sim: FlySim) -> list[str]:
    """Names of the machines that exist."""
    return [each["name"] for each in sim.state()["machines"].values() if each["state"] != "destroyed"]


def ready() -> list[str]:
    """Machines that can take tasks."""
    return [node.machine_id for node in runner.nodes() if node.is_alive]


def pool() -> client_pb2.PoolInfo:
    """The coordinator's view of the only pool."""
    transport = client_transport(current_session())
    return transport.request("GetStatus", client_pb2.GetStatusRequest(), client_pb2.GetStatusReply).pools[0]


def add_machines(count: int) -> None:
    """Ask for more."""
    transport = client_transport(current_session())
    transport.request("AddMachines", client_pb2.AddMachinesRequest(count=count), client_pb2.AddMachinesReply)
