"""The files of one cluster: its state directory (0700), its keys and token, its object store."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.config import read_secret
from runner.coordinator.config import SETTINGS_NAME
from runner.errors import UsageError
from runner.ids import ClusterId, random_id
from runner.objects import spill
from runner.objects.file_locks import lock_file
from runner.rpc.clusters import CA_NAME, FILE_NAME, TOKEN_NAME, ClusterInfo
from runner.rpc.security import Authority, new_token

_CA_KEY_NAME = "ca-key.pem"
_JOIN_KEY_NAME = "join-key"
_JOIN_KEY_BYTES = 32
_SHARED_MEMORY = Path("/dev/shm")
_STORE_PREFIX = "runner-"
# Locked while its coordinator lives; says whether anybody may come back for what is in the store.
_STORE_LOCK = ".lock"
_EMBEDDED = b"embedded"


class StateDir:
    """Held by at most one coordinator at a time.

    Raises:
        UsageError: another coordinator runs on this directory.
        OSError: it cannot be made or written.
    """

    def __init__(self, home: str, cluster_id: str, token: str, *, embedded: bool = True) -> None:
        self.cluster_id = ClusterId(cluster_id or random_id("c").removeprefix("c-"))
        self.path = Path(home) / "clusters" / self.cluster_id
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self._lock_fds = [self._lock()]
        self.journal = self.path / "journal.db"
        self.events = self.path / "events.db"
        self.log = self.path / "coordinator.log"
        self.machine_logs = self.path / "machines"
        self.artefacts = self.path / "artefacts"
        self.artefacts.mkdir(mode=0o700, exist_ok=True)
        self.authority = self._authority()
        self.token = self._token(token)
        self.join_secret = self._join_secret()
        sweep_stores()
        self.store = self._store()
        self._lock_fds.append(lock_file(self.store / _STORE_LOCK))
        os.write(self._lock_fds[-1], _EMBEDDED if embedded else b"standing")

    def bound_store(self, bytes_max: int | None, disk_reserve_bytes: int) -> None:
        """How much of the store may be in memory (None: what the host can spare); the rest goes to disk."""
        if self.store.parent != self.path:  # else it is on disk as it is
            bounds = bytes_max or spill.default_bytes_max(str(self.store))
            folder = str(self.path / "spilled")
            spill.set_bounds(str(self.store), spill.Bounds(bounds, folder, disk_reserve_bytes))

    def publish(self, address: str, *, embedded: bool) -> None:
        """Write cluster.json: from now on the cluster can be found."""
        ClusterInfo.of_this_process(self.cluster_id, str(self.path), address, embedded=embedded).write()
        (self.path / FILE_NAME).chmod(0o600)

    def keep_settings(self, settings: Mapping[str, Any]) -> None:
        """What a start that takes this cluster up again goes on with."""
        write_private(self.path / SETTINGS_NAME, json.dumps(settings, indent=2).encode() + b"\n")

    def close(self, *, keep: bool, keep_store: bool) -> None:
        """Release it. Without `keep` the whole directory goes; the object store goes unless `keep_store`."""
        if not keep_store:
            spill.clear(str(self.store))
        if not keep:
            shutil.rmtree(self.path, ignore_errors=True)
        for fd in self._lock_fds:
            os.close(fd)
        self._lock_fds.clear()

    def _lock(self) -> int:
        try:
            return lock_file(self.path / "lock")
        except BlockingIOError:
            raise UsageError(
                f"cluster {self.cluster_id} is running already (another coordinator holds {self.path}); "
                f"use it, or stop it with `runner down`"
            ) from None

    def _authority(self) -> Authority:
        ca, key = self.path / CA_NAME, self.path / _CA_KEY_NAME
        if key.exists() and ca.exists():
            return Authority.load(ca.read_bytes(), key.read_bytes())
        authority = Authority.create()
        write_private(key, authority.key_pem)
        write_private(ca, authority.ca_pem)
        return authority

    def _join_secret(self) -> bytes:
        """What machines' join tokens are derived from."""
        path = self.path / _JOIN_KEY_NAME
        if not path.exists():
            write_private(path, secrets.token_bytes(_JOIN_KEY_BYTES))
        return path.read_bytes()

    def _token(self, given: str) -> str:
        path = self.path / TOKEN_NAME
        if not given and path.exists():
            return read_secret(path, "the cluster's state")
        token = given or new_token()
        write_private(path, token.encode())
        return token

    def _store(self) -> Path:
        """Shared memory where the host has it, else a folder on disk."""
        usable = _SHARED_MEMORY.is_dir() and os.access(_SHARED_MEMORY, os.W_OK)
        store = _SHARED_MEMORY / f"{_STORE_PREFIX}{self.cluster_id}" if usable else self.path / "objects"
        store.mkdir(mode=0o700, exist_ok=True)
        if store.stat().st_uid != os.getuid():
            # /dev/shm is everybody's: a folder that someone else made in advance is not to be trusted.
            store = self.path / "objects"
            store.mkdir(mode=0o700, exist_ok=True)
        store.chmod(0o700)
        return store


def sweep_stores() -> None:
    """Remove the object stores of embedded coordinators that were killed: nobody can come back for what is in them."""
    for store in _SHARED_MEMORY.glob(f"{_STORE_PREFIX}*"):
        try:
            if store.stat().st_uid != os.getuid() or (store / _STORE_LOCK).read_bytes() != _EMBEDDED:
                continue
            fd = lock_file(store / _STORE_LOCK)
        except OSError:
            continue  # its coordinator lives, is just making it, or it is something else
        spill.clear(str(store))
        os.close(fd)


def write_private(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
