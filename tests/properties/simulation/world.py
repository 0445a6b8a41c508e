"""One simulated history: a workload, a plan of faults, then quiet until everything has settled; then the invariants."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from runner.coordinator.event_log import Selector
from runner.core.cluster import Cluster
from runner.core.values import FailureKind
from runner.ids import MachineId, ObjectId, TaskId
from runner.providers.base import BootConfig
from runner.rpc.gen import client_pb2, types_pb2
from runner.testing import FakeClock, FakeProvider, Fault, FaultPlan, ProviderFaults
from tests.properties.simulation.agent import SimAgent
from tests.properties.simulation.client import SimClient, Submitted
from tests.properties.simulation.coordinator import SimCoordinator
from tests.properties.simulation.ledger import Ledger
from tests.properties.simulation.network import Network

FAULTY_S = 12.0  # the plan strikes within this time
SETTLE_S = 600.0  # everything must be over this long after the last fault
TASKS = 25  # of each client
MACHINES = 4
CLIENTS = 2
# Retries have no limit, so no fault of a machine or an executor may reach the user; a task that kills executors may.
_EXPECTED_FAILURES = frozenset(
    {FailureKind.USER, FailureKind.CANCELLED, FailureKind.KILLED, FailureKind.WORKER_CRASHED}
)


@dataclass(frozen=True, slots=True)
class Rates:
    """Faults per second."""

    cut: float = 1.0
    cut_all: float = 0.05
    kill_machine: float = 0.08
    kill_executor: float = 0.3
    freeze_agent: float = 0.05
    cut_off_machine: float = 0.1
    cut_off_client: float = 0.05
    restart: float = 0.08

    @classmethod
    def none(cls) -> Rates:
        return cls(**dict.fromkeys(cls.__slots__, 0.0))

    def as_dict(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in self.__slots__}


class World:
    """Everything of one history; `run` plays it."""

    def __init__(self, seed: int, home: Path, rates: Rates | None = None, faults: ProviderFaults | None = None) -> None:
        self.seed = seed
        self.plan = FaultPlan(seed)
        self.clock = FakeClock()
        self.ledger = Ledger()
        self.network = Network(self.plan, delay_s=self.plan.stream("network").choice([0.001, 0.02, 0.2]))
        self.rates = rates or Rates()
        self._home = home
        faults = faults or self.plan.provider_faults(
            create_fails=0.1, reply_lost=0.1, never_registers=0.1, slow=0.2, slow_s=5.0
        )
        self.provider = FakeProvider(self.clock, faults, boot=self._boot, halt=self._halt, destroy_s=3.0)
        self.coordinator = SimCoordinator(home, f"s{seed}", self.clock, self.provider, machines=MACHINES)
        self.agents: list[SimAgent] = []
        self.clients = [
            SimClient(f"c{number}", self.clock, self.plan, self.network, self.coordinator) for number in range(CLIENTS)
        ]
        self.story: list[str] = []

    def run(self) -> None:
        """Play the history and check it."""
        try:
            self.clock.run(self._main())
        finally:
            shutil.rmtree(f"/dev/shm/runner-s{self.seed}", ignore_errors=True)

    async def _main(self) -> None:
        await self.coordinator.start()
        sessions = [asyncio.ensure_future(client.run()) for client in self.clients]
        try:
            users = [asyncio.ensure_future(self._use(client)) for client in self.clients]
            await self._break_things()
            await asyncio.gather(*users)
            self._note("quiet")
            if self.coordinator.live is None:
                await self._start_coordinator()
            await self._settle(sessions)
            self._check_end()
        finally:
            for task in sessions:
                task.cancel()
            await asyncio.gather(*sessions, return_exceptions=True)
            for agent in [*self.agents]:
                agent.kill("the world ends")
            self.network.cut_all()
            if self.coordinator.live is not None:
                await self.coordinator.crash()
            await self.provider.close()

    # ---- the workload ----
    async def _use(self, client: SimClient) -> None:
        numbers = self.plan.stream(f"user {client.client_id}")
        for _ in range(TASKS):
            await self.clock.sleep(numbers.expovariate(TASKS / FAULTY_S))
            candidates = [task for task in client.tasks.values() if not task.is_dropped]
            depends_on: list[ObjectId] = []
            if candidates and numbers.random() < 0.3:
                depends_on = [numbers.choice(candidates).refs[0]]
            client.submit(is_run=numbers.random() < 0.3, num_returns=numbers.choice([1, 1, 2]), depends_on=depends_on)
            self._fiddle(client, candidates, numbers)

    def _fiddle(self, client: SimClient, candidates: list[Submitted], numbers: random.Random) -> None:
        if candidates and numbers.random() < 0.15:
            client.cancel(numbers.choice(candidates), force=numbers.random() < 0.5)
        if candidates and numbers.random() < 0.1:
            client.drop(numbers.choice(candidates))

    # ---- the faults ----
    async def _break_things(self) -> None:
        begun_s = self.clock.monotonic_s()
        for fault in self.plan.schedule(self.rates.as_dict(), FAULTY_S):
            await self.clock.sleep_until(begun_s + fault.at_s)
            await self._strike(fault)

    async def _strike(self, fault: Fault) -> None:
        self._raise_broken()
        live = [agent for agent in self.agents if not agent.is_dead]
        agent = fault.pick(live)
        if fault.kind == "cut" and (call := fault.pick(self.network.calls)) is not None:
            self._note(f"cut {call.label}")
            self.network.cut(call)
        elif fault.kind == "cut_all":
            self._note("cut all")
            self.network.cut_all()
        elif fault.kind == "kill_machine" and agent is not None:
            self._note(f"kill {agent.boot.machine_id}")
            agent.kill("was killed by signal 9 (SIGKILL)")
        elif fault.kind == "kill_executor" and agent is not None:
            self._note(f"kill an executor of {agent.boot.machine_id}")
            agent.kill_executor(fault.victim)
        elif fault.kind == "freeze_agent" and agent is not None:
            duration_s = self.plan.stream("freezes").choice([1.0, 5.0, 15.0])
            self._note(f"freeze {agent.boot.machine_id} for {duration_s} s")
            agent.freeze(duration_s)
            self.ledger.frozen.add(agent.boot.machine_id)
        elif fault.kind == "cut_off_machine" and agent is not None:
            self._cut_off(agent.boot.machine_id, self.plan.stream("partitions").choice([2.0, 8.0, 15.0]))
        elif fault.kind == "cut_off_client":
            self._cut_off(self.clients[int(fault.victim * CLIENTS)].client_id, 5.0)
        elif fault.kind == "restart":
            await self._restart_coordinator()

    def _cut_off(self, who: str, duration_s: float) -> None:
        self._note(f"{who} is cut off for {duration_s} s")
        self.network.cut_off(who, duration_s)

    async def _restart_coordinator(self) -> None:
        if self.coordinator.live is None:
            return
        self._note("kill -9 of the coordinator")
        self.network.cut_all()
        await self.coordinator.crash()
        for agent in [*self.agents]:  # as the local provider's machines do: they end with its zygote
            agent.kill("the coordinator died")
        await self.clock.sleep(self.plan.stream("restarts").random() * 3.0)
        await self._start_coordinator()

    async def _start_coordinator(self) -> None:
        await self.coordinator.start()
        self._note(f"coordinator started, life {self.coordinator.lives}")

    # ---- machines ----
    def _boot(self, boot: BootConfig) -> None:
        agent = SimAgent(boot, self.clock, self.plan, self.network, self.coordinator, self.ledger, self._agent_ended)
        self.agents.append(agent)

    def _halt(self, machine_id: MachineId) -> None:
        for agent in [*self.agents]:
            if agent.boot.machine_id == machine_id:
                agent.kill("destroyed by the provider")

    def _agent_ended(self, agent: SimAgent, reason: str) -> None:
        self._note(f"{agent.boot.machine_id} ended: {reason}")
        self.agents.remove(agent)
        self.provider.end_machine(agent.boot.machine_id, reason)

    # ---- the end ----
    async def _settle(self, sessions: Sequence[asyncio.Future[Any]]) -> None:
        """Faults are over: in bounded time every task settles and every wanted result is delivered."""
        finished: asyncio.Future[Any] = asyncio.gather(*(client.finished() for client in self.clients))
        try:
            async with asyncio.timeout(SETTLE_S):
                while not finished.done():
                    await asyncio.wait({finished, *sessions}, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
                    self._raise_broken()
                    for session in sessions:
                        if session.done():
                            session.result()
                while self._unfinished():
                    await self.clock.sleep(1.0)
        except TimeoutError:
            raise AssertionError(f"not settled after {SETTLE_S} s:\n" + "\n".join(self._stuck())) from None
        finally:
            finished.cancel()

    def _raise_broken(self) -> None:
        if self.ledger.broken:
            raise self.ledger.broken[0]

    def _unfinished(self) -> int:
        return self._cluster().unfinished_tasks()

    def _cluster(self) -> Cluster:
        """Of the coordinator's present life."""
        assert self.coordinator.live is not None, "the coordinator is down"
        assert not self.coordinator.live.failure, self.coordinator.live.failure
        return self.coordinator.live.cluster

    def _stuck(self) -> list[str]:
        cluster = self._cluster()
        lines = [f"machines {cluster.machine_counts()}, tasks {cluster.task_counts()}"]
        for client in self.clients:
            for task in client.tasks.values():
                if not task.is_done:
                    view = cluster.task(task.task_id)
                    state = (
                        "unknown to the coordinator"
                        if view is None
                        else f"{view.state} attempt {view.attempt} on {view.machine_id}"
                    )
                    lines.append(f"{task.task_id} ({state}): {cluster.why_waiting(task.task_id)}")
                    lines.append(cluster.story(task.task_id))
        return lines

    def _check_end(self) -> None:
        cluster = self._cluster()
        cluster.check()
        for client in self.clients:
            for task in client.tasks.values():
                self._check_task(task)
        self._check_metrics()

    def _check_task(self, task: Submitted) -> None:
        """Exactly one result for each ref, from an attempt that did succeed."""
        if task.is_dropped:
            return
        assert set(task.deliveries) == set(task.refs)
        assert set(task.deliveries.values()) == {1}
        for index, ref in enumerate(task.refs):
            outcome = task.outcomes[ref]
            if outcome.is_failure:
                failure = types_pb2.Failure.FromString(outcome.payload)
                assert failure.kind in _EXPECTED_FAILURES, failure
                continue
            value = types_pb2.Value.FromString(outcome.payload)
            task_id, attempt, position = value.inline.decode().split("/")
            assert (task_id, position) == (task.task_id, str(index))
            assert (task_id, int(attempt)) in self.ledger.successes

    def _check_metrics(self) -> None:
        """Of every attempt of a run: a gapless beginning; all of it where the attempt succeeded."""
        assert self.coordinator.live is not None
        log = self.coordinator.live._event_log
        seen: dict[tuple[str, int], list[int]] = {}
        newest_attempt: dict[str, int] = {}
        cursor = 1
        while True:
            events, following = log.read(Selector(kinds=frozenset({client_pb2.EVENT_KIND_METRICS})), cursor)
            for event in events:
                assert event.attempt >= newest_attempt.get(event.task_id, 0), f"{event.task_id}: an older attempt spoke"
                newest_attempt[event.task_id] = event.attempt
                seen.setdefault((event.task_id, event.attempt), []).append(msgpack.unpackb(event.values)["i"])
            if following == cursor:
                break
            cursor = following
        for key, indices in seen.items():
            assert indices == list(range(1, len(indices) + 1)), f"{key}: {indices}"
        for client in self.clients:
            for task in client.tasks.values():
                if task.is_run:
                    self._check_run_metrics(task, seen)

    def _check_run_metrics(self, task: Submitted, seen: dict[tuple[str, int], list[int]]) -> None:
        view = self._cluster().task(TaskId(task.task_id))
        if view is None or view.state != "succeeded":
            return
        key = (str(task.task_id), view.attempt)
        assert len(seen.get(key, [])) == self.ledger.metrics.get(key, 0), f"{key}: {seen.get(key)}"

    def _note(self, line: str) -> None:
        self.story.append(f"{self.clock.monotonic_s() - 1000.0:8.3f} {line}")


def play(seed: int, home: Path, rates: Rates | None = None, faults: ProviderFaults | None = None) -> World:
    """Play one history; a failure carries the seed and the story."""
    world = World(seed, home, rates, faults)
    try:
        world.run()
    except BaseException as error:
        error.add_note(f"seed {seed}\n" + "\n".join(world.story[-60:]))
        raise
    return world
