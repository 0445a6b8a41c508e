"""One cluster's place on an engine: making containers of its machines, looking at them, taking them away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.errors import APIError

from runner.errors import ProviderError
from runner.ids import MachineId
from runner.providers import machine_log
from runner.providers.base import MachineSpec, MachineState, ProviderMachine, SuspendKind, provider_error
from runner.providers.container import recipe
from runner.providers.container.devices import Devices
from runner.providers.container.engine import ENGINE_ERRORS, Engine, in_words, is_gone
from runner.providers.container.images import Images
from runner.providers.container.options import ContainerOptions
from runner.providers.container.output import OutputPump
from runner.providers.container.recipe import Recipe, container_name, record_of
from runner.providers.container.snapshots import Snapshots, open_snapshots
from runner.providers.registry import Place

log = logging.getLogger(__name__)

FREEZE: tuple[SuspendKind, str] = (
    "freeze",
    "the engine pauses containers: they stand still, and their memory stays where it is",
)
_LIVE = frozenset({MachineState.RUNNING, MachineState.SUSPENDED})
_REMOVAL_S = 20.0  # for the engine to finish a removal
_ATTACHED = {"stdout": 1, "stderr": 1, "stream": 1, "logs": 0}
# An image that has no such program; Docker and runc say it differently.
_NO_PROGRAM = ("executable file not found", "no such file or directory", "command not found")


@dataclass(slots=True)
class Booted:
    """A container that runs, and its output. The GPUs of an adopted one are as its label says."""

    record: ProviderMachine
    pump: OutputPump
    gpus: tuple[str, ...]
    is_adopted: bool = False


class Site:
    """An engine that has answered, and all that depends on its answer."""

    def __init__(
        self,
        options: ContainerOptions,
        place: Place,
        engine: Engine,
        about: tuple[Any, Any],
        snapshots: tuple[Snapshots | None, str],
    ) -> None:
        """`about`: what `Engine.version_and_info` said. `snapshots`: what `open_snapshots` said."""
        version, info = about
        self.snapshots, self._no_snapshots = snapshots
        self.engine = engine
        self._options = options
        self._place = place
        shares = engine.is_local if options.share_host is None else options.share_host
        user = options.user or (recipe.default_user(info.get("SecurityOptions") or []) if shares else "")
        self._recipe = Recipe(options, place, shares_host=shares, user=user, host_memory=int(info.get("MemTotal") or 0))
        self.images = Images(engine, options.image, options.pull)
        self.devices = Devices(options.gpus, info=info, version=version, is_local=engine.is_local)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What people should know before the first machine."""
        if self._recipe.shares_host:
            return ()
        return ("machines do not share this host's files: large values and checkpoints travel through the coordinator",)

    @property
    def suspends(self) -> tuple[SuspendKind, str]:
        """In which way machines are suspended here, and why so."""
        if self.snapshots is not None:
            return "snapshot", f"saved by Podman with CRIU {self.snapshots.criu.version}"
        kind, reason = FREEZE
        return kind, f"{reason} ({self._no_snapshots})"

    async def find_saved(self, name: MachineId) -> ProviderMachine | None:
        """A machine that is a file now. Nothing else may be done to it meanwhile.

        Raises:
            ProviderError: the engine does not answer.
        """
        saved = None if self.snapshots is None else self.snapshots.find(name)
        if saved is None or await self.inspect(name, "get") is None:
            return saved
        # A coordinator that was killed has saved it and not ended it: it went on, and must not go back.
        assert self.snapshots is not None
        self.snapshots.discard(name)
        return None

    async def inspect(self, name: MachineId, phase: str) -> dict[str, Any] | None:
        """A machine's container; None when there is none.

        Raises:
            ProviderError: the engine does not answer.
        """
        try:
            return await self.engine.call(self.engine.inspect, self._container(name))
        except ENGINE_ERRORS as error:
            raise provider_error(phase, name, in_words(error)) from None

    async def list(self, label: str) -> list[dict[str, Any]]:
        """All containers with a label, those aside that the engine is removing.

        Raises:
            ProviderError: the engine does not answer.
        """
        try:
            found: list[dict[str, Any]] = await self.engine.call(
                self.engine.client.containers, all=True, filters={"label": label}
            )
        except ENGINE_ERRORS as error:
            raise unreachable(self.engine, error) from None
        return [each for each in found if str(each.get("State", "")).lower() != "removing"]

    async def pause(self, record: ProviderMachine) -> None:
        """Have a container stand still.

        Raises:
            ProviderError: the engine does not answer, or cannot.
        """
        try:
            await self.engine.call(self.engine.pause, record.provider_machine_id)
        except ENGINE_ERRORS as error:
            raise provider_error("suspend", record.name, in_words(error)) from None

    async def unpause(self, record: ProviderMachine) -> None:
        """Let it go on.

        Raises:
            ProviderError: the engine does not answer, or cannot.
        """
        try:
            await self.engine.call(self.engine.unpause, record.provider_machine_id)
        except ENGINE_ERRORS as error:
            raise provider_error("start", record.name, in_words(error)) from None

    async def remove(self, name: MachineId) -> None:
        """Until the engine has no such container.

        Raises:
            ProviderError: the engine does not answer, or does not finish.
        """
        engine, container = self.engine, self._container(name)
        try:
            async with asyncio.timeout(_REMOVAL_S):
                await engine.call(engine.remove, container)
                while await engine.call(engine.inspect, container) is not None:
                    await asyncio.sleep(0.05)
                    await engine.call(engine.remove, container)
        except TimeoutError:
            raise provider_error("destroy", name, f"{container} is still there after {_REMOVAL_S:g} s") from None
        except ENGINE_ERRORS as error:
            raise provider_error("destroy", name, in_words(error)) from None

    # ---- booting ----
    async def boot(self, spec: MachineSpec, gpus: tuple[str, ...], phases: dict[str, float]) -> Booted:
        """Make and start a container, or take over one that runs under this name.

        Raises:
            ProviderError: as `Provider.create`.
        """
        name = spec.machine_id
        try:
            try:
                container_id, stream = await self.engine.call(self._make, spec, gpus)
            except ENGINE_ERRORS as error:
                if not _is_conflict(error):
                    raise
                inspected = await self.inspect(name, "create")
                if inspected is not None and record_of(inspected, {}).state in _LIVE:
                    return await self.adopt(inspected)
                # One that was never started, as a killed coordinator leaves it, or that has ended.
                await self.remove(name)
                container_id, stream = await self.engine.call(self._make, spec, gpus)
            pump = OutputPump(stream, self.log_path(name))
            try:
                record = await self._start(spec, container_id, pump, phases)
            except BaseException:
                pump.close()
                await self.remove_quietly(name)
                raise
        except ENGINE_ERRORS as error:
            raise self._boot_error(spec, error) from None
        return Booted(record, pump, gpus)

    def _make(self, spec: MachineSpec, gpus: tuple[str, ...]) -> tuple[str, Any]:
        """Create a container with its boot configuration and its output attached; blocking. When it fails, none is left."""
        client = self.engine.client
        container_id = str(client.create_container(**self._recipe.arguments(self.engine, spec, gpus))["Id"])
        try:
            client.put_archive(container_id, *self._recipe.boot_archive(spec, gpus))
            return container_id, client.attach_socket(container_id, params=_ATTACHED)
        except BaseException:
            with contextlib.suppress(*ENGINE_ERRORS):
                self.engine.remove(container_id)
            raise

    async def _start(
        self, spec: MachineSpec, container_id: str, pump: OutputPump, phases: dict[str, float]
    ) -> ProviderMachine:
        await self.engine.call(self.engine.client.start, container_id)
        phases["started"] = time.time()
        inspected = await self.engine.call(self.engine.inspect, container_id)
        record = None if inspected is None else record_of(inspected, phases)
        if record is None or record.state is MachineState.STOPPED:
            await last_lines(pump)
            lines = machine_log.read_tail(self.log_path(spec.machine_id))
            raise provider_error("boot", spec, "it ended at once", log_lines=lines)
        return record

    async def adopt(self, inspected: Mapping[str, Any]) -> Booted:
        """Take over a container that is there.

        Raises:
            One of ENGINE_ERRORS.
        """
        record = record_of(inspected, {})
        stream = await self.engine.call(self.engine.client.attach_socket, record.provider_machine_id, params=_ATTACHED)
        labels = (inspected.get("Config") or {}).get("Labels") or {}
        gpus = tuple(each for each in str(labels.get(recipe.GPUS_LABEL) or "").split(",") if each)
        return Booted(record, OutputPump(stream, self.log_path(record.name)), gpus, is_adopted=True)

    def _boot_error(self, spec: MachineSpec, error: BaseException) -> ProviderError:
        words = in_words(error)
        lowered = words.lower()
        advice = ""
        if any(each in lowered for each in _NO_PROGRAM):
            advice = f"image {self._options.image} has no `runner`; see `runner image check {self._options.image}`"
        is_permanent = bool(advice) or (isinstance(error, APIError) and error.status_code in {400, 404})
        is_capacity = "no space left" in lowered or "cannot allocate memory" in lowered
        return provider_error(
            "create", spec, words, advice=advice, is_permanent=is_permanent and not is_capacity, is_capacity=is_capacity
        )

    async def remove_quietly(self, name: MachineId) -> None:
        """As `remove`, where the error that led to it is the one to tell."""
        try:
            await self.remove(name)
        except ProviderError as error:
            log.warning("%s; the sweeper will find it", error)

    def log_path(self, name: MachineId) -> Path:
        """Where a machine's output goes."""
        return machine_log.path_of(self._place.log_dir, name)

    def _container(self, name: MachineId) -> str:
        return container_name(self._place.cluster_id, name)


async def open_site(options: ContainerOptions, place: Place, engine: Engine) -> Site:
    """Ask the engine what it is. It is closed when it does not answer.

    Raises:
        ProviderError: it does not answer.
    """
    try:
        about = await engine.call(engine.version_and_info)
    except ENGINE_ERRORS as error:
        engine.close()
        raise unreachable(engine, error) from None
    os.makedirs(place.log_dir, mode=0o700, exist_ok=True)
    snapshots = await open_snapshots(engine, about, place.log_dir.parent / "snapshots")
    return Site(options, place, engine, about, snapshots)


async def last_lines(pump: OutputPump, within_s: float = 1.0) -> None:
    """Wait for the end of what a container that has ended printed."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await pump.ended.wait()
    pump.close()


def unreachable(engine: Engine, error: BaseException) -> ProviderError:
    """The engine does not answer, or not as it should."""
    return ProviderError(
        f"the container engine at {engine.url} did not answer: {in_words(error)}; is it running, and may this user use it?",
        phase="prepare",
    )


def _is_conflict(error: BaseException) -> bool:
    if not isinstance(error, APIError) or is_gone(error):
        return False
    return error.status_code == 409 or "already in use" in in_words(error)
