"""What tests run in executors: classes that they make actors of, and functions that take their time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import cloudpickle

import runner

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def wait_for_file(path: str) -> None:
    """Until it is there."""
    while not os.path.exists(path):
        time.sleep(0.002)


def meet(mine: str, other: str) -> None:
    """Return when the other one is here, too: each has an executor of its own then."""
    open(mine, "w").close()
    wait_for_file(other)


def until_suspended() -> runner.ResumeContext:
    """Ask for a snapshot until there was one."""
    while (context := runner.ready_to_snapshot()) is None:
        time.sleep(0.002)
    return context


class Waiting:
    """With a coroutine that waits."""

    async def wait_deaf(self, began: str, path: str) -> None:
        open(began, "w").close()
        while not os.path.exists(path):
            await asyncio.sleep(0.002)


class Counter:
    """Everything that a plain class can do."""

    def __init__(self, start: int = 0, flag: str = "") -> None:
        self.count = start
        self.flag = flag
        self.kept: Any = None
        self.was_cancelled = False

    def add(self, n: int = 1) -> int:
        self.count += n
        return self.count

    def pair(self) -> tuple[int, int]:
        return 1, 2

    def fail(self) -> None:
        raise ValueError("as asked")

    def large(self) -> bytes:
        return bytes(300_000)

    def use_up_descriptors(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        with contextlib.suppress(OSError):
            while True:
                os.open(os.devnull, os.O_RDONLY)

    def keep(self, refs: list[Any]) -> int:
        self.kept = refs
        return len(refs)

    def look_at(self, refs: list[Any]) -> int:
        return len(refs)

    def give(self) -> Any:
        return self.kept

    def give_away(self) -> Any:
        kept, self.kept = self.kept, None
        return kept

    def value_of(self, value: Any) -> Any:
        return value

    def wait_for(self, path: str) -> bool:
        """Until the file is there, or the call is cancelled."""
        while not os.path.exists(path):
            if runner.get_runtime_context().is_canceled():
                self.was_cancelled = True
                return False
            time.sleep(0.002)
        return True

    def wait_deaf(self, began: str, path: str) -> None:
        """Until the file is there, whatever comes meanwhile."""
        open(began, "w").close()
        while not os.path.exists(path):
            time.sleep(0.002)

    def blob(self) -> bytes:
        self.count += 1
        return bytes(90_000)

    def submit_and_wait(self) -> bool:
        """Until it is cancelled; what it has submitted is to be cancelled with it."""
        self.kept = runner.remote(len).remote(())
        return self.wait_for("/nowhere")

    def who(self) -> tuple[Any, ...]:
        context = runner.get_runtime_context()
        return context.get_task_id(), context.get_actor_id(), context.get_actor_name(), context.task_name

    def report(self) -> None:
        runner.report({"loss": 0.5}, step=3)

    def leave(self) -> None:
        try:
            runner.exit_actor()
        except Exception:
            self.count = -1

    def sys_exit(self, code: int) -> None:
        sys.exit(code)

    def numbers(self, n: int) -> Iterator[int]:
        try:
            for index in range(n):
                self.count += 1
                yield index
        except GeneratorExit:
            self.count = -1
            raise

    def broken(self) -> Iterator[int]:
        yield 0
        raise ValueError("after the first")

    @runner.enter
    def entered(self) -> None:
        self.count += 100

    @runner.exit
    def leaving(self) -> None:
        if self.flag:
            with open(self.flag, "a") as file:
                file.write("exit ")


class Threads:
    """Methods that wait for each other."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)
        self.gate = threading.Event()

    def meet(self) -> str | None:
        self.barrier.wait(10)
        return runner.get_runtime_context().get_task_id()

    def hold(self) -> bool:
        return self.gate.wait(10)

    def let(self) -> None:
        self.gate.set()

    def until_cancelled(self) -> bool:
        self.barrier.wait(10)
        while not runner.get_runtime_context().is_canceled():
            time.sleep(0.002)
        return True

    def meets(self) -> int:
        """How many wait for somebody."""
        return self.barrier.n_waiting

    def quick(self) -> str:
        return threading.current_thread().name

    def numbers(self, n: int) -> Iterator[int]:
        yield from range(n)


class Coroutines:
    """Everything that a class with coroutines can do."""

    def __init__(self, flag: str = "") -> None:
        self.loop = asyncio.get_running_loop()
        self.flag = flag
        self.gate = asyncio.Event()
        self.seen: list[Any] = []

    async def wait(self) -> str | None:
        await self.gate.wait()
        return runner.get_runtime_context().get_task_id()

    def let(self) -> bool:
        self.gate.set()
        return asyncio.get_running_loop() is self.loop

    async def note(self, value: Any) -> list[Any]:
        self.seen.append(value)
        return list(self.seen)

    async def value_of(self, value: Any) -> Any:
        return value

    async def for_ever(self) -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise

    async def numbers(self, n: int) -> AsyncIterator[int]:
        try:
            for index in range(n):
                yield index
        except GeneratorExit:
            self.seen.append("closed")
            raise

    async def one_and_wait(self) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(1000)
        finally:
            self.seen.append("ended")

    def plain_numbers(self, n: int) -> Iterator[int]:
        yield from range(n)

    async def blocking_get(self, refs: list[Any]) -> Any:
        return runner.get(refs[0])

    async def large(self) -> bytes:
        return bytes(300_000)

    async def keep(self, refs: list[Any]) -> None:
        self.seen.append(refs)

    async def leave(self) -> None:
        runner.exit_actor()

    @runner.enter
    async def entered(self) -> None:
        await asyncio.sleep(0)
        self.seen.append("entered")

    @runner.exit
    async def leaving(self) -> None:
        await asyncio.sleep(0)
        if self.flag:
            with open(self.flag, "a") as file:
                file.write(f"{self.seen}")


class Sleepy:
    """With coroutines: it hears of a suspend while a call runs, and holds the next one."""

    async def add(self) -> int:
        return 1

    async def hold(self, gate: str) -> None:
        Path(f"{gate}.begun").touch()
        while not os.path.exists(gate):
            await asyncio.sleep(0.01)
