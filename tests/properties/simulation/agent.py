"""A machine: the shipped agent machine and report buffer on simulated calls; executors and user code follow the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgpack

from runner.core.values import FailureKind
from runner.errors import ProtocolViolationError
from runner.providers.base import BootConfig
from runner.rpc.gen import fleet_pb2, types_pb2
from runner.rpc.security import MachineIdentity, make_csr
from runner.rpc.version import local_peer
from runner.testing import FakeClock, FaultPlan
from runner.worker.agent import events as ev
from runner.worker.agent.machine import AgentMachine, AgentSettings
from runner.worker.agent.report_buffer import ReportBuffer
from tests.properties.simulation.coordinator import SimCoordinator
from tests.properties.simulation.executors import SimExecutor
from tests.properties.simulation.ledger import Ledger
from tests.properties.simulation.network import Call, Cut, Network, Refused


class SimAgent:
    """One boot of one machine. It lives until it exits, is killed, or is refused."""

    def __init__(
        self,
        boot: BootConfig,
        clock: FakeClock,
        plan: FaultPlan,
        network: Network,
        coordinator: SimCoordinator,
        ledger: Ledger,
        on_end: Callable[[SimAgent, str], None],
    ) -> None:
        self.boot = boot
        self.generation = 0
        self.is_dead = False
        self.frozen_until_s = 0.0
        self.clock = clock
        self.plan = plan
        self.ledger = ledger
        self._network = network
        self._coordinator = coordinator
        self._on_end = on_end
        self._instance = f"i-{plan.stream('instances').getrandbits(32):08x}"
        self._numbers = plan.stream(f"agent {self._instance}")
        self._machine = AgentMachine(
            AgentSettings(
                boot.machine_id,
                cpus=boot.cpus,
                is_leased=True,
                lost_after_s=boot.lost_after_s,
                destroy_after_s=boot.destroy_after_s,
            )
        )
        self._buffer: ReportBuffer[fleet_pb2.ReportItem] = ReportBuffer()
        self._executors: dict[int, SimExecutor] = {}
        self._functions: set[str] = set()
        self._received_seq = 0  # newest frame of commands taken in
        self._work = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None
        self._main = asyncio.ensure_future(self._run())

    def kill(self, reason: str) -> None:
        """The machine is gone at once, with everything on it."""
        if self.is_dead:
            return
        self.is_dead = True
        self._main.cancel()
        if self._tick is not None:
            self._tick.cancel()
        for executor in [*self._executors.values()]:
            executor.die()
        self._on_end(self, reason)

    def freeze(self, duration_s: float) -> None:
        """SIGSTOP of the agent: its executors go on, it hears and says nothing."""
        self.frozen_until_s = self.clock.monotonic_s() + duration_s

    def kill_executor(self, choice: float) -> None:
        busy = [executor for executor in self._executors.values() if executor.is_busy]
        if busy:
            self.executor_exited(busy[int(choice * len(busy))], ev.ExitCause(None, 9, "SIGKILL"))

    # ---- joining ----
    async def _run(self) -> None:
        try:
            certificate = await self._join()
            while True:
                try:
                    await self._converse(certificate)
                except (Cut, Refused) as ended:
                    if isinstance(ended, Refused) and not isinstance(ended.__cause__, ProtocolViolationError):
                        raise
                    self._buffer.reconnected()  # also cures a gap in the items
                    await self.clock.sleep(0.02 + self._numbers.random() * 0.3)
        except Refused as refused:
            self.kill(f"refused: {refused}")
        except Exception as error:  # a broken rule: the world stops on it
            self.ledger.broken.append(error)

    async def _join(self) -> tuple[str, bytes]:
        boot = self.boot
        _, csr_pem = make_csr(boot.machine_id)
        request = fleet_pb2.RegisterRequest(
            peer=local_peer(),
            machine_id=boot.machine_id,
            join_token=boot.join_token,
            csr_pem=csr_pem,
            agent_instance_id=self._instance,
            total=types_pb2.Resources(amounts=dict(boot.shape())),
        )
        while True:
            try:
                call = self._network.open(
                    f"register {boot.machine_id}", self._coordinator.register_handler, request=request
                )
                reply = await call.receive()
                break
            except Cut:
                await self.clock.sleep(0.05 + self._numbers.random() * 0.2)
        self.generation = reply.generation
        self.handle(ev.Registered())
        identity = MachineIdentity(boot.machine_id, self.generation)
        return boot.machine_id, identity.uri().encode()

    async def _converse(self, certificate: tuple[str, bytes]) -> None:
        request = fleet_pb2.AssignmentsRequest(
            machine_id=self.boot.machine_id,
            generation=self.generation,
            agent_instance_id=self._instance,
            received_seq=self._received_seq,
        )
        down = self._network.open(
            f"assignments {self.boot.machine_id}",
            self._coordinator.assignments_handler,
            request=request,
            machine=certificate,
        )
        try:
            up = self._network.open(
                f"report {self.boot.machine_id}", self._coordinator.report_handler, machine=certificate
            )
        except Cut:
            self._network.cut(down)
            raise
        loops = [
            asyncio.ensure_future(self._listen(down)),
            asyncio.ensure_future(self._speak(up)),
            asyncio.ensure_future(self._until_refused(up)),
        ]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in done:
                loop.result()
            raise Cut("a stream ended")
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            self._network.cut(down)
            self._network.cut(up)

    async def _listen(self, call: Call) -> None:
        while (frame := await call.receive()) is not None:
            await self._thawed()
            self._buffer.acknowledge(frame.acked_report_seq)
            if frame.acked_sent_s:
                self.handle(ev.HeartbeatAcked(frame.acked_sent_s))
            if frame.seq > self._received_seq:
                assert frame.seq == self._received_seq + 1, f"commands {frame.seq} after {self._received_seq}"
                self._received_seq = frame.seq
                for command in frame.commands:
                    self._obey(command)

    async def _until_refused(self, call: Call) -> None:
        await call.receive()

    async def _speak(self, call: Call) -> None:
        while True:
            await self._thawed()
            first_seq, items = self._buffer.take()
            call.send(
                fleet_pb2.AgentReport(
                    machine_id=self.boot.machine_id,
                    generation=self.generation,
                    first_seq=first_seq,
                    sent_s=self.clock.boottime_s(),
                    items=items,
                    received_seq=self._received_seq,
                )
            )
            await self._until_next_frame()

    async def _until_next_frame(self) -> None:
        """There is something to say, or a heartbeat is due."""
        due_s = self.clock.monotonic_s() + self.boot.heartbeat_s
        while not self._buffer.has_work:
            self._work.clear()
            try:
                async with asyncio.timeout_at(due_s):
                    await self._work.wait()
            except TimeoutError:
                return

    async def _thawed(self) -> None:
        if self.clock.monotonic_s() < self.frozen_until_s:
            await self.clock.sleep_until(self.frozen_until_s)
            self.handle(ev.ClockGapSeen())

    # ---- from the coordinator ----
    def _obey(self, command: fleet_pb2.AgentCommand) -> None:
        kind = command.WhichOneof("command")
        if kind == "function":
            self._functions.add(command.function.function_id)
        elif kind == "start":
            self._assigned(command.start)
        elif kind == "stop":
            stop = command.stop
            self.handle(ev.StopRequested((stop.key.task_id, stop.key.attempt), ev.StopReason(stop.reason), stop.force))
        elif kind == "resume":
            self.handle(ev.AttemptResumed((command.resume.key.task_id, command.resume.key.attempt)))
        elif kind == "exit":
            drain = command.exit.drain
            self.handle(ev.DrainRequested(command.exit.reason) if drain else ev.ExitRequested(command.exit.reason))

    def _assigned(self, start: fleet_pb2.Assignment) -> None:
        spec = types_pb2.TaskSpec.FromString(start.spec)
        assert spec.function_id in self._functions, f"{spec.task_id} came before its function"
        assert [each.object_id for each in start.dependencies] == list(spec.dependencies)
        assert all(each.WhichOneof("outcome") == "value" for each in start.dependencies)
        key = (start.key.task_id, start.key.attempt)
        attempt = ev.Attempt(
            key,
            start.slot,
            ev.Environment(),
            spec.function_id,
            f"task {key[0]} attempt {key[1]}",
            is_run=spec.is_run,
            payload=spec,
        )
        self.handle(ev.AttemptAssigned(attempt))

    # ---- the machine's decisions ----
    def handle(self, event: ev.Event) -> None:
        if self.is_dead:
            return
        try:
            for command in self._machine.handle(event, self.clock.boottime_s()):
                self._perform(command)
            if self.is_dead:
                return
            self._machine.check()
        except Exception as error:
            self.ledger.broken.append(error)
            raise
        self._set_tick()

    def _set_tick(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        wakeup_s = self._machine.next_wakeup_s()
        if wakeup_s is not None:
            self._tick = asyncio.get_running_loop().call_at(max(wakeup_s, self.frozen_until_s), self._ticked)

    def _ticked(self) -> None:
        self._tick = None
        self.handle(ev.Ticked())

    def _perform(self, command: ev.Command) -> None:
        match command:
            case ev.SpawnExecutor():
                self._executors[command.number] = SimExecutor(self, command.number)
            case ev.RunAttempt():
                self._executors[command.number].run(command.serial, command.attempt)
            case ev.InterruptExecutor():
                self._executors[command.number].interrupt(command.serial)
            case ev.SignalGroup():
                self._signal(command)
            case ev.RetireExecutor():
                self._later_exit(command.number, ev.ExitCause(0))
            case ev.ResumeExecutor():
                self._executors[command.number].resume()
            case ev.LoadLayer():
                self.handle(ev.LayerReady(command.modules))
            case ev.ExitAgent():
                self.kill(f"agent exited: {command.reason}")
            case _:
                self._say(_report_item(command, self._executor_id))

    def _signal(self, command: ev.SignalGroup) -> None:
        number = {ev.Signal.TERM: 15, ev.Signal.KILL: 9}[command.signal]
        self._later_exit(command.number, ev.ExitCause(None, number, command.signal.value))

    def _later_exit(self, number: int, cause: ev.ExitCause) -> None:
        executor = self._executors.get(number)
        if executor is not None:
            delay_s = 0.001 + self._numbers.random() * 0.02
            asyncio.get_running_loop().call_later(delay_s, self.executor_exited, executor, cause)

    def executor_exited(self, executor: SimExecutor, cause: ev.ExitCause) -> None:
        if self._executors.pop(executor.number, None) is not None:
            executor.die()
            self.handle(ev.ExecutorExited(executor.number, cause))

    # ---- to the coordinator ----
    def report_metrics(self, key: ev.Key, index: int) -> None:
        self.ledger.reported(self.boot.machine_id, self.generation, key, index)
        item = fleet_pb2.Metrics(key=_key(key), index=index, step=index, values=msgpack.packb({"i": index}))
        self._say(fleet_pb2.ReportItem(metrics=item))

    def report_checkpoint(self, key: ev.Key, step: int) -> None:
        checkpoint = types_pb2.Checkpoint(step=step, uri=f"/nowhere/{key[0]}.{key[1]}.{step}", sha256="0", size_bytes=1)
        self._say(fleet_pb2.ReportItem(checkpoint=fleet_pb2.CheckpointSaved(key=_key(key), checkpoint=checkpoint)))

    def _say(self, item: fleet_pb2.ReportItem) -> None:
        self._buffer.add(item, item.ByteSize())
        self._work.set()

    def _executor_id(self, number: int) -> str:
        return f"{self.boot.machine_id}.{self._instance}.{number}" if number else ""


def _key(key: ev.Key) -> fleet_pb2.AttemptKey:
    return fleet_pb2.AttemptKey(task_id=key[0], attempt=key[1])


def _report_item(command: ev.Command, executor_id: Callable[[int], str]) -> fleet_pb2.ReportItem:
    match command:
        case ev.ReportStarted():
            started = fleet_pb2.AttemptStarted(key=_key(command.key), executor_id=executor_id(command.number))
            return fleet_pb2.ReportItem(started=started)
        case ev.ReportEnded():
            return fleet_pb2.ReportItem(ended=_ended(command, executor_id(command.number)))
        case ev.ReportReturned():
            return fleet_pb2.ReportItem(
                returned=fleet_pb2.AttemptReturned(key=_key(command.key), reason=command.reason)
            )
        case ev.ReportBlocked():
            return fleet_pb2.ReportItem(blocked=fleet_pb2.AttemptBlocked(key=_key(command.key)))
        case ev.ReportUnblocked():
            return fleet_pb2.ReportItem(unblocked=fleet_pb2.AttemptUnblocked(key=_key(command.key)))
        case ev.ReportExecutorGone():
            return fleet_pb2.ReportItem(executor_gone=fleet_pb2.ExecutorGone(executor_id=executor_id(command.number)))
    raise AssertionError(f"the simulation does not know {command}")


def _ended(command: ev.ReportEnded, executor_id: str) -> fleet_pb2.AttemptEnded:
    ended = fleet_pb2.AttemptEnded(key=_key(command.key), duration_s=command.duration_s, executor_id=executor_id)
    outcome: Any = command.outcome
    if command.fault is not None:
        ended.failure.CopyFrom(types_pb2.Failure(kind=int(command.fault.kind), message=command.fault.message))  # type: ignore[arg-type]
    elif outcome is None:
        ended.failure.CopyFrom(types_pb2.Failure(kind=int(FailureKind.USER), message="ValueError: by plan"))  # type: ignore[arg-type]
    else:
        ended.returns.CopyFrom(outcome)
    return ended
