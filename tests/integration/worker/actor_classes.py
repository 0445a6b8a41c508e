"""Classes that tests make actors of."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import cloudpickle

import runner

cloudpickle.register_pickle_by_value(sys.modules[__name__])


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

    def keep(self, refs: list[Any]) -> int:
        self.kept = refs
        return len(refs)

    def look_at(self, refs: list[Any]) -> int:
        return len(refs)

    def give(self) -> Any:
        return self.kept

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

    def who(self) -> tuple[Any, ...]:
        context = runner.get_runtime_context()
        return context.get_task_id(), context.get_actor_id(), context.get_actor_name(), context.task_name

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
