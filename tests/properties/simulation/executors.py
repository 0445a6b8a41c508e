"""Simulated executors: what an attempt's user code does is drawn from the plan by task and attempt."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from runner.rpc.gen import fleet_pb2, types_pb2
from runner.worker.agent import events as ev

if TYPE_CHECKING:
    from tests.properties.simulation.agent import SimAgent

STEPS_MAX = 5
STEP_S = 0.3
P_USER_ERROR = 0.08
P_CRASH = 0.05
P_BLOCK = 0.10
P_DEAF = 0.2  # ignores an interrupt


class SimExecutor:
    """One process: ready after a while, then one attempt after the other."""

    def __init__(self, agent: SimAgent, number: int) -> None:
        self.number = number
        self._agent = agent
        self._resumed = asyncio.Event()
        self._attempt: ev.Attempt | None = None
        self._serial = 0
        self._code: asyncio.Task[None] = asyncio.ensure_future(self._start())

    @property
    def is_busy(self) -> bool:
        return self._attempt is not None

    def run(self, serial: int, attempt: ev.Attempt) -> None:
        agent = self._agent
        agent.ledger.began(agent.boot.machine_id, agent.generation, attempt.key)
        self._attempt, self._serial = attempt, serial
        self._code = asyncio.ensure_future(self._work(serial, attempt))

    def interrupt(self, serial: int) -> None:
        numbers = self._agent.plan.stream("interrupts")
        if self._attempt is not None and self._serial == serial and numbers.random() >= P_DEAF:
            self._code.cancel()
            self._end(None, was_interrupted=True)

    def resume(self) -> None:
        self._resumed.set()

    def die(self) -> None:
        self._code.cancel()
        self._leave()

    async def _start(self) -> None:
        await self._agent.clock.sleep(0.005 + self._agent.plan.stream("spawns").random() * 0.1)
        self._agent.handle(ev.ExecutorReady(self.number, pid=self.number))

    async def _work(self, serial: int, attempt: ev.Attempt) -> None:
        agent, clock = self._agent, self._agent.clock
        numbers = agent.plan.stream(f"code {attempt.key}")
        for step in range(1, numbers.randrange(STEPS_MAX + 1) + 1):
            await clock.sleep(numbers.random() * STEP_S)
            agent.report_metrics(attempt.key, step)
            if attempt.is_run and numbers.random() < 0.5:
                agent.report_checkpoint(attempt.key, step)
            if numbers.random() < P_BLOCK:
                await self._block(serial, numbers.random() * STEP_S)
        await clock.sleep(numbers.random() * STEP_S)
        fate = numbers.random()
        if fate < P_CRASH:
            agent.executor_exited(self, ev.ExitCause(None, 11, "SIGSEGV"))
        elif fate < P_CRASH + P_USER_ERROR:
            self._end(None)
        else:
            self._end(_returns(attempt))

    async def _block(self, serial: int, duration_s: float) -> None:
        agent = self._agent
        self._resumed.clear()
        agent.handle(ev.ExecutorBlocked(self.number, serial))
        await agent.clock.sleep(duration_s)
        agent.handle(ev.ExecutorUnblocked(self.number, serial))
        await self._resumed.wait()

    def _end(self, outcome: fleet_pb2.Returns | None, *, was_interrupted: bool = False) -> None:
        serial, attempt = self._serial, self._attempt
        assert attempt is not None
        if outcome is not None:
            self._agent.ledger.succeeded(attempt.key)
        self._leave()
        self._agent.handle(ev.ExecutorEnded(self.number, serial, outcome, was_interrupted=was_interrupted))

    def _leave(self) -> None:
        if self._attempt is not None:
            self._agent.ledger.left(self._agent.boot.machine_id, self._agent.generation, self._attempt.key)
            self._attempt = None


def _returns(attempt: ev.Attempt) -> fleet_pb2.Returns:
    spec: types_pb2.TaskSpec = attempt.payload
    task_id, number = attempt.key
    return fleet_pb2.Returns(
        values=[types_pb2.Value(inline=f"{task_id}/{number}/{index}".encode()) for index in range(spec.num_returns)]
    )
