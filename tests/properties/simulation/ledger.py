"""What really happened on the machines, to hold against what the coordinator says."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.worker.agent.events import Key


@dataclass(slots=True)
class Ledger:
    """Written by simulated machines; each rule that one step can break is checked in that step."""

    fences: dict[Key, tuple[str, int]] = field(default_factory=dict)  # where each attempt ran
    running: dict[str, tuple[str, int]] = field(default_factory=dict)  # task -> machine and attempt
    successes: set[Key] = field(default_factory=set)
    metrics: dict[Key, int] = field(default_factory=dict)  # highest index reported
    broken: list[Exception] = field(default_factory=list)  # rules, as they were broken
    frozen: set[str] = field(default_factory=set)  # machines whose agent could not stop its executors in time

    def began(self, machine_id: str, generation: int, key: Key) -> None:
        """User code of an attempt starts."""
        before = self.fences.get(key)
        assert before is None, f"attempt {key} began on {machine_id} generation {generation} and before on {before}"
        self.fences[key] = (machine_id, generation)
        other = self.running.get(key[0])
        assert other is None or other[0] in self.frozen, f"attempt {key} began on {machine_id} while {other} still ran"
        self.running[key[0]] = (machine_id, key[1])

    def left(self, machine_id: str, generation: int, key: Key) -> None:
        """User code of an attempt runs no longer."""
        if self.running.get(key[0]) == (machine_id, key[1]):
            del self.running[key[0]]

    def succeeded(self, key: Key) -> None:
        self.successes.add(key)

    def reported(self, machine_id: str, generation: int, key: Key, index: int) -> None:
        """The user's `report` returned."""
        assert index == self.metrics.get(key, 0) + 1, f"{key} reported {index} after {self.metrics.get(key, 0)}"
        self.metrics[key] = index
