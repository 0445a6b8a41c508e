"""What really happened on the machines, to hold against what the coordinator says."""

from __future__ import annotations

from dataclasses import dataclass, field

from runner.worker.agent_events import Key


@dataclass(slots=True)
class Ledger:
    """Written by simulated machines; each rule that one step can break is checked in that step."""

    fences: set[tuple[Key, int]] = field(default_factory=set)
    running: dict[str, tuple[str, int]] = field(default_factory=dict)  # task -> machine and attempt
    successes: set[Key] = field(default_factory=set)
    metrics: dict[Key, int] = field(default_factory=dict)  # highest index reported
    overlaps: list[str] = field(default_factory=list)

    def began(self, machine_id: str, generation: int, key: Key) -> None:
        """User code of an attempt starts."""
        fence = (key, generation)
        assert (machine_id, *fence) not in self.fences, (
            f"attempt {key} ran twice on {machine_id} generation {generation}"
        )
        assert all(known[1] != key for known in self.fences), f"attempt {key} ran on two machines"
        self.fences.add((machine_id, key, generation))
        if key[0] in self.running:
            self.overlaps.append(f"attempt {key} began on {machine_id} while {self.running[key[0]]} still ran")
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
