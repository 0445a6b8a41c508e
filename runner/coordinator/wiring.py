"""Puts one coordinator together, starts it, and takes it apart again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc.aio

from runner import config as settings
from runner.clock import Clock
from runner.coordinator.admission import JoinKey
from runner.coordinator.bulk import Bulk
from runner.coordinator.client_service import ClientService, ClusterFacts
from runner.coordinator.config import CoordinatorConfig, CoordinatorReady
from runner.coordinator.core_limits import core_config, hooks_s
from runner.coordinator.cost_keeper import CostKeeper
from runner.coordinator.effects import Effects
from runner.coordinator.engine import CoreClock, Engine
from runner.coordinator.event_log import EventLog
from runner.coordinator.fleet import Fleet
from runner.coordinator.fleet_service import FleetService, JoinService
from runner.coordinator.journal import Journal
from runner.coordinator.lanes import Lanes
from runner.coordinator.machine_links import MachineLinks
from runner.coordinator.pool_records import pool_record
from runner.coordinator.recorder import Recorder
from runner.coordinator.relayed_calls import RelayedCalls
from runner.coordinator.reports import Reports
from runner.coordinator.sessions import Sessions
from runner.coordinator.sleepers import Sleepers
from runner.coordinator.state_dir import StateDir
from runner.coordinator.task_index import TaskIndex
from runner.core import commands, events, facts, journal_form
from runner.core.cluster import Cluster
from runner.errors import AddressInUseError, ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers.base import Provider
from runner.rpc.channels import client_port_credentials, fleet_port_credentials, server_options
from runner.rpc.gen import client_pb2_grpc, fleet_pb2_grpc
from runner.rpc.guard import Guard
from runner.rpc.version import host_id

log = logging.getLogger(__name__)

# Time for agents to hear that the cluster ends, before their machines are destroyed.
_FAREWELL_S = 0.2
_SERVER_GRACE_S = 0.5
_STRICT_LOOK_S = 0.02

# Where processes of this host find a server that listens everywhere.
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}

MakeProvider = Callable[[ClusterId, StateDir], Provider]


class Coordinator:
    """One cluster's coordinator inside a running event loop.

    `run` serves until `stop` is called; it may be run once.
    """

    def __init__(
        self,
        config: CoordinatorConfig,
        state: StateDir,
        make_provider: MakeProvider,
        clock: Clock,
        *,
        said: CoordinatorConfig | None = None,
    ) -> None:
        """`said`: the settings as they were given, which are kept; None: `config`, in which nothing is left open."""
        self._config = config
        self._said = said or config
        self._state = state
        self._clock = clock
        self._stopping = asyncio.Event()
        self.stop_reason = ""
        self.failure = ""  # set: it ended because it could not go on
        self._journal = Journal(state.journal, durability=config.durability, reserve_bytes=config.disk_reserve_bytes)
        self._event_log = EventLog(state.events)
        self._had_past = not self._journal.is_empty()
        self.cluster = Cluster(core_config(config))
        self._tasks = TaskIndex(self.cluster)
        self._replay()
        self._event_log.drop_uncommitted(self._journal.turn)
        core_clock = CoreClock(clock, last_now_s=self._journal.last_now_s, last_unix_s=self._journal.last_unix_s)
        self.engine = Engine(self.cluster, self._journal, clock, core_clock, self._die)
        self._links = MachineLinks()
        self._sessions = Sessions(self.engine, self._journal, clock, self._tasks, self._links)
        self._lanes = Lanes(host_id(), self.engine.decide_now)
        self._provider = make_provider(state.cluster_id, state)
        self._fleet = Fleet(
            engine=self.engine,
            provider=self._provider,
            clock=clock,
            config=config,
            cluster_id=state.cluster_id,
            ca_pem=state.authority.ca_pem,
            join_key=JoinKey(state.join_secret),
        )
        self._sleepers = Sleepers(self.engine, self._provider, self._fleet)
        self._recorder = Recorder(self._event_log, clock, self._tasks)
        self._costs = self._make_costs()
        self._fleet.tell = lambda text: self._tell("", text)
        self._fleet.on_boot_failed = lambda boot, why: self._tell(boot.pool, why)
        self._fleet.on_created = lambda boot: self._costs.placed(boot.machine_id, boot.size, boot.region)
        self._bulk = Bulk(
            self.engine,
            self._links,
            host_id=host_id(),
            store_path=str(state.store),
            artefact_path=str(state.artefacts),
            reserve_bytes=config.disk_reserve_bytes,
        )
        self._client_service = ClientService(
            engine=self.engine,
            core_clock=core_clock,
            clock=clock,
            sessions=self._sessions,
            lanes=self._lanes,
            event_log=self._event_log,
            fleet=self._fleet,
            costs=self._costs,
            bulk=self._bulk,
            facts=self._facts(core_clock.now_s()),
            shut_down=self.stop,
            take_numbers=self._journal.take_numbers,
        )
        self._relayed_calls = RelayedCalls(self.engine, self._sessions, self._client_service)

    def _make_costs(self) -> CostKeeper:
        def pool_of(machine_id: MachineId) -> str:
            machine = self.cluster.machine(machine_id)
            return "" if machine is None else machine.pool

        return CostKeeper(
            config=self._config,
            state_dir=self._state.path,
            prices_file=settings.load().prices_file,
            clock=self._clock,
            pool_of=pool_of,
            on_budget=lambda is_spent: self.engine.post(events.BudgetChanged(is_spent)),
            tell=lambda text: self._tell("", text),
        )

    def _tell(self, pool: str, text: str) -> None:
        """For people, in the log of events; it is on disk at the end of the next turn."""
        self._recorder.pool_trouble(commands.NotePool(pool, text))

    def _facts(self, started_s: float) -> ClusterFacts:
        return ClusterFacts(
            cluster_id=self._state.cluster_id,
            embedded=self._config.embedded,
            state_dir=str(self._state.path),
            store_path=str(self._state.store),
            client_lost_after_s=self._config.client_lost_after_s,
            started_s=started_s,
        )

    @property
    def is_fleet_gone(self) -> bool:
        """Whether every machine has been seen to its end."""
        return self._fleet.is_gone

    def stop(self, reason: str) -> None:
        """Have `run` take everything down. Idempotent; callable from signal handlers of the loop."""
        if not self._stopping.is_set():
            self.stop_reason = reason
            self._stopping.set()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[CoordinatorReady]:
        """Serve while the block runs; then take everything down.

        Raises:
            AddressInUseError: a port is taken.
        """
        servers: list[Any] = []
        fleet_tasks = asyncio.gather(self._fleet.run(), self._costs.run())
        try:
            ready = await self._start(servers)
            yield ready
        finally:
            await self._take_down(servers, fleet_tasks)

    async def wait_stopped(self) -> None:
        """Return when `stop` was called or the engine could not go on."""
        await self._stopping.wait()

    async def _start(self, servers: list[Any]) -> CoordinatorReady:
        state, config = self._state, self._config
        hosts = [config.host, *([config.advertise] if config.advertise else [])]
        client_server = grpc.aio.server(options=server_options(), interceptors=[Guard(state.token)])
        fleet_server = grpc.aio.server(options=server_options(), interceptors=[Guard(None)])
        servers.extend([client_server, fleet_server])
        port = _bind(client_server, config.host, config.port, client_port_credentials(state.authority, hosts))
        fleet_port = _bind(fleet_server, config.host, config.fleet_port, fleet_port_credentials(state.authority, hosts))
        reachable = config.advertise or _WILDCARDS.get(config.host, config.host)
        self._fleet.address = _join_address(reachable, port)
        self._fleet.fleet_address = _join_address(reachable, fleet_port)
        self._add_services(client_server, fleet_server)
        effects = Effects(
            self._links,
            self._sessions,
            self._lanes,
            self._recorder,
            self._event_log,
            self._fleet,
            self._sleepers,
            self._costs,
            self._bulk,
            host_id=host_id(),
            store_path=str(state.store),
            artefact_path=str(state.artefacts),
            suspend_hooks_s=hooks_s(config),
        )
        self.engine.start(effects, watch_stalls=core_config(config).use_leases)
        if self._had_past:
            self._sleepers.take_up()
            self.engine.post(events.CoordinatorRestarted())
        await self._fleet.prepare(config.pools)
        if not config.embedded:
            await self._fleet.sweep()
        records = tuple(map(pool_record, config.pools))
        start = {pool.name: pool.first for pool in config.pools}
        self._costs.check()  # what was spent before counts from the first machine on
        self.engine.post(events.PoolsConfigured(records, start, self._provider.name, self._fleet.warnings))
        self._lanes.start()
        await client_server.start()
        await fleet_server.start()
        if config.strict:
            await self._all_there()
        return self._publish(port)

    async def _all_there(self) -> None:
        """Wait until as many machines have registered as a start asks for.

        Raises:
            ProviderError: there will be fewer.
        """
        await self.engine.committed()
        first = {
            # Some may have been removed since the cluster was made.
            view.record.name: min(pool.first, view.record.max)
            for pool in self._config.pools
            for view in self.cluster.pools()
            if view.record.name == pool.name
        }
        deadline_s, known = 0.0, -1
        while True:
            there = sum(view.ready for view in self.cluster.pools())
            if there != known:  # each has the time of one boot: at some providers they come one after the other
                known, deadline_s = there, self._clock.monotonic_s() + self._config.boot_deadline_s
            short = [view for view in self.cluster.pools() if view.ready < first.get(view.record.name, 0)]
            if not short:
                return
            is_late = self._clock.monotonic_s() > deadline_s
            for view in short:
                wanted = first[view.record.name]
                if is_late or view.is_hopeless or (view.limit < wanted and not view.coming):
                    why = view.problem or f"the others did not register within {self._config.boot_deadline_s:g} s"
                    raise ProviderError(
                        f"boot of pool {view.record.name} failed: {wanted} machines were asked for, and with strict=True "
                        f"all of them are needed; {view.ready} can be had: {why}"
                    )
            await asyncio.sleep(_STRICT_LOOK_S)

    def _publish(self, port: int) -> CoordinatorReady:
        """From now on the cluster can be found, and taken up again at this port."""
        state, config = self._state, self._config
        if not config.embedded:
            state.keep_settings(replace(self._said, port=port).kept())
        state.publish(self._fleet.address, embedded=config.embedded)
        return CoordinatorReady(
            address=self._fleet.address,
            cluster_id=state.cluster_id,
            ca_pem=state.authority.ca_pem,
            token=state.token,
            state_dir=str(state.path),
            pid=os.getpid(),
        )

    def _add_services(self, client_server: Any, fleet_server: Any) -> None:
        state = self._state
        reports = Reports(
            engine=self.engine,
            links=self._links,
            sessions=self._sessions,
            recorder=self._recorder,
            fleet=self._fleet,
            bulk=self._bulk,
            welcome=self._client_service.welcome,
            use_leases=core_config(self._config).use_leases,
        )
        join = JoinService(
            self.engine,
            self._fleet,
            self._links,
            state.authority,
            self._config,
            state.cluster_id,
            store_path=str(state.store),
            artefact_path=str(state.artefacts),
            suspend_hooks_s=hooks_s(self._config),
        )
        client_pb2_grpc.add_ClientServicer_to_server(self._client_service, client_server)
        fleet_pb2_grpc.add_JoinServicer_to_server(join, client_server)
        fleet_service = FleetService(self.engine, self._links, reports, self._bulk, self._lanes)
        fleet_pb2_grpc.add_FleetServicer_to_server(fleet_service, fleet_server)

    async def _take_down(self, servers: list[Any], fleet_tasks: asyncio.Future[tuple[None, None]]) -> None:
        """Machines first, so that nothing runs on unwatched; then the streams; then the files."""
        log.info("stopping: %s", self.stop_reason or "end of the block")
        is_standing = not self._config.embedded
        if is_standing:
            # The cluster may be taken up again: what its end does to machines is no fault of the work on them.
            self.engine.stop()
        if self._links.all():
            self._links.exit_all(self.stop_reason or "the cluster ends")
            await asyncio.sleep(_FAREWELL_S)
        await self._sleepers.close()
        await self._fleet.close()
        self._costs.close(are_machines_gone=self._fleet.is_gone)
        self._client_service.close()
        self._relayed_calls.close()
        self._bulk.close()
        self._sessions.close()
        self._links.close()
        self._lanes.flush()
        self._lanes.close()
        for server in servers:
            await server.stop(_SERVER_GRACE_S)
        await asyncio.wait([fleet_tasks])
        self.engine.stop()
        has_runs = bool(self.cluster.tasks(runs_only=True, limit=1)[0])
        self._event_log.close()
        self._journal.close()
        keep = is_standing or has_runs or bool(self.failure)
        # Large values are volatile: an orderly end frees their memory, unless accepted work may need them at the next
        # start; a crash leaves them for it.
        is_owing = bool(self.failure) or self.cluster.unfinished_tasks() > 0
        comes_back = is_standing and not self._config.ends_alone
        self._state.close(keep=keep, keep_store=comes_back and is_owing)

    def _replay(self) -> None:
        """Rebuild the core's state."""
        apply = self.cluster.apply
        for turn in self._journal.replay():
            for encoded in turn:
                fact = journal_form.decode(encoded)
                apply(fact)
                if isinstance(fact, facts.TaskAdded):
                    self._tasks.add(fact.task)
        self._tasks.prune()

    def _die(self, why: str) -> None:
        self.failure = why
        self.stop(f"internal failure: {why}")


def _bind(server: Any, host: str, port: int, credentials: grpc.ServerCredentials) -> int:
    try:
        bound: int = server.add_secure_port(_join_address(host, port), credentials)
    except RuntimeError:
        bound = 0
    if not bound:
        raise AddressInUseError(
            f"port {port} on {host} is taken by another process, or {host} is no address of this host; "
            f"choose another port, or 0 for any free one"
        )
    return bound


def _join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
