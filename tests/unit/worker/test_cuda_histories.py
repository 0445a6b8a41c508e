"""The random histories of an agent, of one that moves CUDA memory around its suspends."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from runner.worker.agent import events as ev
from runner.worker.agent import suspend_words as words
from tests.unit.worker.test_agent_histories import AgentHistory


class CudaHistory(AgentHistory):
    moves_cuda = True

    def __init__(self) -> None:
        self.asked: words.MoveCuda | None = None
        self.moved: set[int] = set()  # executors that are not to use CUDA now
        super().__init__()

    def obey(self, command: ev.Command) -> None:
        match command:
            case words.MoveCuda(snapshot, numbers, is_after):
                assert snapshot == self.snapshot and self.asked is None and numbers
                assert not any(each.hooks for each in self.processes.values()), "hooks run while memory is moved"
                assert is_after or set(numbers) == set(self.processes)
                self.asked = command
                return
            case words.RunHooks(number, _, is_after):
                assert self.asked is None and number not in self.moved, "its hooks cannot use CUDA"
            case words.HangUp():
                assert set(self.processes) <= self.moved, "something of it is still on a GPU"
            case words.TellGoOn():
                able = {number for number, each in self.processes.items() if not each.is_doomed}
                assert not able & self.moved
        super().obey(command)

    @precondition(lambda self: not self.suspended)
    @rule()
    def get_ready(self) -> None:
        """All that must go well before memory is moved, which chance alone brings about too seldom."""
        self.suspend(interrupts=False)
        for number, process in list(self.processes.items()):
            if process.is_doomed:
                self.die(number)
            elif not process.is_ready:
                process.is_ready = True
                self.send(ev.ExecutorReady(number, 100 + number))
        for number, process in list(self.processes.items()):
            if process.attempt is not None and not process.is_blocked and not process.is_awake:
                process.is_parked = True
                self.send(words.ExecutorParked(number, process.serial, self.snapshot))
        if self.suspended == "quiet":
            self.prepare(late=False)
        for number, process in list(self.processes.items()):
            while process.hooks and not process.is_doomed:
                self.send(words.HooksRun(number, *process.hooks.popleft(), ""))

    @precondition(lambda self: self.asked is not None)
    @rule(data=st.data(), is_well=st.booleans())
    def move_cuda(self, data: Any, is_well: bool) -> None:
        assert self.asked is not None
        (snapshot, numbers, is_after), self.asked = self.asked, None
        stuck = () if is_well else tuple(data.draw(st.lists(st.sampled_from(numbers), unique=True)))
        self.moved = set(stuck) if is_after or not is_well else set(numbers)
        self.send(words.CudaMoved(snapshot, is_after, "" if is_well else "the driver burns", stuck))
        gone = self.suspended in ("failed", "prepared")
        assert gone or all(self.processes[each].is_doomed for each in stuck if each in self.processes)

    @rule(is_after=st.booleans())
    def say_again(self, is_after: bool) -> None:
        """What was not asked for, or is late, changes nothing."""
        if self.asked is None or self.asked.is_after != is_after:
            assert self.machine.handle(words.CudaMoved(self.snapshot, is_after, "late"), self.now_s) == []

    def end_suspend(self) -> None:
        for _ in range(4):
            if self.asked is not None:
                (snapshot, numbers, is_after), self.asked = self.asked, None
                self.moved = set() if is_after else set(numbers)
                self.send(words.CudaMoved(snapshot, is_after))
            super().end_suspend()


CudaHistory.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestCudaHistory = CudaHistory.TestCase
