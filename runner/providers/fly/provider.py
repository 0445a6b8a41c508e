"""Machines at Fly (or at anything that speaks its Machines API)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import httpx

from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers.base import (
    Capabilities,
    ExitCallback,
    MachineSpec,
    MachineState,
    ProviderMachine,
    Wanted,
    provider_error,
)
from runner.providers.fly.api import FlyApi
from runner.providers.fly.connection import Connection, shared_limiter
from runner.providers.fly.creating import Creation, candidates
from runner.providers.fly.ends import Ends
from runner.providers.fly.errors import FlyError, Kind
from runner.providers.fly.failures import explain
from runner.providers.fly.lookup import Lookup
from runner.providers.fly.model import Machine
from runner.providers.fly.notes import Notes
from runner.providers.fly.options import FlyOptions
from runner.providers.fly.prepare import PREPARE_S, check_app, check_place, check_regions, check_room, guests_of
from runner.providers.fly.records import DEAD_STATES, GONE_STATES, describe_end, to_record
from runner.providers.fly.suspending import machine_obstacle, nothing_to_suspend, pool_obstacle, suspend_machine
from runner.providers.fly.volumes import VolumePool
from runner.providers.fly.watch import ExitWatch
from runner.providers.registry import Place
from runner.providers.turns import Breakable, Turns

log = logging.getLogger(__name__)


class FlyProvider:
    """Keeps the contract of Provider for one cluster, inside the coordinator's event loop."""

    def __init__(self, options: FlyOptions, place: Place, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`transport`: how requests travel, by default over the network."""
        self._options = options
        self._place = place
        self._connection = Connection(
            options.base_url,
            options.token,
            shared_limiter(options.base_url, options.rates),
            transport=transport,
            trust_env=options.is_real,
        )
        self._api = FlyApi(self._connection, options.app)
        self._lookup = Lookup(self._api, place.cluster_id)
        self._notes = Notes(place.log_dir)
        self._volumes = None if options.volume is None else VolumePool(options.volume)
        self._watch = ExitWatch(self._lookup, poll_s=options.poll_s, lag_s=options.lag_s, report=self._machine_ended)
        self._ids: dict[MachineId, str] = {}  # of the latest machine of that name
        self._ends = Ends(self._lookup, lag_s=options.lag_s)
        self._uncertain: dict[MachineId, float] = {}  # creates without an answer: until when one may still appear
        self._creations: dict[MachineId, Creation] = {}  # under way, at most one of a name
        self._turns = Turns()
        self._creating, self._suspending = Breakable(self._turns), Breakable(self._turns)
        self._exit_callbacks: list[ExitCallback] = []
        self._is_closed = False

    @property
    def name(self) -> str:
        return "fly"

    def capabilities(self) -> Capabilities:
        reason = nothing_to_suspend(self._options)
        return Capabilities(
            gpu_kinds=(),
            gpus_total=0,
            suspend_kind="" if reason else "snapshot",
            suspend_reason=reason,
            regions=self._options.regions,
            is_remote=True,
        )

    def suspend_obstacle(self, wanted: Wanted) -> str:
        return pool_obstacle(wanted, self._options)

    async def prepare(self, wanted: Sequence[Wanted]) -> tuple[str, ...]:
        check_place(self._options, self._place.coordinator_host)
        for each in wanted:
            guests_of(each, self._options)
        # Sooner than a client gives up waiting for its coordinator: it is to hear that Fly does not answer.
        api = self._api.until(asyncio.get_running_loop().time() + PREPARE_S)
        org = await check_app(api, self._options)
        regions = await check_regions(api, self._options)
        return regions + await check_room(api, self._options, wanted, org)

    def on_exit(self, callback: ExitCallback) -> None:
        self._exit_callbacks.append(callback)

    # ---- creating ----
    async def create(self, spec: MachineSpec) -> ProviderMachine:
        name = spec.machine_id
        return await self._creating.take(
            name,
            lambda: self._create(spec),
            lambda: provider_error("create", name, "it was destroyed meanwhile"),
        )

    async def _create(self, spec: MachineSpec) -> ProviderMachine:
        name = spec.machine_id
        if self._is_closed:
            raise provider_error("create", spec, "the provider is closed", advice="start a new cluster")
        existing = await self._find(name) if name in self._ids else None
        if existing is not None:
            return to_record(existing)
        candidates(spec, self._options)
        check_place(self._options, spec.boot.coordinator_address.rpartition(":")[0])
        deadline_s = asyncio.get_running_loop().time() + self._options.boot_deadline_s
        creation = Creation(
            api=self._api.until(deadline_s),
            options=self._options,
            lookup=self._lookup,
            spec=spec,
            host_id=self._place.host_id,
            deadline_s=deadline_s,
            landed=lambda machine: self._landed(name, machine),
            volumes=self._volumes,
        )
        self._creations[name] = creation
        try:
            machine = await creation.run()
        except asyncio.CancelledError:  # by `destroy` or `close`, or because another one was refused for good
            self._note_unanswered(creation)
            if creation.refusal is None:
                raise
            raise await self._undo(spec, creation.refusal) from None
        except (ProviderError, FlyError) as error:
            self._note_unanswered(creation)
            failure = self._explain("create", name, error) if isinstance(error, FlyError) else error
            if failure.is_permanent:
                self._refuse_like(spec, str(failure.args[0]))
            raise await self._undo(spec, failure) from None
        finally:
            del self._creations[name]
        self._ends.shown(machine.id)
        self._notes.add(name, f"started as {machine.id} in {machine.region or 'some region'}")
        self._watch.add(name, machine.id)
        return to_record(machine)

    def _refuse_like(self, refused: MachineSpec, reason: str) -> None:
        """One was refused for good: those like it that wait for their turn, a second for each, need not ask."""
        for name, creation in self._creations.items():
            spec = creation.spec
            is_alike = (spec.pool, spec.shape, spec.size) == (refused.pool, refused.shape, refused.size)
            if spec is refused or not is_alike or creation.is_unanswered or name in self._ids or creation.refusal:
                continue
            saw = f"one like it was refused for good: {reason}"
            creation.refusal = provider_error("create", name, saw, is_permanent=True)
            self._creating.break_off(name)

    def _landed(self, name: MachineId, machine: Machine) -> None:
        if self._ids.get(name) != machine.id:
            self._ids[name] = machine.id
            self._ends.created(machine.id)
            self._notes.add(name, f"is {machine.id} at Fly, {machine.state} in {machine.region or 'some region'}")
        self._notes.absorb(name, machine.events)

    def _note_unanswered(self, creation: Creation) -> None:
        if creation.is_unanswered:
            until_s = asyncio.get_running_loop().time() + self._options.lag_s
            self._uncertain[creation.spec.machine_id] = until_s

    async def _undo(self, spec: MachineSpec, error: ProviderError) -> ProviderError:
        """Destroy what a failed creation left, and give the error what is known about it."""
        name = spec.machine_id
        saw = str(error.args[0])
        if name in self._ids:
            await self._absorb_end(name)
        if name in self._ids or name in self._uncertain:
            try:
                await self._destroy(name)
            except ProviderError as left:
                error.args = (f"{error.args[0]}; what is left of it could not be destroyed yet: {left.args[0]}",)
        error.log_lines = self._notes.last(name)
        self._notes.add(name, f"had no boot: {saw}")  # the error says it by itself
        return error

    async def _absorb_end(self, name: MachineId) -> None:
        try:
            machine = await self._lookup.after_end(self._ids[name])
        except FlyError:
            return
        if machine is not None:
            self._notes.absorb(name, machine.events)

    # ---- life ----
    async def start(self, name: MachineId) -> None:
        self._suspending.break_off(name)  # Fly ends the copy, as if it had never begun
        await self._turns.take(name, lambda: self._start(name))

    async def _start(self, name: MachineId) -> None:
        machine = await self._require("start", name)
        if machine.state == "started":
            return
        is_coming = machine.state in {"starting", "restarting", "replacing", "updating"}
        deadline_s = asyncio.get_running_loop().time() + self._options.boot_deadline_s
        machines = self._api.until(deadline_s).machines
        try:
            if not is_coming:
                await machines.start(machine.id)
            slice_s = self._options.wait_slice_s
            ended = await machines.wait(
                machine.id, "started", deadline_s=deadline_s, slice_s=slice_s, gone_states=DEAD_STATES
            )
        except FlyError as error:
            raise self._explain("start", name, error) from None
        if ended is not None:
            raise provider_error("start", name, describe_end(ended), advice="create a new one")
        self._notes.add(name, f"started again, it was {machine.state}")
        self._watch.add(name, machine.id)

    async def suspend(self, name: MachineId) -> None:
        broken = provider_error("suspend", name, "it was started or ended meanwhile")
        await self._suspending.take(name, lambda: self._suspend(name), lambda: broken)

    async def _suspend(self, name: MachineId) -> None:
        machine = await self._require("suspend", name)
        if machine.state == "suspended":
            return
        obstacle = machine_obstacle(machine)
        if obstacle:
            raise provider_error(
                "suspend", name, obstacle, advice="stop it, or choose a smaller size", is_permanent=True
            )
        try:
            await suspend_machine(self._api, machine, self._options)
        except FlyError as error:
            raise self._explain("suspend", name, error) from None
        self._notes.add(name, "suspended")

    async def stop(self, name: MachineId) -> None:
        self._suspending.break_off(name)
        await self._turns.take(name, lambda: self._stop(name))

    async def _stop(self, name: MachineId) -> None:
        """Its disk is reset by the next start, and `auto_destroy` may end it for good: both are ends of a stop."""
        machine = await self._require("stop", name)
        self._watch.remove(name)
        deadline_s = asyncio.get_running_loop().time() + self._options.destroy_deadline_s
        machines = self._api.until(deadline_s).machines
        try:
            await machines.stop(machine.id, signal="SIGTERM", timeout_s=10)
            await machines.wait(
                machine.id,
                "stopped",
                instance_id=machine.instance_id,
                deadline_s=deadline_s,
                slice_s=5,
                gone_states=GONE_STATES,
            )
        except FlyError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise self._explain("stop", name, error) from None
        self._notes.add(name, "stopped")

    async def destroy(self, name: MachineId) -> None:
        self._creating.break_off(name)
        self._suspending.break_off(name)
        await self._turns.take(name, lambda: self._destroy(name))

    async def _destroy(self, name: MachineId) -> None:
        self._watch.remove(name)
        deadline_s = asyncio.get_running_loop().time() + self._options.destroy_deadline_s
        api = self._api.until(deadline_s)
        try:
            machine_id = self._ids.get(name, "")
            if machine_id:
                await self._end(api, name, machine_id, deadline_s)
            # A create without an answer may still bring one to light.
            while not machine_id or name in self._uncertain:
                found = await self._lookup.named(name)
                await asyncio.gather(*(self._end(api, name, each.id, deadline_s) for each in found))
                if found or asyncio.get_running_loop().time() >= self._uncertain.get(name, 0.0):
                    break
                await asyncio.sleep(1.0)
        except FlyError as error:
            raise self._explain("destroy", name, error) from None
        self._uncertain.pop(name, None)

    async def _end(self, api: FlyApi, name: MachineId, machine_id: str, deadline_s: float) -> None:
        """Returns when it is gone."""
        if self._ends.is_over(machine_id):
            return
        await self._ends.end(api, machine_id, deadline_s)
        self._notes.add(name, f"destroyed ({machine_id})")
        self._notes.forget(name)
        if self._ids.get(name) == machine_id:
            del self._ids[name]

    # ---- looking ----
    async def get(self, name: MachineId) -> ProviderMachine | None:
        try:
            machine = await self._find(name)
        except FlyError as error:
            raise self._explain("get", name, error) from None
        return None if machine is None else to_record(machine)

    async def list(self, cluster_id: ClusterId) -> tuple[ProviderMachine, ...]:
        is_own = cluster_id == self._place.cluster_id
        try:
            found = await (self._lookup.all() if is_own else self._lookup.of_cluster(cluster_id))
        except FlyError as error:
            raise self._explain("list", f"of cluster {cluster_id}", error) from None
        machines = [each for each in found if each.state not in GONE_STATES and not self._ends.is_over(each.id)]
        records = tuple(to_record(each) for each in machines)
        if is_own:
            for record in records:
                self._note_listed(record)
        return records

    async def logs(self, name: MachineId) -> tuple[str, ...]:
        if name in self._ids:
            await self._absorb_end(name)
        return self._notes.last(name)

    async def close(self) -> None:
        self._is_closed = True
        self._turns.cancel()
        await self._turns.all_done()
        await self._watch.close()
        await self._lookup.close()
        await self._connection.close()

    async def _find(self, name: MachineId) -> Machine | None:
        """The machine of that name, unless it is gone."""
        machine_id = self._ids.get(name)
        if machine_id is None:
            found = await self._lookup.named(name)
            live = [each for each in found if not self._ends.is_over(each.id)]
            return live[0] if live else None
        try:
            machine = await self._api.machines.get(machine_id)
        except FlyError as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise
        return None if machine.state in GONE_STATES else machine

    async def _require(self, phase: str, name: MachineId) -> Machine:
        try:
            machine = await self._find(name)
        except FlyError as error:
            raise self._explain(phase, name, error) from None
        if machine is None:
            raise provider_error(phase, name, "no machine has this name", advice="create a new one")
        return machine

    def _note_listed(self, record: ProviderMachine) -> None:
        """A machine of an earlier coordinator: its end is reported too."""
        is_ours_to_watch = record.name not in self._ids and record.name not in self._creating
        if is_ours_to_watch and record.state is not MachineState.STOPPED:
            self._ids[record.name] = record.provider_machine_id
            self._watch.add(record.name, record.provider_machine_id)

    def _machine_ended(self, name: MachineId, machine: Machine | None) -> None:
        if machine is not None:
            self._notes.absorb(name, machine.events)
        reason = describe_end(machine)
        self._notes.add(name, f"ended: {reason}")
        for callback in self._exit_callbacks:
            callback(name, reason)

    def _explain(self, phase: str, name: MachineId | str, error: FlyError) -> ProviderError:
        return explain(phase, name, error, app=self._options.app)
