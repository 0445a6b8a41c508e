"""The class that most tests of actors use."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

import runner


class Plain:
    """What most tests need; made remote in each, so that it travels by value."""

    def __init__(self, start: int = 0) -> None:
        self.total = start
        self.kept: list[Any] = []
        self.go = threading.Event()

    def add(self, amount: int = 1) -> int:
        self.total += amount
        return self.total

    def echo(self, value: Any) -> Any:
        return value

    def keep(self, value: Any) -> int:
        self.kept.append(value)
        return len(self.kept)

    def read(self) -> Any:
        return runner.get(self.kept[-1][0])

    def fail(self) -> None:
        raise KeyError("gone")

    def pid(self) -> int:
        return os.getpid()

    def wait_for_go(self) -> str:
        return "went" if self.go.wait(30) else "never"

    def set_go(self) -> None:
        self.go.set()

    def count(self, limit: int) -> Iterator[int]:
        yield from range(limit)

    def arrays(self, count: int) -> Iterator[Any]:
        for index in range(count):
            yield np.full(50_000, index)

    def count_and_fail(self) -> Iterator[int]:
        yield 1
        raise ValueError("after one")

    @runner.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return 1, 2
