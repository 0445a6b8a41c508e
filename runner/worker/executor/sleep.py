"""An executor's part in a suspend of its machine: it runs the hooks of its process, and says so."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable

from runner import hooks
from runner.errors import UsageError
from runner.hooks import CANCELLED, HookFailed, ResumeContext
from runner.worker.executor.channel import ExecutorSocket
from runner.worker.executor.interrupts import TaskInterrupt
from runner.worker.frames import Frame, Kind


class Sleeper:
    """One for each executor. QUIET and GO_ON are noted by whoever reads; the hooks run in the main thread, which calls `handle`."""

    def __init__(self, channel: ExecutorSocket) -> None:
        self._channel = channel
        self._main_thread = threading.get_ident()
        self._is_parked = False  # an attempt waits here in `park`
        self.snapshot = 0  # which a suspend waits for, or is under way; 0: none
        self.context: ResumeContext | None = None  # of the last resume
        self.is_idle = True  # no attempt has state here: random numbers may be anything
        self.before_answer: Callable[[], None] = lambda: (
            None
        )  # what the process has to say goes before it says that it is done
        self.on_change: Callable[[], None] = lambda: None  # after QUIET and GO_ON, from any thread
        channel.on(Kind.QUIET, self._quiet)
        channel.on(Kind.GO_ON, self._go_on)

    def handle(self, frame: Frame) -> bool:
        """Do what SUSPEND or RESUMED says, and answer. False: it is another frame."""
        if frame[0] == Kind.SUSPEND:
            self._answer(frame[1], self._failure(hooks.run_before), is_after=False)
        elif frame[0] == Kind.RESUMED:
            context = self.take_context(frame)
            self._answer(frame[1], self._failure(lambda: hooks.run_after(context)), is_after=True)
        else:
            return False
        return True

    async def handle_async(self, frame: Frame) -> None:
        """As `handle`, on the running loop."""
        is_after = frame[0] == Kind.RESUMED
        try:
            await (hooks.run_after_async(self.take_context(frame)) if is_after else hooks.run_before_async())
        except HookFailed as error:
            traceback.print_exception(error)
            self._answer(frame[1], str(error), is_after=is_after)
        else:
            self._answer(frame[1], "", is_after=is_after)

    def take_context(self, frame: Frame) -> ResumeContext:
        """What RESUMED says."""
        self.context = context = ResumeContext(**frame[2])
        if self.is_idle and context.kind != CANCELLED:
            hooks.reseed()
        return context

    def park(self, serial: int) -> ResumeContext | None:
        """For a task: let a suspend that waits take place now; None when none does.

        Raises:
            UsageError: called in another thread than the task's own.
        """
        self.check_thread()
        self._channel.read_ready()
        if not self.snapshot:
            return None
        self.say_parked(serial)
        self._is_parked = True
        others: list[Frame] = []
        try:
            while self.snapshot:
                frame = self._channel.next_frame()
                if not self.handle(frame) and frame[0] != Kind.GO_ON:
                    others.append(frame)
        finally:
            self._is_parked = False
            for frame in others:
                self._channel.put(frame)
        return self.context

    def check_thread(self) -> None:
        """Raises UsageError in all threads but the main one."""
        if threading.get_ident() != self._main_thread:
            raise UsageError(
                "ready_to_snapshot() works in the main thread only: a suspend needs all threads of the process to stand still."
                " An actor with max_concurrency over 1 is ready between its calls; it need not call this."
            )

    def say_parked(self, serial: int) -> None:
        """The attempt runs nothing until GO_ON."""
        self.context = ResumeContext(CANCELLED, snapshot=self.snapshot)  # until RESUMED says otherwise
        self.before_answer()
        self._channel.send(Kind.PARKED, serial, self.snapshot)

    def _failure(self, run: Callable[[], None]) -> str:
        """What became of the hooks; empty: all is well."""
        try:
            run()
        except TaskInterrupt:
            raise
        except HookFailed as error:
            traceback.print_exception(error)
            return str(error)
        except BaseException as error:  # sys.exit() in a hook must not end the process half way
            traceback.print_exception(error)
            return f"a hook raised {type(error).__name__}: {error}"
        return ""

    def _answer(self, snapshot: int, failure: str, *, is_after: bool) -> None:
        self.before_answer()
        self._channel.send(Kind.HOOKS_RUN, snapshot, is_after, failure)

    # ---- called by whoever reads ----
    def _quiet(self, frame: Frame) -> None:
        self.snapshot = frame[1]
        self.on_change()

    def _go_on(self, frame: Frame) -> None:
        if frame[1] != self.snapshot:
            return
        self.snapshot = 0
        if self._is_parked:
            self._channel.put(frame)  # ends its wait
        self.on_change()
