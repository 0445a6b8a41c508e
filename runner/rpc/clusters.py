"""The cluster.json of a state directory: where a cluster's coordinator serves, and whether it still lives.

Written by the coordinator, read by clients on the same host and by the command line.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from runner.config import Settings, read_certificate, read_secret
from runner.errors import AuthenticationError, CoordinatorUnreachableError, UsageError
from runner.rpc.version import PROTOCOL, VERSION, host_id, python_version

FILE_NAME = "cluster.json"
CA_NAME = "ca.pem"
TOKEN_NAME = "token"  # noqa: S105  the file's name


@dataclass(frozen=True)
class ClusterInfo:
    """What a coordinator says about itself in its state directory. Holds no secret."""

    cluster_id: str
    state_dir: str
    address: str
    pid: int
    pid_start_ticks: int = 0  # with the pid it names one process for good
    host_id: str = ""
    embedded: bool = False
    started_unix_s: float = 0.0
    protocol: int = PROTOCOL
    runner_version: str = VERSION
    python_version: str = ""
    # Where the coordinator is a machine of a provider: which one. Then it has no process here to look at.
    machine: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_this_process(cls, cluster_id: str, state_dir: str, address: str, *, embedded: bool) -> ClusterInfo:
        """For the coordinator: itself, as of now."""
        pid = os.getpid()
        return cls(
            cluster_id=cluster_id,
            state_dir=state_dir,
            address=address,
            pid=pid,
            pid_start_ticks=start_ticks(pid) or 0,
            host_id=host_id(),
            embedded=embedded,
            started_unix_s=time.time(),
            python_version=python_version(),
        )

    def write(self) -> None:
        """Put cluster.json into the state directory, whole or not at all."""
        path = Path(self.state_dir) / FILE_NAME
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)

    def read_token(self) -> str:
        """The cluster's token.

        Raises:
            BadOptionsError: the file is gone, unreadable or empty.
        """
        return read_secret(Path(self.state_dir) / TOKEN_NAME, "the cluster's state")

    def read_ca(self) -> bytes:
        """The certificate of the cluster's authority.

        Raises:
            BadOptionsError: the file is gone or unreadable.
        """
        return read_certificate(Path(self.state_dir) / CA_NAME, "the cluster's state")

    def is_running(self) -> bool:
        """Whether that very coordinator process is alive on this host; one that is a machine counts until it is forgotten."""
        if self.machine:
            return True
        with self._process() as pidfd:
            return pidfd is not None

    def send_signal(self, signum: signal.Signals) -> bool:
        """Signal the coordinator and nobody else; False when it is gone."""
        with self._process() as pidfd:
            if pidfd is None:
                return False
            try:
                signal.pidfd_send_signal(pidfd, signum)
            except ProcessLookupError:
                return False
            return True

    def wait_gone(self, timeout_s: float) -> bool:
        """Block until the coordinator has ended; False when it still lives after `timeout_s`."""
        with self._process() as pidfd:
            return pidfd is None or bool(select.select([pidfd], [], [], timeout_s)[0])

    @contextmanager
    def _process(self) -> Iterator[int | None]:
        if self.pid <= 0 or self.host_id not in {"", host_id()}:
            yield None
            return
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            yield None
            return
        try:
            # Checked after the descriptor is open: from then on it cannot come to mean another process.
            yield pidfd if self._is_coordinator() else None
        finally:
            os.close(pidfd)

    def _is_coordinator(self) -> bool:
        ticks = start_ticks(self.pid)
        if ticks is None:
            return False
        if self.pid_start_ticks:
            return ticks == self.pid_start_ticks
        return b"runner" in _command_line(self.pid)


def read_cluster(state_dir: Path) -> ClusterInfo | None:
    """The cluster of one state directory; None when its cluster.json is missing or unreadable."""
    try:
        stored = json.loads((state_dir / FILE_NAME).read_text(encoding="utf-8"))
        known = {key: stored[key] for key in ClusterInfo.__dataclass_fields__ if key in stored}
        # The directory may have been moved since.
        return ClusterInfo(**{**known, "state_dir": str(state_dir)})
    except (OSError, ValueError, TypeError):
        return None


def list_clusters(clusters_dir: Path) -> list[ClusterInfo]:
    """All clusters with a cluster.json under `clusters_dir`, the newest first; running or not."""
    try:
        names = sorted(os.listdir(clusters_dir))
    except OSError:
        return []
    found = (read_cluster(clusters_dir / name) for name in names)
    return sorted((info for info in found if info is not None), key=lambda info: -info.started_unix_s)


def find_cluster(clusters_dir: Path, address: str) -> ClusterInfo | None:
    """The running standing cluster of this host that serves at `address`, so that its token and CA are found."""
    port = address.rpartition(":")[2]
    local = {f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]")}
    for info in running_clusters(clusters_dir):
        if info.address == address or (address in local and info.address.rpartition(":")[2] == port):
            return info
    return None


@dataclass(frozen=True)
class Target:
    """A coordinator to connect to, and what that needs."""

    address: str
    ca_pem: bytes
    token: str = field(repr=False)


def resolve(settings: Settings, address: str | None = None) -> Target:
    """Where to connect: `address`, else RUNNER_ADDRESS, else the one standing cluster of this host.

    Token and CA come from the environment; what it leaves out comes from the
    state directory of a cluster of this host at that address.

    Raises:
        CoordinatorUnreachableError: no address is given and no cluster runs here.
        UsageError: no address is given and several clusters run here.
        AuthenticationError: the token or the CA of that address is not known here.
    """
    address = address or settings.address
    if address is None:
        info: ClusterInfo | None = _only_cluster(settings.clusters_dir)
    else:
        info = find_cluster(settings.clusters_dir, address)
    token, ca_pem = settings.read_token(), settings.read_ca()
    if info is not None:
        return Target(address or info.address, ca_pem or info.read_ca(), token or info.read_token())
    if token is None or ca_pem is None:
        missing = [name for name, value in (("RUNNER_TOKEN_FILE", token), ("RUNNER_CA", ca_pem)) if value is None]
        raise AuthenticationError(
            f"no cluster of this host under {settings.home} serves at {address}, so it takes {' and '.join(missing)} "
            f"in the environment; `runner up` printed them where the cluster was started"
        )
    assert address is not None  # else there is an info
    return Target(address, ca_pem, token)


def running_clusters(clusters_dir: Path) -> list[ClusterInfo]:
    """The standing clusters of this host that run now, the newest first."""
    return [info for info in list_clusters(clusters_dir) if not info.embedded and info.is_running()]


def _only_cluster(clusters_dir: Path) -> ClusterInfo:
    running = running_clusters(clusters_dir)
    if not running:
        raise CoordinatorUnreachableError(
            f"no standing cluster runs on this host (looked in {clusters_dir}); "
            f"start one with `runner up`, or name one with RUNNER_ADDRESS"
        )
    if len(running) > 1:
        addresses = ", ".join(info.address for info in running)
        raise UsageError(f"several clusters run on this host: {addresses}; choose one with --address or RUNNER_ADDRESS")
    return running[0]


def start_ticks(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _command_line(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""
