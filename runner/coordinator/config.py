"""What a parent hands to the coordinator process that it starts, and what it gets back. Light: client and CLI import it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from runner.errors import BadOptionsError
from runner.pools import Pool, check_pools
from runner.providers import registry

LOOPBACK = "127.0.0.1"
PROVIDERS = registry.PROVIDERS
check_provider = registry.check_provider
DURABILITIES = ("process", "power")
SETTINGS_NAME = "settings.json"
BOOT_DEADLINE_S = 120.0
# Who waits for a strict start waits for all boots; the coordinator says earlier when they do not come.
STRICT_START_S_MAX = 3600.0
# What an orderly end may take: machines elsewhere are destroyed by calls, one by one.
STOP_S_MAX = 8
STOP_REMOTE_S_MAX = 60
# Said anew at each start; the token has a file of its own.
_OF_ONE_START = frozenset({"home", "cluster_id", "embedded", "client_pid", "life_fd", "token"})


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """Everything a coordinator needs to start.

    Travels as one msgpack map over the descriptor named by `--config-fd`; descriptors in it are inherited ones.
    """

    home: str  # the state directory is <home>/clusters/<cluster_id>
    cluster_id: str = ""  # empty: a new random one; an existing one is taken up again
    embedded: bool = True
    client_pid: int = 0  # embedded: the coordinator ends when this process does
    life_fd: int = -1  # embedded: read end of a pipe whose other end only the client holds
    # ---- the fleet ----
    provider: str = "local"
    provider_options: Mapping[str, Any] = field(default_factory=dict, repr=False)  # its own, such as an image
    pools: tuple[Pool, ...] = (Pool(min=1),)
    max_cost: float | None = None  # USD; when what has been spent and what runs come near, nothing more is booted
    strict: bool = False  # fewer machines than `start` says are a failure
    preload: tuple[str, ...] = ()  # modules that templates import at boot
    # ---- the network ----
    host: str = LOOPBACK
    port: int = 0  # for clients; 0: any free one
    fleet_port: int = 0
    advertise: str = ""  # the host under which machines find this one; empty: `host`
    token: str = field(default="", repr=False)  # empty: the one in the state directory, or a new one
    # ---- times and limits ----
    durability: str = "process"  # "process": survives kill -9; "power": also power loss, at the cost of an fsync a turn
    lost_after_s: float = 60.0
    destroy_after_s: float = 120.0
    heartbeat_s: float = 5.0
    # For all suspend hooks of one process, and as long for those after the resume; None: RUNNER_SUSPEND_HOOKS_S.
    suspend_hooks_s: float | None = None
    boot_deadline_s: float = BOOT_DEADLINE_S  # from the machine's creation to its agent's registration
    client_lost_after_s: float = 30.0
    ends_alone: bool = False  # ends when no client and no detached work has been there for `client_lost_after_s`
    store_bytes: int | None = None  # of the object store in memory, the rest goes to disk; None: see docs/objects.md
    disk_reserve_bytes: int = 64 << 20  # submits are refused when the journal's disk has less than this left

    def to_dict(self) -> dict[str, Any]:
        """A map that msgpack can pack."""
        packed = {each.name: getattr(self, each.name) for each in fields(self)}
        packed["provider_options"] = dict(self.provider_options)
        packed["pools"] = [pool.to_dict() for pool in self.pools]
        packed["preload"] = list(self.preload)
        return packed

    def kept(self) -> dict[str, Any]:
        """What the cluster is like, whoever starts it: what its state directory keeps. No provider's token is in it."""
        kept = {name: value for name, value in self.to_dict().items() if name not in _OF_ONE_START}
        kept["provider_options"].pop("token", None)
        return kept

    @classmethod
    def from_dict(cls, packed: Mapping[str, Any]) -> CoordinatorConfig:
        """The inverse of `to_dict`.

        Raises:
            BadOptionsError: an unknown key or a value that cannot work.
        """
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(packed) - known):
            raise BadOptionsError(
                f"coordinator settings {', '.join(unknown)} are unknown; known are {', '.join(sorted(known))}"
            )
        kept = dict(packed)
        kept["preload"] = tuple(packed.get("preload", ()))
        if "pools" in packed:
            kept["pools"] = check_pools(tuple(Pool.from_dict(each) for each in packed["pools"]))
        config = cls(**kept)
        if config.durability not in DURABILITIES:
            raise BadOptionsError(f"durability is {config.durability!r}; it must be one of {', '.join(DURABILITIES)}")
        registry.check_provider(config.provider, config.provider_options)
        if config.max_cost is not None and not config.max_cost > 0:
            raise BadOptionsError(f"max_cost is {config.max_cost!r}; expected US dollars, more than 0")
        return config


@dataclass(frozen=True, slots=True)
class CoordinatorReady:
    """What a coordinator writes to `--ready-fd` when it serves: one msgpack map, then it closes the descriptor.

    A failed start writes `{"error": {"type": class name in runner.errors, "message": text}}` instead.
    """

    address: str  # host:port for clients
    cluster_id: str
    ca_pem: bytes
    token: str = field(repr=False)
    state_dir: str
    pid: int

    def to_dict(self) -> dict[str, Any]:
        """A map that msgpack can pack."""
        return asdict(self)

    @classmethod
    def from_dict(cls, packed: Mapping[str, Any]) -> CoordinatorReady:
        """The inverse of `to_dict`."""
        return cls(**{each.name: packed[each.name] for each in fields(cls)})


def read_kept(state_dir: Path) -> dict[str, Any]:
    """The settings that a cluster was started with last; empty for one of a version that did not keep them.

    Raises:
        BadOptionsError: the file cannot be read.
    """
    path = state_dir / SETTINGS_NAME
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        # A newer version may have kept more.
        return {each.name: stored[each.name] for each in fields(CoordinatorConfig) if each.name in stored}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise BadOptionsError(
            f"{path} cannot be read ({error}); remove it, and give all options to `runner up`"
        ) from None
