"""The agent's part in a suspend that is not a decision: frames to executors, words to the coordinator, CUDA memory, the clock, random state."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from runner.hooks import CANCELLED, ResumeContext
from runner.rpc.gen import fleet_pb2
from runner.worker.agent import suspend_words as words
from runner.worker.agent.cuda_moves import CudaMoves, Moved
from runner.worker.agent.executors import Executors, Handle
from runner.worker.agent.output import Output
from runner.worker.frames import Frame, Kind, encode

if TYPE_CHECKING:
    from runner.worker.agent.events import Event

log = logging.getLogger(__name__)

# A wall clock that is less wrong is left alone: the answer that tells of it was under way itself.
CLOCK_TOLERANCE_S = 1.0
_KINDS = {
    fleet_pb2.WAKE_KIND_RESUMED: "resumed",
    fleet_pb2.WAKE_KIND_COLD: "cold",
    fleet_pb2.WAKE_KIND_CANCELLED: CANCELLED,
}


class AgentSleep:
    """Belongs to the agent's shell."""

    def __init__(self, executors: Executors, output: Output, handle: Callable[[Event], None]) -> None:
        self._executors = executors
        self._output = output
        self._handle = handle
        self._context: dict[str, Any] = ResumeContext(CANCELLED).to_dict()
        self._generation = 0
        self._cuda = CudaMoves()
        self._moving: asyncio.Task[None] | None = None  # held: the loop holds tasks weakly
        self.leaving: asyncio.Future[int] = asyncio.get_running_loop().create_future()  # the snapshot to hang up for

    def asked(self, suspend: fleet_pb2.Suspend) -> None:
        """What the coordinator says."""
        if suspend.action == fleet_pb2.SUSPEND_ACTION_QUIET:
            self._handle(words.SuspendAsked(suspend.snapshot, suspend.interrupts))
        elif suspend.action == fleet_pb2.SUSPEND_ACTION_PREPARE:
            self._handle(words.PrepareAsked(suspend.snapshot, suspend.hooks_s))
        elif suspend.action == fleet_pb2.SUSPEND_ACTION_CALL_OFF:
            self._handle(words.SuspendCalledOff(suspend.snapshot))

    def commands(self) -> dict[type, Callable[[Any], None]]:
        """How the machine's commands about suspends are carried out."""
        report = self._output.suspend_step
        return {
            words.TellQuiet: lambda each: self._executors.broadcast(encode(Kind.QUIET, each.snapshot)),
            words.TellGoOn: lambda each: self._executors.broadcast(encode(Kind.GO_ON, each.snapshot)),
            words.RunHooks: self._run_hooks,
            words.MoveCuda: self._move_cuda,
            words.ReportQuiet: lambda each: report(each.snapshot, fleet_pb2.SUSPEND_PROGRESS_QUIET),
            words.ReportRefused: lambda each: report(each.snapshot, fleet_pb2.SUSPEND_PROGRESS_REFUSED, each.reason),
            words.HangUp: self._hang_up,
            words.ReportAwake: lambda each: self._output.awake(each.snapshot, each.failure),
        }

    def frames(self) -> dict[int, Callable[[Handle, Frame], None]]:
        """What of executors' frames is handled here."""
        return {
            Kind.PARKED: lambda handle, frame: self._handle(words.ExecutorParked(handle.number, frame[1], frame[2])),
            Kind.HOOKS_RUN: self._hooks_run,
        }

    def registered(self, reply: fleet_pb2.RegisterReply, *, owns_clock: bool) -> bool:
        """Take in what a registration says. True: this memory comes from a snapshot, so that random numbers must not repeat."""
        self._generation = reply.generation
        wake = reply.wake
        kind: Any = _KINDS.get(wake.kind, "cold")
        behind_s = set_clock(wake.now_unix_s, owns_clock=owns_clock) if reply.HasField("wake") else 0.0
        context = ResumeContext(kind, wake.slept_s, reply.generation, wake.snapshot, dict(wake.config), behind_s)
        self._context = context.to_dict()
        # For executors that are forked from a template from now on.
        self._executors.settings["cold"] = {
            "generation": reply.generation, "snapshot": wake.snapshot, "config": dict(wake.config),
        }  # fmt: skip
        self.leaving = asyncio.get_running_loop().create_future()
        return bool(wake.kind == fleet_pb2.WAKE_KIND_RESUMED)

    def _run_hooks(self, command: words.RunHooks) -> None:
        handle = self._executors.by_number[command.number]
        if not command.is_after:
            # Should one of them fail, this is what the others are told.
            cancelled = ResumeContext(CANCELLED, generation=self._generation, snapshot=command.snapshot)
            self._context = cancelled.to_dict()
            handle.link.send(encode(Kind.SUSPEND, command.snapshot))
        else:
            handle.link.send(encode(Kind.RESUMED, command.snapshot, self._context))

    def _hooks_run(self, handle: Handle, frame: Frame) -> None:
        """[kind, snapshot, is_after, failure]"""
        self._executors.drain(handle)  # what its hooks have printed goes before the last word of this generation
        attempt = handle.attempt
        who = f"{attempt.label} (process {handle.pid})" if attempt is not None else f"worker process {handle.pid}"
        failure = f"{who}: {frame[3]}" if frame[3] else ""
        self._handle(words.HooksRun(handle.number, frame[1], frame[2], failure))

    def _move_cuda(self, command: words.MoveCuda) -> None:
        pids = {number: self._executors.by_number[number].pid for number in command.numbers}
        moving = self._cuda.back(pids) if command.is_after else self._cuda.out(pids)
        self._moving = asyncio.create_task(self._tell_moved(command, moving), name="move CUDA memory")

    async def _tell_moved(self, command: words.MoveCuda, moving: Coroutine[Any, Any, Moved]) -> None:
        moved = await moving
        self._handle(words.CudaMoved(command.snapshot, command.is_after, moved.failure, moved.stuck))

    def _hang_up(self, command: words.HangUp) -> None:
        self._output.suspend_step(command.snapshot, fleet_pb2.SUSPEND_PROGRESS_PREPARED)
        if not self.leaving.done():
            self.leaving.set_result(command.snapshot)


def set_clock(now_unix_s: float, *, owns_clock: bool) -> float:
    """Set the wall clock right where it is ours and wrong; returns by how much it is still behind."""
    behind_s = now_unix_s - time.time()
    if abs(behind_s) <= CLOCK_TOLERANCE_S:
        return 0.0
    if owns_clock:
        try:
            time.clock_settime(time.CLOCK_REALTIME, now_unix_s)
        except OSError as error:
            log.warning("the wall clock is %.1f s behind and cannot be set: %s", behind_s, error)
        else:
            log.info("the wall clock was %.1f s behind; set", behind_s)
            return 0.0
    else:
        log.warning("the wall clock is %.1f s behind the coordinator's; it is the host's, and left alone", behind_s)
    return behind_s
