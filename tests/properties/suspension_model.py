"""What machines are to the model of suspends: memories that can be saved, and brought back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from runner.ids import TaskId


@dataclass
class Memory:
    """What is in a machine's memory: its agent. Saved and restored as a whole."""

    instance: str
    keys: int = 0
    generation: int = 0  # 0: has not registered
    asks_with: int = 0  # snapshot for which it has hung up; 0: it has not
    quieting: int = 0
    wakes_with: int = 0  # has registered for this one, its hooks have not run
    running: dict[tuple[TaskId, int], bool] = field(default_factory=dict)  # True: parked at a good moment

    def copy(self) -> Memory:
        return replace(self, running=dict(self.running))

    @property
    def full_id(self) -> str:
        return f"{self.instance}/{self.keys}"


@dataclass
class Machine:
    """As the provider has it."""

    live: Memory | None = None
    saved: Memory | None = None
