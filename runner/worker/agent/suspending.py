"""How far a suspend of this machine has come, and what comes next. Pure.

The coordinator says how it goes on until the agent has hung up; from then on the agent does. Whatever the coordinator says about
another snapshot than the one under way, or twice, changes nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping

from runner.errors import InternalError
from runner.worker.agent import suspend_words as words


class Stage(enum.Enum):
    """Where a suspend is."""

    NONE = "the machine works"
    QUIETING = "waits until nothing runs"
    QUIET = "nothing runs, and the coordinator knows"
    PREPARING = "hooks run before the suspend"
    MOVING = "CUDA memory is moved to the host's"
    UNDOING = "one of them failed: hooks run as after it"
    LEAVING = "the last reports go"
    ASLEEP = "every connection is closed; suspended, or about to be, or just back"
    RETURNING = "registered again: CUDA memory is moved back"
    WAKING = "registered again: hooks run after the resume"
    FAILED = "they failed: the machine waits for its end"


TRANSITIONS: Mapping[Stage, frozenset[Stage]] = {
    Stage.NONE: frozenset({Stage.QUIETING}),
    Stage.QUIETING: frozenset({Stage.QUIETING, Stage.QUIET, Stage.NONE}),
    Stage.QUIET: frozenset({Stage.QUIETING, Stage.PREPARING, Stage.NONE}),
    Stage.PREPARING: frozenset({Stage.UNDOING, Stage.MOVING, Stage.LEAVING}),
    Stage.MOVING: frozenset({Stage.UNDOING, Stage.LEAVING}),
    Stage.UNDOING: frozenset({Stage.NONE}),
    Stage.LEAVING: frozenset({Stage.ASLEEP}),
    Stage.ASLEEP: frozenset({Stage.RETURNING, Stage.WAKING}),
    Stage.RETURNING: frozenset({Stage.WAKING, Stage.FAILED}),
    Stage.WAKING: frozenset({Stage.NONE, Stage.FAILED}),
    Stage.FAILED: frozenset(),
}
_WITH_HOOKS = frozenset({Stage.PREPARING, Stage.UNDOING, Stage.WAKING})
# No lease runs, no time limit: nobody knows how long it will have been.
_AWAY = frozenset({Stage.LEAVING, Stage.ASLEEP})


class Suspending:
    """Belongs to the agent's machine, which tells it what happens on executors."""

    def __init__(
        self,
        emit: Callable[[words.SuspendCommand], None],
        set_timer: Callable[[float, int], None],
        give_up: Callable[[int, str], None],
        *,
        moves_cuda: bool = False,
    ) -> None:
        """`set_timer(after_s, token)` has `timed_out(token)` called. `give_up(number, why)` ends an executor that cannot go on."""
        self._emit = emit
        self._set_timer = set_timer
        self._give_up = give_up
        self._moves_cuda = moves_cuda
        self.stage = Stage.NONE
        self.snapshot = 0  # of the newest suspend
        self._prepare_s: float | None = None  # it is to be prepared as soon as it is quiet: the time limit of the hooks
        self._hooks_s = 0.0
        self._asked: list[int] = []  # executors that were told to run hooks
        self._waiting: set[int] = set()  # those of them that have not answered
        self._failure = ""
        self._refusal = ""  # what is told once all is undone
        self._token = 0  # of the one timer that counts

    @property
    def is_active(self) -> bool:
        """Nothing new may start."""
        return self.stage is not Stage.NONE

    @property
    def is_away(self) -> bool:
        """Nobody is spoken with: no lease runs, and no time limit."""
        return self.stage in _AWAY

    def is_waiting_for_quiet(self, snapshot: int) -> bool:
        """Whether something still runs that this suspend waits for."""
        return self.stage is Stage.QUIETING and self.snapshot == snapshot

    # ---- what the coordinator says ----
    def begin(self, snapshot: int) -> bool:
        """A suspend waits for a quiet moment. False: it is an old one, or the machine cannot turn back now."""
        if snapshot <= self.snapshot or self.stage not in (Stage.NONE, Stage.QUIETING, Stage.QUIET):
            return False
        self.snapshot = snapshot
        self._prepare_s = None
        self._move(Stage.QUIETING)
        self._emit(words.TellQuiet(snapshot))
        return True

    def prepare(self, event: words.PrepareAsked) -> None:
        """The hooks may run as soon as nothing does."""
        if event.snapshot == self.snapshot and self.stage is Stage.QUIET:
            self._prepare_s = event.hooks_s

    def call_off(self, snapshot: int) -> None:
        """Go on as if nothing had been."""
        if snapshot == self.snapshot and self.stage in (Stage.QUIETING, Stage.QUIET):
            self._go_on()

    # ---- what happens here ----
    def look(self, *, is_quiet: bool, executors: Iterable[int]) -> None:
        """Something may have changed. `is_quiet`: nothing runs, begins or ends on any of `executors`."""
        if self.stage is Stage.QUIETING and is_quiet:
            self._move(Stage.QUIET)
            self._emit(words.ReportQuiet(self.snapshot))
        elif self.stage is Stage.QUIET and is_quiet and self._prepare_s is not None:
            self._move(Stage.PREPARING)
            self._run_hooks(list(executors), self._prepare_s, is_after=False)

    def hooks_run(self, event: words.HooksRun) -> None:
        """An executor has answered."""
        is_after = self.stage is not Stage.PREPARING
        if event.snapshot == self.snapshot and event.is_after == is_after and event.number in self._waiting:
            self._answered(event.number, event.failure)

    def executor_gone(self, number: int, pid: int) -> None:
        """Its process has ended."""
        if number in self._asked:
            self._asked.remove(number)
        if number in self._waiting:
            self._answered(number, f"worker process {pid} ended while its hooks ran")

    def timed_out(self, token: int) -> None:
        """The hooks' time is over."""
        if token != self._token or self.stage not in _WITH_HOOKS or not self._waiting:
            return
        late, self._waiting = sorted(self._waiting), set()
        if self.stage is Stage.UNDOING:  # it had the time of both its hooks, and nobody knows what state it is in
            for number in late:
                self._give_up(number, f"its after_resume hooks took longer than {self._hooks_s:g} s")
        else:
            which = "before_suspend" if self.stage is Stage.PREPARING else "after_resume"
            self._failure = self._failure or (
                f"the {which} hooks of {len(late)} worker processes took longer than {self._hooks_s:g} s; "
                f"make them quicker, or give them more with RUNNER_SUSPEND_HOOKS_S where the coordinator is started"
            )
        self._all_answered()

    def hung_up(self) -> None:
        """Every connection is closed."""
        if self.stage is Stage.LEAVING:
            self._move(Stage.ASLEEP)

    def awoke(self, hooks_s: float, executors: Iterable[int]) -> None:
        """Registered again."""
        if self.stage is not Stage.ASLEEP:
            return
        self._asked, self._hooks_s = list(executors), hooks_s
        if self._moves_cuda and self._asked:
            self._move(Stage.RETURNING)
            self._emit(words.MoveCuda(self.snapshot, tuple(self._asked), is_after=True))
        else:
            self._wake()

    def cuda_moved(self, event: words.CudaMoved) -> None:
        """CUDA memory is where it was to be moved, or is not."""
        if event.snapshot != self.snapshot or self.stage is not (Stage.RETURNING if event.is_after else Stage.MOVING):
            return
        self._failure = event.failure
        if event.is_after:
            self._fail() if event.failure else self._wake()
        elif event.failure:
            for number in event.stuck:
                self._give_up(number, event.failure)
            self._asked = [number for number in self._asked if number not in event.stuck]
            self._undo()
        else:
            self._leave()

    # ---- hooks ----
    def _run_hooks(self, numbers: list[int], hooks_s: float, *, is_after: bool) -> None:
        self._hooks_s, self._failure = hooks_s, ""
        self._asked, self._waiting = list(numbers), set(numbers)
        for number in numbers:
            self._emit(words.RunHooks(number, self.snapshot, is_after))
        self._token += 1
        self._set_timer(hooks_s, self._token)
        if not numbers:
            self._all_answered()

    def _answered(self, number: int, failure: str) -> None:
        self._waiting.discard(number)
        if failure and self.stage is Stage.UNDOING:
            self._give_up(number, failure)
        else:
            self._failure = self._failure or failure
        # One failure before the suspend is enough, but who has begun must have ended before all is undone.
        if not self._waiting:
            self._all_answered()

    def _all_answered(self) -> None:
        if self.stage is Stage.PREPARING:
            if self._failure:
                self._undo()
            elif self._moves_cuda and self._asked:
                # After the hooks: what they have brought to host memory themselves need not be moved.
                self._move(Stage.MOVING)
                self._emit(words.MoveCuda(self.snapshot, tuple(self._asked), is_after=False))
            else:
                self._leave()
        elif self.stage is Stage.UNDOING:
            self._emit(words.ReportRefused(self.snapshot, self._refusal))
            self._go_on()
        elif self._failure:
            self._fail()
        else:
            self._emit(words.ReportAwake(self.snapshot, ""))
            self._go_on()

    def _undo(self) -> None:
        self._refusal = self._failure
        self._move(Stage.UNDOING)
        self._run_hooks(self._asked, self._hooks_s, is_after=True)

    def _leave(self) -> None:
        self._move(Stage.LEAVING)
        self._emit(words.HangUp(self.snapshot))

    def _wake(self) -> None:
        self._move(Stage.WAKING)
        self._run_hooks(self._asked, self._hooks_s, is_after=True)

    def _fail(self) -> None:
        self._move(Stage.FAILED)
        self._emit(words.ReportAwake(self.snapshot, self._failure))

    def _go_on(self) -> None:
        self._asked, self._waiting = [], set()
        self._move(Stage.NONE)
        self._emit(words.TellGoOn(self.snapshot))

    def _move(self, to: Stage) -> None:
        if to not in TRANSITIONS[self.stage]:
            raise InternalError(f"suspend {self.snapshot}: {self.stage.name} -> {to.name} is not a move")
        self.stage = to
