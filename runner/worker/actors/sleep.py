"""An actor's part in a suspend of its machine: calls that come meanwhile are held, and hooks run between calls."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from runner import hooks
from runner.errors import UsageError
from runner.hooks import ResumeContext
from runner.worker.actors.board import Switchboard
from runner.worker.executor.channel import ExecutorSocket
from runner.worker.executor.sleep import Sleeper
from runner.worker.frames import Frame, Kind

if TYPE_CHECKING:
    from runner.worker.actors.calls import Call

_OURS = (Kind.SUSPEND, Kind.RESUMED)


class ActorSleep:
    """Belongs to the main thread, but for what `agent` and `sleeper` call."""

    def __init__(self, agent: ExecutorSocket, sleeper: Sleeper, board: Switchboard, serial: int) -> None:
        self._agent = agent
        self._sleeper = sleeper
        self._board = board
        self._serial = serial
        self._due: deque[Frame] = deque()  # SUSPEND and RESUMED
        self._held: deque[Call] = deque()  # came while a suspend waits: to begin when it is over
        self._told = 0  # the snapshot for which we have said that nothing runs
        self._is_in_call = False  # a call waits in `ready_to_snapshot`
        self._names: list[str] = []
        self.begin: Callable[[Call], None] = lambda _call: None  # a call that was held

    def open(self, instance: object) -> None:
        """The actor is made: its own hooks count, and frames about suspends come here."""
        self._names = hooks.register_methods(instance)
        for kind in _OURS:
            self._agent.on(kind, self._came)
        self._sleeper.on_change = self._board.wake

    def close(self) -> None:
        """The actor has ended."""
        self._sleeper.on_change = lambda: None
        for kind in _OURS:
            self._agent.off(kind)
        for name in self._names:
            hooks.unregister(name)

    @property
    def is_waited_for(self) -> bool:
        """Whether a suspend waits, or is under way: no call may begin."""
        return self._sleeper.snapshot != 0

    def hold(self, call: Call) -> None:
        """It begins when the suspend is over."""
        self._held.append(call)

    def take_back(self, call: Call) -> bool:
        """Have a call that is held never begin. False: it is not."""
        if call not in self._held:
            return False
        self._held.remove(call)
        return True

    def look(self) -> Frame | None:
        """Do what is due between two calls. A frame that is returned wants its hooks run: `run` or `run_async`, then look again."""
        if self._due:
            return self._due.popleft()
        if not self.is_waited_for:
            self._told = 0
            while self._held and not self.is_waited_for:
                self.begin(self._held.popleft())
        elif self._told != self._sleeper.snapshot and self._is_still:
            self._told = self._sleeper.snapshot
            self._sleeper.say_parked(self._serial)
        return None

    def run(self, frame: Frame) -> None:
        """Run the hooks that it asks for, in this thread."""
        self._sleeper.handle(frame)

    async def run_async(self, frame: Frame) -> None:
        """Run the hooks that it asks for, on the running loop."""
        await self._sleeper.handle_async(frame)

    def park(self, _serial: int) -> ResumeContext | None:
        """For the method that runs in the main thread: let a suspend that waits take place now; None when none does.

        Raises:
            UsageError: in another thread.
        """
        self._sleeper.check_thread()
        self._board.flush()
        self._board.poll(0)
        if not self.is_waited_for:
            return None
        self._is_in_call = True
        try:
            while True:
                if (frame := self.look()) is not None:
                    self.run(frame)
                elif not self._sleeper.snapshot:
                    return self._sleeper.context
                else:
                    self._board.flush()
                    self._board.poll(None)
        finally:
            self._is_in_call = False

    @staticmethod
    def refuse(_serial: int) -> ResumeContext | None:
        """`park` for actors with coroutines."""
        raise UsageError(
            "ready_to_snapshot() would block this actor's event loop. An actor with coroutines is ready whenever none of its calls"
            " runs; it need not call this."
        )

    @property
    def _is_still(self) -> bool:
        """Whether no call runs, or waits that came in time. In a call of a synchronous actor nothing else runs."""
        if self._is_in_call:
            return True
        calls = itertools.chain.from_iterable(channel.by_seq.values() for channel in self._board.channels())
        return all(call in self._held for call in calls)

    def _came(self, frame: Frame) -> None:
        """Called by whoever reads the agent's socket."""
        self._due.append(frame)
        self._board.wake()
