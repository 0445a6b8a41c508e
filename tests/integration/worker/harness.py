"""Drives one machine's template and executors through the real AgentShell, without a coordinator: the test plays its part."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.clock import SystemClock
from runner.core.values import CPU, UNIT
from runner.ids import ClusterId, MachineId
from runner.objects.serialization import deserialize, serialize
from runner.providers.base import BootConfig
from runner.rpc.gen import fleet_pb2, types_pb2
from runner.rpc.version import host_id
from runner.worker.agent import events as ev
from runner.worker.agent.shell import AgentShell
from runner.worker.frames import Kind

WAIT_S = 15.0

_TEMPLATE = """
import socket, sys
from runner.worker.template import Template
Template(socket.socket(fileno=int(sys.argv[1]))).run()
"""


@dataclass
class Outcome:
    """Everything that was reported about one attempt."""

    items: list[fleet_pb2.ReportItem] = field(default_factory=list)
    ended: fleet_pb2.AttemptEnded | None = None
    returned: fleet_pb2.AttemptReturned | None = None

    @property
    def failure(self) -> types_pb2.Failure:
        assert self.ended is not None, f"no end: {self.items}"
        assert self.ended.WhichOneof("outcome") == "failure", f"no failure: {self.ended}"
        return self.ended.failure

    def value(self, index: int = 0) -> Any:
        assert self.ended is not None
        assert self.ended.WhichOneof("outcome") == "returns", self.ended.failure
        return deserialize(self.ended.returns.values[index].inline)

    def lines(self, stream: str = "stdout") -> list[str]:
        return [
            line
            for item in self.items
            if item.WhichOneof("item") == "logs" and item.logs.stream == stream
            for line in item.logs.lines
        ]

    def kinds(self) -> list[str]:
        return [str(item.WhichOneof("item")) for item in self.items]


class Worker:
    """One machine. Attempts are keyed by task id; the attempt number is always 1."""

    def __init__(self, boot: BootConfig, template: socket.socket, template_pid: int) -> None:
        self.shell = shell = AgentShell(boot, SystemClock(), template, None, self.exited)
        self.template_pid = template_pid
        self.outcomes: dict[str, Outcome] = {}
        self.others: list[fleet_pb2.ReportItem] = []
        self.exit_reason: str | None = None
        self.is_deaf = False  # nobody takes the reports
        self.folder = ""
        self._numbers = itertools.count(1)
        self._functions: set[str] = set()
        self._changed = asyncio.Event()
        self._is_sending = False
        shell.output.wake = shell.output.wake_later = self._drain_soon

    # ---- the coordinator's part ----
    def start(
        self,
        function: Callable[..., Any],
        *args: Any,
        slot: int | None = None,
        modules: Iterable[str] = (),
        package_ids: Iterable[str] = (),
        **spec: Any,
    ) -> str:
        """Assign one attempt; returns its task id."""
        number = next(self._numbers)
        task_id = f"t-{number}"
        function_id, blob = self._pickled(function)
        if function_id not in self._functions:
            self._functions.add(function_id)
            name = getattr(function, "__name__", "function")
            self.shell.functions.add(
                types_pb2.Function(
                    function_id=function_id, name=name, blob=blob, modules=modules, package_ids=package_ids
                )
            )
        checkpoint = spec.pop("checkpoint", None)
        gpu_ids = spec.pop("gpu_ids", ())
        amounts = spec.pop("amounts", {CPU: UNIT})
        message = types_pb2.TaskSpec(
            task_id=task_id,
            function_id=function_id,
            num_returns=spec.pop("num_returns", 1),
            args=types_pb2.Value(inline=serialize((args, {})).to_bytes()),
            resources=types_pb2.Resources(amounts=amounts),
            **spec,
        )
        assignment = fleet_pb2.Assignment(
            key=fleet_pb2.AttemptKey(task_id=task_id, attempt=1),
            slot=slot or number,
            spec=message.SerializeToString(),
            gpu_ids=gpu_ids,
            checkpoint=checkpoint,
        )
        self.outcomes[task_id] = Outcome()
        self.shell.handle(ev.AttemptAssigned(self.shell.functions.attempt(assignment)))
        return task_id

    def _pickled(self, function: Callable[..., Any]) -> tuple[str, bytes]:
        blob = serialize(function).to_bytes()
        return hashlib.sha256(blob).hexdigest(), blob

    def stop(self, task_id: str, *, force: bool = False) -> None:
        self.shell.handle(ev.StopRequested((task_id, 1), ev.StopReason.CANCELLED, force))

    async def ended(self, task_id: str, timeout_s: float = WAIT_S) -> Outcome:
        """Wait for the attempt's final report."""
        outcome = self.outcomes[task_id]
        await self.until(lambda: outcome.ended is not None or outcome.returned is not None, timeout_s)
        return outcome

    async def run(self, function: Callable[..., Any], *args: Any, **spec: Any) -> Outcome:
        return await self.ended(self.start(function, *args, **spec))

    async def line(self, task_id: str, text: str) -> None:
        """Wait until the attempt has printed this line."""
        await self.until(lambda: text in self.outcomes[task_id].lines())

    async def until(self, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def executor_pid(self, task_id: str) -> int:
        return next(
            each.pid
            for each in self.shell.executors.by_number.values()
            if each.attempt is not None and each.attempt.key[0] == task_id
        )

    def beat(self) -> None:
        """What the heartbeats of a live connection do."""
        asyncio.get_running_loop().call_later(1.0, self.beat)
        self.shell.beat()
        self.shell.handle(ev.HeartbeatAcked(SystemClock().boottime_s()))

    # ---- reports ----
    def exited(self, reason: str) -> None:
        self.exit_reason = reason
        self._changed.set()

    def _drain_soon(self) -> None:
        if not self._is_sending:
            self._is_sending = True
            asyncio.get_running_loop().call_soon(self.drain)

    def drain(self) -> None:
        """Take all that was reported, as a coordinator does that is there."""
        self._is_sending = False
        self._changed.set()
        if self.is_deaf:
            return
        buffer = self.shell.output.buffer
        while buffer.has_work:
            first, items = buffer.take()
            buffer.acknowledge(first + len(items) - 1)
            for item in items:
                self._sort(item)
        self.shell.executors.pause(is_paused=self.shell.output.is_full)

    def _sort(self, item: fleet_pb2.ReportItem) -> None:
        kind = item.WhichOneof("item")
        body = getattr(item, str(kind))
        key = getattr(body, "key", None)
        outcome = self.outcomes.get(key.task_id) if key is not None else None
        if outcome is None:
            self.others.append(item)
            return
        outcome.items.append(item)
        if kind == "ended":
            assert outcome.ended is None, "ended twice"
            outcome.ended = body
        elif kind == "returned":
            outcome.returned = body
        elif kind == "checkpoint":
            self.shell.tell((key.task_id, key.attempt), Kind.COMMITTED, body.checkpoint.step, True, "", "")


@contextlib.asynccontextmanager
async def machine(
    cpus: float = 2, gpus: tuple[str, ...] = (), template_code: str = "", *, cuda_checkpoint: bool = False
) -> AsyncIterator[Worker]:
    """A running machine; everything of it is gone afterwards. `template_code` runs in its template first."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    with tempfile.TemporaryDirectory() as folder:
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", template_code + _TEMPLATE, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,  # as of a terminal: who reads it waits for ever
            )
        worker = Worker(_boot_config(cpus, gpus, cuda_checkpoint=cuda_checkpoint), ours, process.pid)
        worker.folder = folder
        store = Path(folder) / "store"
        store.mkdir()
        told = {
            "machine_id": "m-1",
            "cluster_id": "test",
            "embedded": True,
            "store_path": str(store),
            "artefact_path": str(Path(folder) / "artefacts"),
            "host_id": host_id(),
        }
        try:
            worker.shell.start(told)
            worker.beat()
            yield worker
        finally:
            worker.shell.close()
            process.communicate(timeout=10)


def _boot_config(cpus: float, gpus: tuple[str, ...], **fields: Any) -> BootConfig:
    return BootConfig(
        coordinator_address="",
        ca_pem=b"",
        join_token="",
        machine_id=MachineId("m-1"),
        cluster_id=ClusterId("test"),
        cpus=cpus,
        gpus=gpus,
        embedded=True,
        **fields,
    )


def is_alive(pid: int) -> bool:
    """Whether the process runs; zombies do not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_gone(pid: int, timeout_s: float) -> bool:
    """Wait for a process that need not be ours to end."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], timeout_s)[0])
    finally:
        os.close(handle)
