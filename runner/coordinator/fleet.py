"""The coordinator's side of the provider: creating, destroying, admitting machines, and what their boots took."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any

from runner.clock import Clock
from runner.coordinator.admission import Boot, JoinKey, admit
from runner.coordinator.boot_story import boot_story, error_story, since_requested
from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.creating import boot_config, create_or_adopt
from runner.coordinator.engine import Engine
from runner.coordinator.pool_records import check_idle, wanted_of
from runner.core import events
from runner.core.values import Shape
from runner.core.views import MachineView
from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.pools import Pool
from runner.providers.base import MachineSpec, MachineState, Provider, Wanted

log = logging.getLogger(__name__)

# Often after a start, when what was on its way to an earlier coordinator may turn up; then now and then.
_SWEEP_FIRST_S = 4.0
_SWEEP_EVERY_S = 60.0
# A clock of a machine that is less wrong than this is taken at its word.
_CLOCK_TOLERANCE_S = 2.0
_DESTROY_FAILURES_TOLD = 4
_DESTROY_RETRY_S = 1.0
_DESTROY_RETRY_S_MAX = 60.0
# To ask for what a machine wrote before it failed.
_STORY_S_MAX = 5.0


class Fleet:
    """Calls the provider in tasks of its own, and reports every answer to the engine as an event."""

    def __init__(
        self,
        *,
        engine: Engine,
        provider: Provider,
        clock: Clock,
        config: CoordinatorConfig,
        cluster_id: ClusterId,
        ca_pem: bytes,
        join_key: JoinKey,
    ) -> None:
        self._engine = engine
        self._provider = provider
        self._clock = clock
        self._config = config
        self._cluster_id = cluster_id
        self._ca_pem = ca_pem
        self._join_key = join_key
        self._boots: dict[MachineId, Boot] = {}
        self._leaving: set[MachineId] = set()  # being destroyed; orphans and those of an earlier coordinator too
        self._group: asyncio.TaskGroup | None = None
        self._closing = asyncio.Event()
        self._sizes = {pool.name: pool.size for pool in config.pools}
        self.address = ""  # where machines find the Join service; known once the port is bound
        self.fleet_address = ""
        self.on_created: Callable[[Boot], None] = lambda _: None  # before anybody else hears of it
        self.is_gone = False  # `close` has seen every machine to its end
        self.tell: Callable[[str], None] = lambda _: None  # people, of what concerns the whole fleet
        self.on_boot_failed: Callable[[Boot, str], None] = lambda _, __: None  # and why, where nobody else has said it
        self.machine_config: Mapping[str, str] = {}  # for after_resume hooks; may hold secrets
        # Whether the end of a machine, which the provider has told, is what was asked for.
        self.explains_exit: Callable[[MachineId, str], bool] = lambda _, __: False
        self.warnings: tuple[str, ...] = ()  # of the provider, about what was asked for
        provider.on_exit(self._machine_exited)

    @property
    def provider_name(self) -> str:
        return self._provider.name

    async def run(self) -> None:
        """Own the tasks that call the provider, until `close`."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            if self._provider.capabilities().is_remote:
                group.create_task(self._sweep_often())
            try:
                await self._closing.wait()
            finally:
                self._group = None

    async def close(self) -> None:
        """Destroy every machine; returns when nothing of them is left."""
        self._closing.set()
        for boot in self._boots.values():
            if boot.overdue is not None:
                boot.overdue.cancel()
        names = [*self._boots, *(self._leaving - self._boots.keys())]
        ends = await asyncio.gather(*(self._provider.destroy(name) for name in names), return_exceptions=True)
        for name, end in zip(names, ends, strict=True):
            if isinstance(end, BaseException):
                log.error("machine %s could not be destroyed: %s", name, end)
        self.is_gone = not any(isinstance(end, BaseException) for end in ends)
        await self._provider.close()

    # ---- the core's commands ----
    def create(self, machine_id: MachineId, shape: Shape, pool: str) -> None:
        """The row is journalled: have the provider create it."""
        if machine_id not in self._boots:
            boot = Boot(machine_id, shape, pool, self._token(machine_id), {"requested": self._clock.unix_s()})
            self._boots[machine_id] = boot
            self._spawn(self._create(boot))

    def take_up(self, view: MachineView) -> None:
        """This machine of an earlier coordinator sleeps, and is to be kept."""
        boot = Boot(view.machine_id, view.total, view.pool, self._token(view.machine_id), dict(view.phases))
        boot.host_id, boot.generation = view.host_id, view.generation
        self._boots.setdefault(view.machine_id, boot)

    def boot_anew(self, machine_id: MachineId) -> Boot | None:
        """It is stopped, and boots once more: its phases are counted from now. None: it is not wanted any more."""
        boot = self._boots.get(machine_id)
        if boot is not None:
            boot.phases = {"requested": self._clock.unix_s()}
            boot.generation, boot.reply, boot.is_story_told = 0, None, False
        return boot

    def create_anew(self, boot: Boot) -> None:
        """Nothing is left of it: have the provider create it by the same name, with the same boot configuration."""
        self._spawn(self._create(boot))

    def await_agent(self, boot: Boot) -> None:
        """It exists: its agent has the time of one boot to register."""
        if boot.overdue is not None:
            boot.overdue.cancel()
        boot.overdue = asyncio.get_running_loop().call_later(self._config.boot_deadline_s, self._overdue, boot)

    def _token(self, machine_id: MachineId) -> str:
        return self._join_key.token_for(machine_id)

    def destroy(self, machine_id: MachineId, reason: str) -> None:
        """Have the provider end it."""
        log.info("destroying machine %s: %s", machine_id, reason)
        boot = self._boots.get(machine_id)
        if boot is not None:
            boot.join_token = ""
        self._spawn(self._tell_and_destroy(machine_id, reason))

    def forget(self, machine_id: MachineId) -> None:
        """The machine is gone for good."""
        boot = self._boots.pop(machine_id, None)
        if boot is not None and boot.overdue is not None:
            boot.overdue.cancel()

    def suspend_obstacle(self, view: MachineView) -> str:
        """Why a machine like this one can never be suspended; "" when it can."""
        size = self._sizes.get(view.pool, "")
        return self._provider.suspend_obstacle(Wanted(view.pool, view.total, size, 1, 1))

    async def prepare(self, pools: Sequence[Pool]) -> None:
        """Have the provider refuse what can never work, before anything is booted.

        Raises:
            ProviderError: it does.
        """
        frozen = check_idle(self._provider, pools)
        self.warnings = (*await self._provider.prepare([wanted_of(pool) for pool in pools]), *frozen)
        for warning in self.warnings:
            log.warning("%s", warning)

    async def sweep(self) -> None:
        """Destroy what carries this cluster's tag but has no row that could still want it."""
        for machine in await self._provider.list(self._cluster_id):
            if machine.name in self._boots or machine.state is MachineState.DESTROYED:
                continue
            if machine.name not in self._leaving and self._group is not None:  # else the next look finds it again
                log.warning("machine %s (%s) is an orphan; destroying it", machine.name, machine.detail)
                self._leaving.add(machine.name)
                self._spawn(self._destroy(machine.name))

    async def _sweep_often(self) -> None:
        """Machines of a create whose caller is dead, or was told that it failed, may turn up late."""
        pause_s, is_told = _SWEEP_FIRST_S, False
        while not self._closing.is_set():
            try:
                async with asyncio.timeout(pause_s):
                    await self._closing.wait()
            except TimeoutError:
                pause_s = min(2 * pause_s, _SWEEP_EVERY_S)
                try:
                    await self.sweep()
                    is_told = False
                except Exception as error:
                    log.warning("looking for orphans failed, trying again in %.0f s: %s", pause_s, error)
                    if not is_told:
                        self.tell(f"the provider does not say which machines there are; asked again: {error}")
                    is_told = True

    # ---- admitting machines ----
    def admit(self, machine_id: MachineId, join_token: str, key_pem: bytes) -> Boot:
        """Check a join token and bind it to the agent's key; see `admission.admit`."""
        boot, machine = self._boots.get(machine_id), self._engine.cluster.machine(machine_id)
        return admit(machine_id, boot, "" if machine is None else machine.state, join_token, key_pem)

    def boot(self, machine_id: MachineId) -> Boot | None:
        """What is known about a machine's boot; None once it is gone."""
        return self._boots.get(machine_id)

    def note_phase(self, machine_id: MachineId, name: str, time_s: float) -> None:
        """Record when (unix seconds) a boot phase was reached; the first word counts."""
        boot = self._boots.get(machine_id)
        if boot is not None:
            boot.phases.setdefault(name, time_s)

    def set_clock(self, machine_id: MachineId, machine_unix_s: float) -> None:
        """A machine says what its wall clock shows now (0: it does not say)."""
        boot = self._boots.get(machine_id)
        if boot is None or not machine_unix_s:
            return
        ahead_s = machine_unix_s - self._clock.unix_s()
        if abs(ahead_s) < _CLOCK_TOLERANCE_S:
            ahead_s = 0.0
        elif ahead_s != boot.clock_ahead_s:
            log.warning("the clock of machine %s is %+.1f s off; what it reports is set right", machine_id, ahead_s)
        boot.clock_ahead_s = ahead_s

    def note_machine_phase(self, machine_id: MachineId, name: str, time_s: float) -> None:
        """As `note_phase`, by the machine's own clock."""
        boot = self._boots.get(machine_id)
        if boot is not None:
            self.note_phase(machine_id, name, time_s - boot.clock_ahead_s)

    def phases(self, machine_id: MachineId) -> dict[str, float]:
        """Boot phases in seconds since the machine was requested."""
        boot = self._boots.get(machine_id)
        return {} if boot is None else since_requested(boot.phases)

    def machines_on(self, host_id: str) -> Iterator[tuple[MachineId, int]]:
        """The registered machines of one host, with their generations."""
        for boot in self._boots.values():
            if boot.host_id == host_id and boot.generation:
                yield boot.machine_id, boot.generation

    # ---- talking to the provider ----
    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        if self._group is None:
            work.close()  # the fleet is closing: `close` destroys everything
        else:
            self._group.create_task(work)

    async def _create(self, boot: Boot) -> None:
        machine_id = boot.machine_id
        size = self._sizes.get(boot.pool, "")
        config = boot_config(
            self._config,
            boot.shape,
            coordinator_address=self.address,
            ca_pem=self._ca_pem,
            join_token=boot.join_token,
            machine_id=machine_id,
            cluster_id=self._cluster_id,
            requested_unix_s=boot.phases["requested"],
        )
        spec = MachineSpec(self._cluster_id, machine_id, boot.shape, config, boot.pool, size)
        try:
            machine = await create_or_adopt(self._provider, spec)
        except ProviderError as error:
            boot.is_story_told = True
            story = error_story(error)
            self._engine.post(events.MachineBootFailed(machine_id, story, error.is_permanent, error.is_capacity))
        except Exception as error:
            log.exception("creating machine %s failed", machine_id)
            self._engine.post(events.MachineBootFailed(machine_id, f"create failed: {type(error).__name__}: {error}"))
        else:
            for name, time_s in {"created": self._clock.unix_s(), **machine.phases}.items():
                self.note_phase(machine_id, name, time_s)
            boot.size, boot.region = machine.size, machine.region
            # Counted from here: before, it may have waited its turn at the provider, who has a deadline for that.
            if machine_id in self._boots:
                self.await_agent(boot)
            self.on_created(boot)
            self._engine.post(events.MachineCreated(machine_id, machine.provider_machine_id))

    def _overdue(self, boot: Boot) -> None:
        if not boot.generation:
            self._spawn(self._fail_overdue(boot))

    async def _fail_overdue(self, boot: Boot) -> None:
        saw = f"its agent did not register within {self._config.boot_deadline_s:g} s"
        reason = await self._story(boot, saw)
        if not boot.generation:
            self._engine.post(events.MachineBootFailed(boot.machine_id, reason))

    async def _tell_and_destroy(self, machine_id: MachineId, reason: str) -> None:
        """What a machine that never came up has written is read before it is gone."""
        boot = self._boots.get(machine_id)
        if boot is not None and not boot.is_story_told:
            machine = self._engine.cluster.machine(machine_id)
            if machine is not None and machine.state == "boot_failed":
                self.on_boot_failed(boot, f"machine {machine_id}: {await self._story(boot, reason)}")
        await self._destroy(machine_id)

    async def _story(self, boot: Boot, saw: str) -> str:
        boot.is_story_told = True
        event, lines = "", tuple[str, ...]()
        try:
            async with asyncio.timeout(_STORY_S_MAX):
                lines = await self._provider.logs(boot.machine_id)
                machine = await self._provider.get(boot.machine_id)
                event = "" if machine is None else machine.detail
        except Exception as error:  # the machine's end must be told in any case
            log.warning("what machine %s wrote cannot be had: %s", boot.machine_id, str(error) or "no answer")
        return boot_story(since_requested(boot.phases), saw, event, lines)

    async def _destroy(self, machine_id: MachineId) -> None:
        pause_s, failures = _DESTROY_RETRY_S, 0
        self._leaving.add(machine_id)
        while not self._closing.is_set():
            try:
                await self._provider.destroy(machine_id)
            except Exception as error:
                log.warning("destroying machine %s failed, trying again in %.0f s: %s", machine_id, pause_s, error)
                failures += 1
                if failures == _DESTROY_FAILURES_TOLD:
                    self.tell(f"machine {machine_id} cannot be destroyed and may go on costing; tried again: {error}")
            else:
                self._leaving.discard(machine_id)
                self._engine.post(events.MachineDestroyed(machine_id))
                return
            try:
                async with asyncio.timeout(pause_s):
                    await self._closing.wait()
            except TimeoutError:
                pause_s = min(2 * pause_s, _DESTROY_RETRY_S_MAX)

    def _machine_exited(self, machine_id: MachineId, reason: str) -> None:
        if self.explains_exit(machine_id, reason):
            return
        boot = self._boots.get(machine_id)
        if boot is None or boot.generation:
            self._engine.post(events.MachineExited(machine_id, reason))
        else:
            self._spawn(self._boot_exited(boot, reason))

    async def _boot_exited(self, boot: Boot, reason: str) -> None:
        self._engine.post(events.MachineExited(boot.machine_id, await self._story(boot, reason)))
