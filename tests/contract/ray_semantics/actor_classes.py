"""Classes of actors that several modules of tests use."""

from __future__ import annotations

import os
from typing import Any

from tests.contract.ray_semantics.adapter import system
from tests.contract.ray_semantics.signals import Gate


class Counter:
    """Counts from a start."""

    step = 1

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, by: int = 1) -> int:
        self.value += by
        return self.value

    def get(self) -> int:
        return self.value

    def fail(self, words: str = "the words") -> None:
        raise ValueError(words)

    def pid(self) -> int:
        return os.getpid()

    def wait(self, gate: Gate, value: Any = None) -> Any:
        gate.wait()
        return value

    def add_twice(self) -> int:
        self.add()
        return self.add()

    @property
    def doubled(self) -> int:
        return 2 * self.value

    @staticmethod
    def static(value: int) -> int:
        return value + 1

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__


class Child(Counter):
    def get(self) -> int:
        return super().get() + 1000


class Broken:
    def __init__(self, words: str = "no such actor") -> None:
        raise RuntimeError(words)

    def get(self) -> int:
        return 1


def counter(*args: Any, **options: Any) -> Any:
    made = system.remote(Counter)
    return (made.options(**options) if options else made).remote(*args)
