"""What a session knows about its cluster."""

from __future__ import annotations

from dataclasses import dataclass

from runner.runtime_env import NONE, RuntimeEnv


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """What a session knows about its cluster."""

    client_id: str
    cluster_id: str
    host_id: str  # of this process
    store_path: str  # empty: large values go through Transport.upload
    embedded: bool = False
    is_executor: bool = False
    machines_from_seq: int = 1  # where streams begin to tell of machines
    runtime_env: RuntimeEnv = NONE  # of all its calls, under that of each
    address: str = ""  # of the coordinator, for clients
