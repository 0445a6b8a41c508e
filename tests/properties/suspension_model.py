"""What machines are to the model of suspends: memories that can be saved, and brought back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from runner.core.values import CPU, UNIT, CoreConfig, PoolRecord, make_shape
from runner.ids import ClientId, FunctionId, TaskId

ONE = make_shape({CPU: UNIT})
CLIENT, F = ClientId("c-0"), FunctionId("f")
POOL = PoolRecord("default", ONE, 0, 2, 0, 5.0, suspends_idle=True, max_suspended_s=200.0)
SETTLED = {"succeeded", "failed", "cancelled"}
CONFIG = CoreConfig(
    lost_after_s=30.0,
    prepare_deadline_s=20.0,
    suspend_deadline_s=20.0,
    start_deadline_s=20.0,
    resume_deadline_s=20.0,
    boot_deadline_s=40.0,
)


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
