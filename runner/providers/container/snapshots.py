"""Saved containers: files of this host that Podman makes with CRIU, and takes back once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.ids import MachineId
from runner.providers.base import MachineState, ProviderMachine, provider_error
from runner.providers.container.devices import is_podman
from runner.providers.container.engine import ENGINE_ERRORS, Engine, in_words
from runner.providers.criu import Criu, find_criu

_API = "v4.0.0/libpod/containers"  # Podman's own, beside Docker's: that has no export
_CALL_S = 600.0  # gigabytes to and from a disk
_CHUNK_BYTES = 1 << 20
_TAKEN = ".taken"  # of a snapshot that is used up, until the container is back
# The agent has closed its connections, but may be asking for registration in this moment; locks of files are its own.
_SAVE = {"export": "true", "leaveRunning": "true", "tcpEstablished": "true", "fileLocks": "true"}
_TAKE = {"import": "true", "tcpEstablished": "true", "fileLocks": "true"}


class Snapshots:
    """Of one cluster's containers. A snapshot counts only while there is no container of its name."""

    def __init__(self, engine: Engine, folder: Path, criu: Criu) -> None:
        self.criu = criu
        self._engine = engine
        self._folder = folder

    async def save(self, record: ProviderMachine) -> None:
        """Write it to a file. The container runs on: when this fails nothing has happened to it.

        Raises:
            ProviderError: Podman refused, or the file could not be written whole.
        """
        try:
            await self._engine.call(self._save, record)
        except ENGINE_ERRORS as error:
            self.discard(record.name)
            raise provider_error("suspend", record.name, f"it could not be saved: {in_words(error)}") from None

    async def restore(self, name: MachineId) -> None:
        """Bring the container back. The snapshot is used up, also when that fails.

        Raises:
            ProviderError: Podman refused.
        """
        taken = self._tar(name).with_suffix(_TAKEN)
        try:
            os.replace(self._tar(name), taken)
            await self._engine.call(self._restore, taken)
        except ENGINE_ERRORS as error:
            raise provider_error("start", name, f"it could not be restored: {in_words(error)}") from None
        finally:
            self.discard(name)

    def find(self, name: MachineId) -> ProviderMachine | None:
        """The machine that was saved; None: there is no such snapshot."""
        if not self._tar(name).exists():
            return None
        try:
            about: Mapping[str, Any] = json.loads(self._about(name).read_text())
        except (OSError, ValueError):
            return None
        return ProviderMachine(
            name,
            str(about["id"]),
            MachineState.SUSPENDED,
            float(about["created_unix_s"]),
            f"saved by CRIU {about['criu']}",
        )

    def all(self) -> tuple[ProviderMachine, ...]:
        """Whatever coordinator has saved it."""
        names = [MachineId(path.stem) for path in sorted(self._folder.glob("*.tar"))]
        return tuple(found for name in names if (found := self.find(name)) is not None)

    def discard(self, name: MachineId) -> None:
        """Also parts of one, and what a coordinator that was killed had begun to restore. Idempotent."""
        for suffix in (".tar", ".json", ".new", _TAKEN):
            self._tar(name).with_suffix(suffix).unlink(missing_ok=True)

    # ---- blocking ----
    def _save(self, record: ProviderMachine) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = {"id": record.provider_machine_id, "created_unix_s": record.created_unix_s, "criu": self.criu.version}
        self._about(record.name).write_text(json.dumps(about))
        new = self._tar(record.name).with_suffix(".new")
        client = self._engine.client
        url = f"{client.base_url}/{_API}/{record.provider_machine_id}/checkpoint"
        with contextlib.closing(client.post(url, params=_SAVE, stream=True, timeout=_CALL_S)) as answer:
            _check(answer)
            # Memory has secrets in it.
            with open(new, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.writelines(answer.iter_content(_CHUNK_BYTES))
                size = file.tell()
        if size == 0:
            raise OSError("Podman has sent an empty checkpoint")
        os.replace(new, self._tar(record.name))

    def _restore(self, path: Path) -> None:
        client = self._engine.client
        with path.open("rb") as file:
            answer = client.post(f"{client.base_url}/{_API}/import/restore", params=_TAKE, data=file, timeout=_CALL_S)
        with contextlib.closing(answer):
            _check(answer)

    def _tar(self, name: MachineId) -> Path:
        return self._folder / f"{name}.tar"

    def _about(self, name: MachineId) -> Path:
        return self._folder / f"{name}.json"


def why_none(about: tuple[Mapping[str, Any], Mapping[str, Any]], criu: Criu, *, is_local: bool) -> str:
    """Why containers of this engine cannot be saved; empty when they can. `about`: version and information."""
    version, info = about
    if not is_podman(version):
        return "only Podman saves containers"
    if not is_local:
        return "the engine is on another host"
    if any("rootless" in str(each) for each in info.get("SecurityOptions") or []):
        return "Podman saves containers only as root"
    return criu.problem


async def open_snapshots(
    engine: Engine, about: tuple[Mapping[str, Any], Mapping[str, Any]], folder: Path
) -> tuple[Snapshots | None, str]:
    """Snapshots where the engine can make them, or None and why not."""
    if why := why_none(about, Criu("", ""), is_local=engine.is_local):
        return None, why  # CRIU need not be asked
    criu = await asyncio.to_thread(find_criu)
    return (Snapshots(engine, folder, criu), "") if criu.works else (None, criu.problem)


def _check(answer: Any) -> None:
    if answer.status_code != 200:
        text = answer.text
        with contextlib.suppress(ValueError):
            text = str(json.loads(text).get("message") or text)
        raise OSError(f"Podman answered {answer.status_code}: {text[-1000:]}")
