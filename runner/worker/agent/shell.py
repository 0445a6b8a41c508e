"""Joins AgentMachine with executors and templates: their frames become its events, its commands become frames and signals.

No asyncio task per attempt, and no await between an event and its commands.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from runner.clock import Clock
from runner.objects import spill
from runner.rpc.phases import FIRST_TASK, TEMPLATE_READY
from runner.worker.agent import events as ev
from runner.worker.agent.events import ExitCause
from runner.worker.agent.executors import Executors, Handle
from runner.worker.agent.functions import Functions
from runner.worker.agent.machine import AgentMachine, AgentSettings
from runner.worker.agent.memory_watch import MemoryWatch, OomCounter
from runner.worker.agent.output import Output
from runner.worker.agent.sleep import AgentSleep
from runner.worker.agent.template_links import TemplateLinks
from runner.worker.agent.templates import Modules, user_part
from runner.worker.frames import INTERRUPTED, LEFT_CHILDREN, Frame, Kind, encode
from runner.worker.layers import layer_of
from runner.worker.process import exit_cause

if TYPE_CHECKING:
    from runner.providers.base import BootConfig
    from runner.worker.agent.transfers import Transfers

log = logging.getLogger(__name__)

EXIT_S = 2.5  # for templates to end what they forked
# A loop that was away for longer may have been suspended together with its lease.
GAP_HEARTBEATS = 2.0
GAP_S_MIN = 5.0
_SIGNALS = {ev.Signal.TERM: signal.SIGTERM, ev.Signal.KILL: signal.SIGKILL}


class AgentShell:
    """Everything of an agent but its connection."""

    def __init__(
        self,
        boot: BootConfig,
        clock: Clock,
        template: socket.socket,
        zygote: socket.socket | None,
        on_exit: Callable[[str], None],
        *,
        guard_share: float = 0.0,
    ) -> None:
        """`guard_share`: see MemoryWatch. `template`: the base template's control socket. `zygote`: where layers are asked for; None: at the base template."""
        self._boot = boot
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self.output = Output(boot.machine_id)
        self.functions = Functions(boot.gpus)
        self.on_gap: Callable[[], None] = lambda: None
        self._templates = TemplateLinks(self._loop, self, template, zygote)
        self.executors = Executors(self._loop, self, self._templates.spawn)
        # A process of its own (container, VM) has no life pipe, whatever its cluster is.
        self.is_leased = not boot.embedded or zygote is None
        settings = AgentSettings(
            boot.machine_id,
            cpus=boot.cpus,
            is_leased=self.is_leased,
            lost_after_s=boot.lost_after_s,
            destroy_after_s=boot.destroy_after_s,
            moves_cuda=boot.cuda_checkpoint,
        )
        self._machine = AgentMachine(settings)
        self._oom = OomCounter()
        self.sleep = AgentSleep(self.executors, self.output, self.handle)
        self._memory = MemoryWatch(self.handle, self.executors.by_number.values, guard_share=guard_share)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = float("inf")
        self._seen_s = clock.boottime_s()
        self._has_run = False
        self._unused: dict[Modules, str] = {}  # warnings about user templates, until somebody was told
        self._on_command = self._command_table()
        self._on_frame = self._frame_table()
        self._transfers: Transfers | None = None

    def _command_table(self) -> dict[type, Callable[[Any], None]]:
        return {
            ev.RunAttempt: self._run,
            ev.ReportStarted: self._report_started,
            ev.ReportEnded: self._report_ended,
            ev.SpawnExecutor: lambda each: self.executors.spawn(each.number, each.template),
            ev.InterruptExecutor: self._interrupt,
            ev.EndActor: lambda each: self._tell(each.number, encode(Kind.ACTOR_EXIT, each.serial)),
            ev.SignalGroup: lambda each: self._signal(each.number, _SIGNALS[each.signal], whole_group=True),
            ev.RetireExecutor: lambda each: self._tell(each.number, encode(Kind.EXIT)),
            ev.ResumeExecutor: lambda each: self._tell(each.number, encode(Kind.RESUME, each.serial)),
            ev.LoadLayer: lambda each: self._load_layer(each.modules),
            ev.MakeTemplate: self._make_template,
            ev.KillTemplate: lambda each: self._signal(each.number, signal.SIGKILL, whole_group=True),
            ev.EndTemplate: lambda each: self._templates.end(each.names),
            ev.TellTemplateUnused: self._tell_unused,
            ev.ReportReturned: lambda each: self.output.returned(each.key, each.reason),
            ev.ReportBlocked: lambda each: self.output.blocked(each.key),
            ev.ReportUnblocked: lambda each: self.output.unblocked(each.key),
            ev.ReportExecutorGone: lambda each: self._remove(each.number),
            ev.ExitAgent: lambda each: self._on_exit(each.reason),
            **self.sleep.commands(),
        }

    def _frame_table(self) -> dict[int, Callable[[Handle, Frame], None]]:
        return {
            Kind.ENDED: self._ended,
            Kind.READY: self._ready,
            Kind.BLOCKED: lambda handle, frame: self.handle(ev.ExecutorBlocked(handle.number, frame[1])),
            Kind.UNBLOCKED: lambda handle, frame: self.handle(ev.ExecutorUnblocked(handle.number, frame[1])),
            Kind.METRICS: self._metrics,
            Kind.CHECKPOINT: lambda handle, frame: self.output.checkpoint(handle, frame),
            Kind.SESSION: lambda handle, frame: self.output.relay(handle, frame[1]),
            Kind.STAGE: lambda handle, frame: self.handle(ev.StageReached(handle.number, frame[1], frame[2])),
            Kind.PHASE: lambda _, frame: self.output.mark_phase(frame[1], frame[2]),
            Kind.ITEMS: lambda handle, frame: self.output.items(handle, frame),
            Kind.ACTOR_READY: lambda handle, frame: self.output.actor_ready(handle, frame),
            Kind.ACTOR_OUT: lambda handle, frame: self.output.actor_output(handle, frame),
            **self.sleep.frames(),
        }

    # ---- the machine ----
    def handle(self, event: ev.Event) -> None:
        """Have the machine decide, and do what it says."""
        now_s = self._clock.boottime_s()
        if now_s - self._seen_s > max(GAP_S_MIN, GAP_HEARTBEATS * self._boot.heartbeat_s):
            log.warning("machine %s stood still for %.1f s", self._boot.machine_id, now_s - self._seen_s)
            self._seen_s = now_s
            self.handle(ev.ClockGapSeen())
            self.on_gap()
        for command in self._machine.handle(event, now_s):
            self._on_command[type(command)](command)
        due_s = self._machine.next_wakeup_s()
        if due_s is not None and due_s < self._timer_s:
            self._set_timer(due_s, now_s)

    def start(self, told: dict[str, Any], transfers: Transfers | None = None) -> None:
        """Registered: `told` is what every executor is told about the cluster.

        `transfers`: how files move when this machine shares none with the coordinator.
        """
        self.executors.settings |= told | {"is_apart": transfers is not None}
        if transfers is not None:
            self._transfers = transfers
            self._on_frame |= transfers.frames()
        self.handle(ev.Registered())
        self.preload(self._boot.preload)
        self._memory.start()

    def reseed(self) -> None:
        """This memory comes from a snapshot: templates draw new random numbers. Executors do so before their hooks."""
        for link in self._templates.by_names.values():
            link.send(Kind.RESEED)

    def beat(self) -> None:
        """Called every heartbeat."""
        self.handle(ev.Ticked())
        self._seen_s = self._clock.boottime_s()
        self._oom.look()

    def preload(self, modules: Iterable[str]) -> None:
        """Load a layer before anything needs it."""
        wanted = frozenset(modules)
        if wanted:
            self.handle(ev.LayerWanted(wanted | layer_of(wanted)))

    def tell(self, key: ev.Key, kind: Kind, *fields: Any) -> None:
        """Send the executor of this attempt a frame that begins with its serial; nothing when it is over."""
        for handle in self.executors.by_number.values():
            if handle.attempt is not None and handle.attempt.key == key:
                handle.link.send(encode(kind, handle.serial, *fields))

    def free_segment(self, path: str) -> None:
        """Remove a segment of the store, or a copy. The path is as some peer told it: nothing elsewhere is touched."""
        if self._transfers is not None:
            self._transfers.free(path)
            return
        if os.path.dirname(path) != self.executors.settings["store_path"]:
            log.error("%s is not in the store; left alone", path)
            return
        try:
            spill.remove(path)
        except OSError as error:
            log.debug("%s: %s", path, error)

    async def emptied(self) -> None:
        """Returns when nothing would be lost with this machine."""
        if self._transfers is not None:
            await self._transfers.emptied()

    def close(self) -> None:
        """Have the templates end everything that they forked, and wait until they have: EXIT_S at most."""
        self._templates.close(EXIT_S)
        for number in list(self.executors.by_number):
            self.executors.remove(number)

    def _set_timer(self, due_s: float, now_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = due_s
        self._timer = self._loop.call_later(max(0.0, due_s - now_s), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_s = float("inf")
        self.handle(ev.Ticked())

    # ---- commands about executors ----
    def _run(self, command: ev.RunAttempt) -> None:
        attempt = command.attempt
        handle = self.executors.by_number[command.number]
        handle.attempt, handle.serial, handle.next_index = attempt, command.serial, 1
        if not self._has_run:
            self._has_run = True
            self.output.phase(FIRST_TASK, self._clock.unix_s())
        warning = self._unused.pop(attempt.environment.layer, "") if self._unused else ""
        if warning:
            self.output.lines(handle, "stderr", [f"warning: {warning}"])
        frames = []
        if not handle.is_set_up:
            handle.is_set_up = True
            frames.append(self.executors.setup_frame(handle, attempt.environment))
        frames += [
            self.functions.packages[each]
            for each in attempt.environment.package_ids
            if each not in handle.sent and each in self.functions.packages
        ]
        function = self.functions.frames.get(attempt.function_id)
        if function is not None and attempt.function_id not in handle.sent:
            frames.append(function)
            handle.sent.update((attempt.function_id, *attempt.environment.package_ids))
        frames.append(encode(Kind.RUN, command.serial, attempt.payload.SerializeToString()))
        handle.link.send(b"".join(frames))
        if attempt.memory_bytes:
            self._memory.limited[handle.number] = handle

    def _report_started(self, command: ev.ReportStarted) -> None:
        self.output.started(command, self.executors.by_number[command.number])

    def _report_ended(self, command: ev.ReportEnded) -> None:
        handle = self.executors.by_number.get(command.number)
        if handle is not None and handle.attempt is not None:
            self.executors.finish_lines(handle)
            self.output.tell_dropped(handle)
            if self._transfers is not None:
                self._transfers.over(handle)
            handle.attempt = None
        self.output.ended(command, handle)
        if handle is not None:
            if self._transfers is not None:
                self._transfers.tell_kept(handle)
            self.output.let_go(handle)

    def _interrupt(self, command: ev.InterruptExecutor) -> None:
        self.executors.by_number[command.number].page.request(command.serial)
        self._signal(command.number, signal.SIGINT, whole_group=False)

    def _signal(self, number: int, signal_number: int, *, whole_group: bool) -> None:
        self._templates.signal(number, int(signal_number), whole_group=whole_group)

    def _tell(self, number: int, frame: bytes) -> None:
        handle = self.executors.by_number.get(number)
        if handle is not None:
            handle.link.send(frame)

    def _remove(self, number: int) -> None:
        handle = self.executors.remove(number)
        self._templates.exited(number)
        self._memory.limited.pop(number, None)
        if handle is not None:
            if self._transfers is not None:
                self._transfers.over(handle)
                self._transfers.tell_kept(handle)
            self.output.let_go(handle)
            self.output.executor_gone(handle.executor_id)

    # ---- what executors say ----
    def on_frames(self, handle: Handle, frames: list[Frame]) -> None:
        self.output.gather()
        try:
            for frame in frames:
                handler = self._on_frame.get(frame[0])
                if handler is not None:
                    handler(handle, frame)
        finally:
            self.output.let_out()
        if self.output.is_full:
            self.executors.pause(is_paused=True)

    def on_lines(self, handle: Handle, stream: str, lines: list[str]) -> None:
        self.output.lines(handle, stream, lines)

    def on_silent_end(self, handle: Handle, error: str) -> None:
        """Its socket ended and its template has said nothing: kill what is left, and take it as gone if nobody can tell."""
        if self.executors.by_number.get(handle.number) is not handle:
            return
        if error:
            log.error("executor %d: %s", handle.pid, error)
        if self._templates.can_reach(handle.number):
            self._signal(handle.number, signal.SIGKILL, whole_group=True)
        else:
            self._gone(handle, ExitCause(signal_number=9, signal_name="SIGKILL"))

    def _ready(self, handle: Handle, frame: Frame) -> None:
        handle.pid = frame[1]
        self.handle(ev.ExecutorReady(handle.number, handle.pid))

    def _metrics(self, handle: Handle, frame: Frame) -> None:
        self.executors.drain(handle)  # what was printed before comes before
        self.output.metrics(handle, frame)

    def _ended(self, handle: Handle, frame: Frame) -> None:
        flags = frame[3]
        self._memory.limited.pop(handle.number, None)
        self.handle(
            ev.ExecutorEnded(handle.number, frame[1], frame[2], bool(flags & INTERRUPTED), bool(flags & LEFT_CHILDREN))
        )
        if handle.attempt is not None and handle.serial == frame[1]:
            self.output.hold(handle)

    # ---- templates ----
    def _load_layer(self, modules: Modules) -> None:
        self._templates.load(modules, (self._boot.cluster_id, self._boot.machine_id))

    def _make_template(self, command: ev.MakeTemplate) -> None:
        frames = self.functions.making(command.names, self.executors.settings["store_path"])
        self._templates.make(command.number, command.names, command.parent, frames)

    def _tell_unused(self, command: ev.TellTemplateUnused) -> None:
        label = self.functions.template_label(command.names)
        self._unused[command.names] = text = (
            f"{label} is not used on machine {self._boot.machine_id}: {command.reason}. Each worker process makes the value"
            " for itself."
        )
        log.warning("%s", text)

    def on_template_frame(self, names: Modules, frame: Frame) -> None:
        kind = frame[0]
        if kind == Kind.EXITED:
            self._exited(frame[1], exit_cause(frame[2]))
        elif kind == Kind.SPAWN_FAILED:
            self.handle(ev.SpawnFailed(frame[1], frame[2]))
            self.executors.remove(frame[1])
            self._template_not_made(frame[1], frame[2])
        elif kind == Kind.READY:
            known = [code.name if (code := self.functions.templates.get(each)) else each for each in sorted(names)]
            self.output.phase("+".join([TEMPLATE_READY, *known]), self._clock.unix_s())
            if names:
                self.handle(ev.LayerReady(names))
        elif kind == Kind.RAISED:
            self.handle(ev.TemplateFailed(names, frame[1], frame[2]))
        elif kind == Kind.UNFIT:
            self.handle(ev.TemplateUnfit(names, frame[1]))

    def _template_not_made(self, number: int, text: str) -> None:
        names = self._templates.exited(number)
        if names is not None:
            label = self.functions.template_label(names)
            self.handle(ev.TemplateFailed(names, f"{label} could not be started: {text}", ""))

    def _exited(self, number: int, cause: ExitCause) -> None:
        handle = self.executors.by_number.get(number)
        if handle is not None:
            self._gone(handle, cause)
            return
        names = self._templates.exited(number)
        if names is not None:
            was_oom = cause.signal_number == signal.SIGKILL and self._oom.has_risen()
            self.handle(ev.TemplateExited(number, self.functions.template_label(names), cause, was_oom))

    def _gone(self, handle: Handle, cause: ExitCause) -> None:
        handle.link.read_rest()  # its last frames count: an attempt that ended was not killed
        was_oom = cause.signal_number == signal.SIGKILL and self._oom.has_risen()
        self.handle(ev.ExecutorExited(handle.number, cause, was_oom))

    def on_template_end(self, names: Modules) -> None:
        if not names:
            self._on_exit("its template ended")
            return
        log.warning("the template for %s ended", ", ".join(sorted(names)))
        if not user_part(names):
            self.handle(ev.LayerFailed(names))
        # Of a user template its parent tells how it ended; when that is gone, the kernel has ended it.
        for number in self._templates.out_of_reach():
            self._exited(number, ExitCause(signal_number=signal.SIGKILL, signal_name="SIGKILL"))
