"""The agent: one process per machine that registers, takes assignments, has executors run them and reports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runner.clock import SystemClock
from runner.config import load, mark_inside
from runner.errors import ClusterError, RunnerError
from runner.objects.machine_folders import MachineFolders
from runner.rpc.gen import fleet_pb2
from runner.rpc.phases import DRAINING
from runner.rpc.version import host_id
from runner.worker.agent import events as ev
from runner.worker.agent.events import StopReason
from runner.worker.agent.shell import AgentShell
from runner.worker.agent.stream import AgentStream
from runner.worker.agent.suspend_words import Awoke, HungUp
from runner.worker.agent.transfers import Transfers
from runner.worker.frames import Kind, encode
from runner.worker.local_store import LocalStore
from runner.worker.neighbours import Neighbours, own_address
from runner.worker.process import become_subreaper, children_of
from runner.worker.template import Template

if TYPE_CHECKING:
    from runner.providers.base import BootConfig

log = logging.getLogger(__name__)

FLUSH_S = 2.0  # for the last reports of a drained machine
DELIVER_S = 30.0  # the last reports before a suspend; what is left then goes in the next generation
EMPTY_S = 30.0  # for what it alone has to reach the coordinator


class Agent:
    """An agent's life: registration, streams, heartbeats, and the reasons to end."""

    def __init__(
        self,
        boot: BootConfig,
        template: socket.socket,
        life_fd: int | None,
        zygote: socket.socket | None,
        *,
        is_own_process: bool,
    ) -> None:
        self._boot = boot
        self._life_fd = life_fd
        self._is_own_process = is_own_process
        self._may_drain = False
        self._started_unix_s = time.time()
        self._clock = SystemClock()
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[str] = self._loop.create_future()
        self._transfers: Transfers | None = None
        self._serving: asyncio.Task[None] | None = None
        self._store: LocalStore | None = None
        self.folders: MachineFolders | None = None  # of a machine that shares no files with the coordinator
        self.shell = AgentShell(boot, self._clock, template, zygote, self._end, guard_share=load().memory_guard)
        self._stream = AgentStream(boot, self._clock, self.shell.output.buffer, self._on_commands, self._reconnected)
        self.shell.output.wake = self._stream.wake
        self.shell.output.wake_now = self._stream.wake_now
        self.shell.output.wake_later = self._stream.wake_later
        self.shell.on_gap = self._stream.heartbeat
        handle, functions = self.shell.handle, self.shell.functions
        self._on_wire: dict[str, Callable[[Any], None]] = {
            "start": lambda each: handle(ev.AttemptAssigned(functions.attempt(each))),
            "function": functions.add,
            "package": functions.add_package,
            "stop": self._stop,
            "resume": lambda each: handle(ev.AttemptResumed((each.key.task_id, each.key.attempt))),
            "relay": self._relay,
            "bring": self._bring,
            "free_segment": lambda each: self.shell.free_segment(each.path),
            "items_read": lambda each: self._tell(each, Kind.ITEMS_READ, each.count),
            "actor_input": lambda each: self._tell(each, Kind.ACTOR_IN, each.caller_id, each.frames),
            "checkpoint_committed": lambda each: self._tell(
                each, Kind.COMMITTED, each.step, each.accepted, each.reason, ""
            ),
            "suspend": self.shell.sleep.asked,
            "preload": lambda each: self.shell.preload(each.modules),
            "exit": lambda each: handle(
                ev.DrainRequested(each.reason) if each.drain else ev.ExitRequested(each.reason)
            ),
        }

    async def run(self) -> str:
        """Until told to end; returns why.

        Raises:
            RunnerError: the coordinator did not admit this machine.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled, f"signal {number.name}")
        if self._life_fd is not None:
            self._loop.add_reader(self._life_fd, self._life_ended)
        registering = asyncio.create_task(self._stream.register(self._phases()), name="register")
        ends: set[asyncio.Future[Any]] = {registering, self._exit}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._exit.done():
            registering.cancel()
            return self._exit.result()
        self._begin(registering.result())
        while not (reason := await self._serve() or await self._come_back()):
            pass
        return reason

    async def _serve(self) -> str:
        """Until the machine is to end: returns why; or until it has hung up for a suspend: returns nothing."""
        leaving = self.shell.sleep.leaving
        serving = asyncio.create_task(self._stream.run(), name="streams")
        ends: set[asyncio.Future[Any]] = {serving, leaving, self._exit}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done() and not self._exit.done():
            told = asyncio.create_task(self._stream.all_acknowledged())
            ends = {told, serving, self._exit}
            await asyncio.wait(ends, timeout=DELIVER_S, return_when=asyncio.FIRST_COMPLETED)
            told.cancel()
            if serving.done():  # who refuses this generation has heard its last word, and so all before it
                self.shell.output.buffer.settle()
        if self._exit.done():
            await self._flush()
            return self._exit.result()
        if not leaving.done():
            return f"the coordinator refused this machine: {serving.result()}"
        serving.cancel()
        await asyncio.wait([serving])
        return ""

    async def _come_back(self) -> str:
        """Hung up: ask to be taken back, maybe after a long sleep. Returns why the machine is to end; nothing: it goes on."""
        if self._transfers is not None:
            await self._transfers.hang_up()
        began_s = self._clock.boottime_s()
        self.shell.handle(HungUp())
        snapshot = self.shell.sleep.leaving.result()
        asking = asyncio.create_task(
            self._stream.register_again(snapshot, is_leased=self.shell.is_leased), name="register again"
        )
        ends: set[asyncio.Future[Any]] = {asking, self._exit}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if self._exit.done():
            asking.cancel()
            return self._exit.result()
        try:
            reply = asking.result()
        except RunnerError as error:
            return f"the coordinator did not take this machine back: {error}"
        if self.shell.sleep.registered(reply, owns_clock=self._boot.owns_clock):
            self.shell.reseed()
        if self._transfers is not None and self._store is not None:
            neighbours = self._stream.neighbours()
            self._transfers.connect(self._stream.bulk_client(), neighbours)
            self._serving = asyncio.create_task(self._serve_values(neighbours, self._store))
        asleep_s = self._clock.boottime_s() - began_s
        self.shell.handle(Awoke(asleep_s, reply.wake.hooks_s, ends_executors=reply.wake.sessions_over))
        return ""

    def _phases(self) -> dict[str, float]:
        return {"started": self._started_unix_s, "agent_up": time.time()}

    def _begin(self, reply: fleet_pb2.RegisterReply) -> None:
        our_host_id = self._boot.host_id or host_id()
        store_path, artefact_path, transfers = reply.store_path, reply.artefact_path, None
        if our_host_id == reply.peer.host_id:
            # Not made here: where the coordinator's own is gone, so is the coordinator, and nobody would ever remove this one.
            if not os.path.isdir(store_path):
                raise ClusterError(
                    f"machine {self._boot.machine_id} cannot keep values: the coordinator's {store_path} is gone; "
                    f"look at it with `runner status`"
                )
        else:
            self.folders = folders = self._make_folders()
            store_path, artefact_path = folders.store, folders.artefacts
            store = self._store = LocalStore(store_path, folders.store_bytes_max)
            neighbours = self._stream.neighbours()
            transfers = self._transfers = Transfers(
                self._stream.bulk_client(),
                neighbours,
                store,
                artefact_path,
                self.shell.output,
                machine_id=self._boot.machine_id,
                host_id=our_host_id,
            )
            self._serving = asyncio.create_task(self._serve_values(neighbours, store))
        told = {
            "machine_id": self._boot.machine_id,
            "cluster_id": reply.cluster_id,
            "address": self._boot.coordinator_address,
            "embedded": self._boot.embedded,
            "store_path": store_path,
            "artefact_path": artefact_path,
            "host_id": our_host_id,
        }
        self.shell.sleep.registered(reply, owns_clock=self._boot.owns_clock)
        self.shell.start(told, transfers)
        self._may_drain = self._is_own_process
        self._loop.call_later(reply.heartbeat_s, self._beat, reply.heartbeat_s)

    async def _serve_values(self, neighbours: Neighbours, store: LocalStore) -> None:
        host = self._boot.pull_host
        if host == "auto":
            host = own_address(self._boot.coordinator_address)
        address = await neighbours.serve(store, host) if host else ""
        if address:
            self.shell.output.pull_served(address)

    def _make_folders(self) -> MachineFolders:
        try:
            return MachineFolders(self._boot.cluster_id, self._boot.machine_id)
        except OSError as error:
            raise ClusterError(
                f"machine {self._boot.machine_id} cannot make its folders for values and checkpoints: {error}"
            ) from error

    def _beat(self, heartbeat_s: float) -> None:
        self._loop.call_later(heartbeat_s, self._beat, heartbeat_s)
        self.shell.beat()
        self._stream.heartbeat()

    def _end(self, reason: str) -> None:
        if not self._exit.done():
            self._exit.set_result(reason)

    def _signalled(self, name: str) -> None:
        """The first signal drains a machine that is a process of its own; others are destroyed by it."""
        if not self._may_drain:
            self._end(name)
            return
        self._may_drain = False
        log.info("%s: returning what runs here", name)
        # Said first: else what comes back would be placed here again.
        self.shell.output.phase(DRAINING, time.time())
        self.shell.handle(ev.DrainRequested(name, stop_running=True))

    def _life_ended(self) -> None:
        assert self._life_fd is not None
        self._loop.remove_reader(self._life_fd)
        self._end("the coordinator is gone")

    async def _flush(self) -> None:
        """A machine that was drained has results to deliver; one that is to die has not."""
        if self._exit.result() != "drained":
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EMPTY_S):
                await self.shell.emptied()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await self._stream.all_acknowledged()

    # ---- from the coordinator ----
    def _on_commands(self, commands: fleet_pb2.AgentCommands) -> None:
        output = self.shell.output
        output.buffer.acknowledge(commands.acked_report_seq)
        if commands.acked_sent_s:
            self.shell.handle(ev.HeartbeatAcked(commands.acked_sent_s))
        for command in commands.commands:
            kind = command.WhichOneof("command")
            if kind is not None:
                self._on_wire[kind](getattr(command, kind))
        self.shell.executors.pause(is_paused=output.is_full)

    def _reconnected(self) -> None:
        self.shell.executors.broadcast(encode(Kind.RECONNECTED))

    def _stop(self, stop: fleet_pb2.StopAttempt) -> None:
        key = (stop.key.task_id, stop.key.attempt)
        reason = StopReason(stop.reason) if stop.reason else StopReason.CANCELLED
        self.shell.handle(ev.StopRequested(key, reason, stop.force))

    def _bring(self, bring: fleet_pb2.Bring) -> None:
        if self._transfers is not None:
            self._transfers.bring(bring.object_id, bring.path)

    def _relay(self, relay: fleet_pb2.RelayToExecutor) -> None:
        handle = self.shell.executors.by_id.get(relay.executor_id)
        if handle is not None:
            handle.link.send(encode(Kind.SESSION_REPLY, relay.reply.SerializeToString()))

    def _tell(self, command: Any, kind: Kind, *fields: Any) -> None:
        self.shell.tell((command.key.task_id, command.key.attempt), kind, *fields)


def run_agent(
    boot: BootConfig,
    life_fd: int | None = None,
    zygote: socket.socket | None = None,
    *,
    is_own_process: bool | None = None,
) -> int:
    """Be the agent of one machine until it ends; returns the exit status. The process must have one thread and no event loop.

    `life_fd`: a pipe whose end ends the machine. `zygote`: a socket on which layers can be asked for. In a process of its own
    (container, VM) both are None. `is_own_process`: whether the first signal drains it, as in such a process.
    """
    if is_own_process is None:
        is_own_process = life_fd is None and zygote is None
    become_subreaper()
    mark_inside(boot.machine_id)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Before gRPC exists: a process that has used it cannot fork.
    if os.fork() == 0:
        try:
            ours.close()
            if zygote is not None:
                zygote.close()
            if life_fd is not None:
                os.close(life_fd)
            Template(theirs).run()
        finally:
            os._exit(1)
    theirs.close()
    return asyncio.run(_serve(boot, ours, life_fd, zygote, is_own_process))


async def _serve(
    boot: BootConfig,
    template: socket.socket,
    life_fd: int | None,
    zygote: socket.socket | None,
    is_own_process: bool,
) -> int:
    agent = Agent(boot, template, life_fd, zygote, is_own_process=is_own_process)
    status = 0
    try:
        reason = await agent.run()
        log.info("machine %s ends: %s", boot.machine_id, reason)
    except RunnerError as error:
        log.error("machine %s could not join its cluster: %s", boot.machine_id, error)
        status = 1
    agent.shell.close()
    _kill_children()
    if agent.folders is not None:
        agent.folders.remove()
    # gRPC's threads have nothing left to say, and waiting for them takes longer than the machine has.
    logging.shutdown()
    os._exit(status)


def _kill_children() -> None:
    """What is left are orphans of a template that died, and a template that hangs."""
    for _ in range(100):
        children = children_of(os.getpid())
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
