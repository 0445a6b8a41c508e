"""Booting one machine: sizes and regions in turn, lost answers, names that are taken, until it has started."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgpack

from runner.core.values import GPU
from runner.errors import ProviderError
from runner.providers.base import MachineSpec, provider_error
from runner.providers.fly.api import FlyApi
from runner.providers.fly.errors import AMBIGUOUS, FlyError, Kind
from runner.providers.fly.failures import explain
from runner.providers.fly.guest import SIZES, Guest, choose
from runner.providers.fly.limits import pause_before_retry
from runner.providers.fly.lookup import Lookup
from runner.providers.fly.model import Config, Machine, Volume
from runner.providers.fly.options import GPUS_ENDED, FlyOptions
from runner.providers.fly.records import (
    CLUSTER_TAG,
    DEAD_STATES,
    GONE_STATES,
    HOST_TAG,
    MACHINE_TAG,
    POOL_TAG,
    describe_end,
    machine_name,
)
from runner.providers.fly.volumes import VolumePool

_SECRET_CHARS_MIN = 8
_STOP_S = 10  # between SIGTERM and SIGKILL
_COMING_STATES = frozenset({"created", "creating", "starting"})


@dataclass(slots=True)
class Creation:
    """One boot. `deadline_s` is on the loop's clock; `landed` learns of every machine that comes to be, even after a cancel."""

    api: FlyApi
    options: FlyOptions
    lookup: Lookup
    spec: MachineSpec
    host_id: str
    deadline_s: float
    landed: Callable[[Machine], None]
    volumes: VolumePool | None = None
    is_unanswered: bool = False  # a create was sent and nobody knows what became of it
    refusal: ProviderError | None = None  # why it is given up from outside, before it has asked

    async def run(self) -> Machine:
        """The machine, started, or one of that name that was there.

        Raises:
            ProviderError: there is none; what may be left of it is in `landed` and for the caller to destroy.
        """
        guests = candidates(self.spec, self.options)
        full: FlyError | None = None
        for guest in guests:
            for region in self.options.regions or ("",):
                try:
                    machine = await self._create_at(guest, region)
                except FlyError as error:
                    if error.kind is not Kind.CAPACITY:
                        raise self._explain(error, guest, region) from None
                    full = error
                else:
                    return await self._await_start(machine)
        assert full is not None  # there is at least one guest and one region
        raise self._explain(full, guests[-1], ", ".join(self.options.regions))

    # ---- one size in one region ----
    async def _create_at(self, guest: Guest, region: str) -> Machine:
        if self.volumes is None:
            return await self._create_or_adopt(self._config(guest, None), region)
        hosts_full: set[str] = set()
        while True:
            volume = await self.volumes.take(self.api, region, guest, hosts_full)
            try:
                return await self._create_or_adopt(self._config(guest, volume), volume.region)
            except FlyError as error:
                # Only the host of this volume is known to be full; the next volume is on another one.
                if error.kind is not Kind.CAPACITY or len(hosts_full) >= 2:
                    raise
                hosts_full.add(volume.id)
            finally:
                self.volumes.give_back(volume)

    async def _create_or_adopt(self, config: Config, region: str) -> Machine:
        """The name is the idempotency key: whatever became of a lost request, one machine has it in the end."""

        def sent() -> None:
            self.is_unanswered = True

        def landed(machine: Machine) -> None:
            self.is_unanswered = False
            self.landed(machine)

        name = machine_name(self.spec.cluster_id, self.spec.machine_id)
        # Whose values a refusal may repeat; short ones are no secrets, and would black out half the text.
        secrets = tuple(text for text in map(str, config.child("env").values()) if len(text) >= _SECRET_CHARS_MIN)
        tries = 0
        while True:
            doubted = self.is_unanswered
            try:
                return await self.api.machines.create(
                    config, name=name, region=region, secrets=secrets, sent=sent, landed=landed
                )
            except FlyError as error:
                seen = error
                is_doubtful = error.kind in AMBIGUOUS and self.is_unanswered
                # A later refusal, as for want of the room that the first one took, says nothing of an earlier one.
                self.is_unanswered = doubted or is_doubtful or error.kind is Kind.ALREADY_EXISTS
            if seen.kind is Kind.ALREADY_EXISTS:
                found = await self._find(seen.machine_id)
            elif seen.kind in AMBIGUOUS and seen.kind is not Kind.DEADLINE:
                found = await self._find("")
            else:
                raise seen
            if found is not None:
                landed(found)
                return found
            await self._pause(tries, seen)
            tries += 1

    async def _find(self, machine_id: str) -> Machine | None:
        """The machine that has our name, by its id where that is known; None while there is none that could be used."""
        if not machine_id:
            found = [each for each in await self.lookup.named(self.spec.machine_id) if each.state != "destroying"]
            return found[0] if found else None
        try:
            machine = await self.api.machines.get(machine_id)
        except FlyError as error:
            if error.kind is Kind.NOT_FOUND:  # not visible yet, or going away
                return None
            raise
        if machine.state in GONE_STATES or machine.state == "destroying":
            return None
        if machine.config.metadata.get(CLUSTER_TAG) != self.spec.cluster_id:
            self.is_unanswered = False
            raise provider_error(
                "create",
                self.spec,
                f"Fly machine {machine_id} in app {self.options.app!r} has its name and is not this cluster's",
                advice="destroy it, or use another app",
                is_permanent=True,
            )
        return machine

    # ---- until it runs ----
    async def _await_start(self, machine: Machine) -> Machine:
        if machine.state not in _COMING_STATES:
            return machine
        loop = asyncio.get_running_loop()
        visible_by_s = loop.time() + self.options.lag_s
        while True:
            try:
                ended = await self.api.machines.wait(
                    machine.id,
                    "started",
                    deadline_s=self.deadline_s,
                    slice_s=self.options.wait_slice_s,
                    gone_states=DEAD_STATES,
                )
            except FlyError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise await self._boot_failed(machine, error) from None
                if loop.time() < min(visible_by_s, self.deadline_s):
                    await asyncio.sleep(0.5)  # it was created a moment ago: the API lags
                    continue
                ended = await self.lookup.after_end(machine.id)
                raise self._ended(ended) from None
            if ended is not None:
                raise self._ended(ended)
            return Machine({**machine.raw, "state": "started"})

    def _ended(self, machine: Machine | None) -> ProviderError:
        return provider_error("boot", self.spec, describe_end(machine))

    async def _boot_failed(self, machine: Machine, error: FlyError) -> ProviderError:
        try:
            machine = await self.api.until(asyncio.get_running_loop().time() + 5.0).machines.get(machine.id)
        except FlyError:
            pass  # what the creation said is all that is known
        regions = ", ".join(self.options.regions)
        reason = FlyError(error.kind, f"{error.text}; {describe_end(machine)}", request_id=error.request_id)
        return explain("boot", self.spec, reason, app=self.options.app, image=self.options.image, regions=regions)

    async def _pause(self, tries: int, error: FlyError) -> None:
        now_s = asyncio.get_running_loop().time()
        pause_s = pause_before_retry(
            tries, now_s=now_s, deadline_s=self.deadline_s, retry_after_s=error.retry_after_s, random=random.random()
        )
        if pause_s is None:
            raise error
        await asyncio.sleep(pause_s)

    def _explain(self, error: FlyError, guest: Guest, region: str) -> ProviderError:
        return explain(
            "create",
            self.spec,
            error,
            app=self.options.app,
            image=self.options.image,
            regions=region,
            size=guest.size,
        )

    def _config(self, guest: Guest, volume: Volume | None) -> Config:
        return machine_config(self.spec, self.options, guest, host_id=self.host_id, volume=volume)


def candidates(spec: MachineSpec, options: FlyOptions) -> list[Guest]:
    """The sizes to try, at least one.

    Raises:
        ProviderError: a permanent one: no size can hold it, or it needs a GPU.
    """
    amounts = dict(spec.shape)
    if amounts.get(GPU):
        raise provider_error("create", spec, "it needs a GPU", advice=GPUS_ENDED, is_permanent=True)
    sizes = options.sizes
    if spec.size:
        if spec.size not in SIZES:
            known = f"known are: {', '.join(SIZES)}"
            raise provider_error("create", spec, f"Fly has no size {spec.size!r}", advice=known, is_permanent=True)
        sizes = (spec.size, *(size for size in options.sizes if size != spec.size))
    guests = choose(spec.shape, sizes, options.cpu_kind)
    if not guests:
        seen = f"it needs {spec.boot.cpus:g} CPUs and {spec.boot.memory_bytes >> 20} MiB, which none of the sizes holds"
        advice = (
            f"allowed are {', '.join(sizes) or options.cpu_kind + ' sizes'}; ask for less or name larger sizes=[...]"
        )
        raise provider_error("create", spec, seen, advice=advice, is_permanent=True)
    return guests


def machine_config(
    spec: MachineSpec, options: FlyOptions, guest: Guest, *, host_id: str, volume: Volume | None
) -> Config:
    """What the API is to boot. The entry point of the image reads RUNNER_BOOT; when it exits, the machine is destroyed."""
    # It has no pipe to its coordinator and no folder with it in common, and its GPUs and log are its own.
    boot = replace(spec.boot, embedded=False, host_id="", log_path="", gpus=())
    packed = base64.b64encode(msgpack.packb(boot.to_dict())).decode()
    tags = {CLUSTER_TAG: spec.cluster_id, MACHINE_TAG: spec.machine_id, POOL_TAG: spec.pool, HOST_TAG: host_id}
    raw = {
        "image": options.image,
        "env": {**options.env, "RUNNER_BOOT": packed},
        "guest": guest.to_json(),
        "auto_destroy": True,
        "restart": {"policy": "no"},
        "stop_config": {"signal": "SIGTERM", "timeout": f"{_STOP_S}s"},
        "metadata": {key: str(value) for key, value in tags.items() if value},
    }
    if volume is not None and options.volume is not None:
        raw["mounts"] = [{"volume": volume.id, "path": options.volume.path}]
    return Config(raw)
