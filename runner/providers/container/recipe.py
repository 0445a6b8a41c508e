"""From a machine that is wanted to the container that it will be."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgpack
from docker.types import DeviceRequest, Ulimit

from runner.config import BOOT_FILE
from runner.core.values import GPU, UNIT
from runner.ids import ClusterId, MachineId
from runner.providers.base import MachineSpec, MachineState, ProviderMachine, provider_error
from runner.providers.container.engine import Engine
from runner.providers.container.options import ContainerOptions
from runner.providers.registry import Place

CLUSTER_LABEL, MACHINE_LABEL, POOL_LABEL = "runner.cluster", "runner.machine", "runner.pool"
HOST_LABEL, CREATED_LABEL, GPUS_LABEL = "runner.host", "runner.created", "runner.gpus"
# In the container. Its owner, the agent, removes it once it is read: a file, because the environment of a container is
# shown to everybody who may look at it, for as long as it lives.
_BOOT_FOLDER, _BOOT_NAME = "/tmp", "runner-boot"
_STATES = {
    "created": MachineState.CREATING,
    "initialized": MachineState.CREATING,
    "running": MachineState.RUNNING,
    "restarting": MachineState.RUNNING,
    "paused": MachineState.SUSPENDED,
}


def container_name(cluster_id: ClusterId, name: MachineId) -> str:
    """The idempotency key."""
    return f"runner-{cluster_id}-{name}"


class Recipe:
    """Everything about containers of one cluster that is the same for all of them."""

    def __init__(
        self, options: ContainerOptions, place: Place, *, shares_host: bool, user: str, host_memory: int
    ) -> None:
        """`shares_host`: mount the host's store and artefacts. `host_memory`: bytes that the engine's host has."""
        self.shares_host = shares_host
        self._options = options
        self._place = place
        self._user = user
        self._host_memory = host_memory

    def arguments(self, engine: Engine, spec: MachineSpec, gpus: tuple[str, ...]) -> dict[str, Any]:
        """What `create_container` is called with."""
        labels = {
            CLUSTER_LABEL: str(self._place.cluster_id),
            MACHINE_LABEL: str(spec.machine_id),
            POOL_LABEL: spec.pool,
            HOST_LABEL: self._place.host_id,
            CREATED_LABEL: f"{time.time():.3f}",
            GPUS_LABEL: ",".join(gpus),
        }
        return {
            "image": self._options.image,
            "name": container_name(self._place.cluster_id, spec.machine_id),
            "user": self._user or None,
            "labels": labels,
            "stop_timeout": 0,  # see Engine.remove
            "environment": {**self._options.env, BOOT_FILE: f"{_BOOT_FOLDER}/{_BOOT_NAME}"},
            "host_config": self._host_config(engine, spec, gpus),
        }

    def _host_config(self, engine: Engine, spec: MachineSpec, gpus: tuple[str, ...]) -> dict[str, Any]:
        options, memory_bytes = self._options, spec.boot.memory_bytes
        limits: dict[str, Any] = {}
        if memory_bytes:
            # The same for memory and swap together: no swap.
            limits = {"mem_limit": memory_bytes, "memswap_limit": memory_bytes}
        if spec.boot.cpus:
            limits["nano_cpus"] = round(spec.boot.cpus * 1e9)
        if gpus:
            limits["device_requests"] = [DeviceRequest(device_ids=list(gpus), capabilities=[["gpu"]])]
        if options.ulimits:
            limits["ulimits"] = [Ulimit(name=name, soft=each, hard=each) for name, each in options.ulimits.items()]
        made: dict[str, Any] = engine.client.create_host_config(
            # The engine's own removal is what is left when the coordinator is dead; restarts would undo the end.
            auto_remove=True,
            restart_policy={"Name": "no"},
            network_mode=options.network,
            binds=self._binds(),
            shm_size=options.shm_bytes or (memory_bytes or self._host_memory) // 2,
            pids_limit=options.pids_limit,
            cap_drop=["ALL"],
            # label: without it SELinux keeps a container from the host's folders that it is given.
            security_opt=["no-new-privileges", "label=disable"] if self.shares_host else ["no-new-privileges"],
            **limits,
        )
        return made

    def _binds(self) -> list[str]:
        binds = [f"{source}:{target}" for source, target in self._options.volumes.items()]
        if self.shares_host:
            binds += [f"{path}:{path}" for path in (self._place.store_path, self._place.artefact_path)]
        return binds

    def boot_archive(self, spec: MachineSpec, gpus: tuple[str, ...]) -> tuple[str, bytes]:
        """Folder and tar file with the boot configuration, readable by the container's user only."""
        boot = replace(
            spec.boot,
            gpus=tuple(each if each.startswith("GPU-") else str(index) for index, each in enumerate(gpus)),
            host_id=self._place.host_id if self.shares_host else "",
        )
        packed = msgpack.packb(boot.to_dict())
        entry = tarfile.TarInfo(_BOOT_NAME)
        entry.size = len(packed)
        uid, gid = self._numeric_user()
        # A user that is known by name only, in the image: nobody else is in the container before the agent.
        entry.mode = 0o400 if uid is not None else 0o444
        entry.uid, entry.gid = uid or 0, gid or 0
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.addfile(entry, io.BytesIO(packed))
        # Without tarfile's padding to 10 KiB: Podman's reader is done at the first end mark, and its writer then fails
        # with a broken pipe, now and then.
        blocks = 1 + -(-len(packed) // tarfile.BLOCKSIZE) + 2
        return _BOOT_FOLDER, archive.getvalue()[: blocks * tarfile.BLOCKSIZE]

    def _numeric_user(self) -> tuple[int | None, int | None]:
        user, _, group = self._user.partition(":")
        return (int(user), int(group) if group.isdecimal() else int(user)) if user.isdecimal() else (None, None)


def default_user(security_options: list[str]) -> str:
    """This process as the container sees it, so that it may use the folders that are mounted."""
    if any("rootless" in each for each in security_options):
        return "0:0"  # an engine without root: root inside is the engine's user outside
    return f"{os.getuid()}:{os.getgid()}"


def wanted_gpus(spec: MachineSpec) -> int:
    """How many whole GPUs.

    Raises:
        ProviderError: a fraction.
    """
    count, rest = divmod(dict(spec.shape).get(GPU, 0), UNIT)
    if rest:
        raise provider_error("create", spec, "it needs a part of a GPU", advice="ask for whole ones", is_permanent=True)
    return count


def record_of(inspected: Mapping[str, Any], phases: Mapping[str, float]) -> ProviderMachine:
    """What `inspect` or `list` says about a container, as a machine."""
    config = inspected.get("Config") or {}
    labels = config.get("Labels") or inspected.get("Labels") or {}
    state = inspected.get("State") or ""
    status = str(state.get("Status", "") if isinstance(state, Mapping) else state).lower()
    container_id = str(inspected["Id"])
    return ProviderMachine(
        MachineId(labels.get(MACHINE_LABEL, "")),
        container_id,
        _STATES.get(status, MachineState.STOPPED),
        float(labels.get(CREATED_LABEL) or 0.0),
        f"container {container_id[:12]}",
        phases=dict(phases),
    )
