"""Drives the pure world in real time: lets time pass, carries its commands to the processes, wakes who waits."""

from __future__ import annotations

import asyncio
from typing import Protocol

from runner.clock import Clock
from runner.flysim.answers import Answer
from runner.flysim.calls import Call
from runner.flysim.records import Command
from runner.flysim.world import World


class Processes(Protocol):
    """What carries out commands (runner.flysim.processes)."""

    def carry_out(self, command: Command) -> None:
        """Begin to do as told."""
        ...


class Driver:
    """For one event loop. After every change of the world somebody calls `pump`."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world = world
        self._clock = clock
        self._processes: Processes | None = None
        self._changed = asyncio.Event()
        self._seen = -1
        self._timer: asyncio.TimerHandle | None = None
        self._is_pumping = False

    def attach(self, processes: Processes) -> None:
        """From now on commands go there."""
        self._processes = processes

    def now_s(self) -> float:
        return self._clock.monotonic_s()

    def process_exited(self, machine_id: str, life: int, exit_code: int, number: int) -> None:
        """For the processes to call."""
        self.world.process_exited(machine_id, life, exit_code, number, self.now_s())
        self.pump()

    def pump(self) -> None:
        """Let time come, carry out commands until there are none, set the next alarm."""
        if self._is_pumping:  # an imagined process ended at once: the outer turn goes on
            return
        self._is_pumping = True
        try:
            self.world.advance(self.now_s())
            while commands := self.world.take_commands():
                for command in commands:
                    if self._processes is not None:
                        self._processes.carry_out(command)
        finally:
            self._is_pumping = False
        if self.world.cloud.changes != self._seen:
            self._seen = self.world.cloud.changes
            self._changed.set()
            self._changed = asyncio.Event()
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due_s = self.world.next_wakeup_s()
        delay_s = None if due_s is None else max(0.0, due_s - self.now_s())
        self._timer = None if delay_s is None else asyncio.get_running_loop().call_later(delay_s, self.pump)

    async def wait(self, call: Call) -> Answer:
        """The answer of a wait, when it comes. Raises ApiError."""
        until_s = self.now_s() + self.world.wait_timeout_s(call)
        while True:
            changed = self._changed
            is_over = self.now_s() >= until_s
            answer = self.world.poll_wait(call, self.now_s(), is_over=is_over)
            self.pump()
            if answer is not None:
                return answer
            try:
                async with asyncio.timeout(max(0.0, until_s - self.now_s())):
                    await changed.wait()
            except TimeoutError:
                continue

    def close(self) -> None:
        """No more alarms."""
        if self._timer is not None:
            self._timer.cancel()
