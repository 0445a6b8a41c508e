"""Equal lines of many tasks, shown once with a count. Pure: the caller says what time it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

WINDOW_S = 5.0
_SHOWN_MAX = 10_000  # different lines remembered at a time


@dataclass(slots=True)
class _Shown:
    """A line that was printed, and who has written the same since."""

    first: str  # the task that was shown
    label: str
    due_s: float
    others: set[str] = field(default_factory=set)
    count: int = 0


class LogDedup:
    """Decides what is printed. A task's own repeats are always shown: only what others have just said is counted."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], _Shown] = {}  # by stream and text, oldest first

    def feed(self, task_id: str, label: str, stream: str, text: str, now_s: float) -> bool:
        """Whether this line is to be printed now; else it is counted."""
        shown = self._shown.get((stream, text))
        if shown is None:
            if text.strip() and len(self._shown) < _SHOWN_MAX:
                self._shown[stream, text] = _Shown(task_id, label, now_s + WINDOW_S)
            return True
        if shown.first == task_id:
            return True
        shown.others.add(task_id)
        shown.count += 1
        return False

    def next_due_s(self) -> float | None:
        """When `due` has something to do."""
        return next(iter(self._shown.values())).due_s if self._shown else None

    def due(self, now_s: float) -> Iterator[tuple[str, str]]:
        """(stream, line) of each count that is complete; a line that comes after that is shown again."""
        while self._shown:
            key, shown = next(iter(self._shown.items()))
            if shown.due_s > now_s:
                return
            del self._shown[key]
            if shown.count:
                yield key[0], told(shown.label, key[1], shown.count, len(shown.others))

    def flush(self) -> Iterator[tuple[str, str]]:
        """All counts, at the end."""
        return self.due(float("inf"))


def told(label: str, text: str, count: int, tasks: int) -> str:
    """How a count is printed."""
    times = "once more" if count == 1 else f"{count} more times"
    return f"({label}) {text} [{times}, from {tasks} other {'task' if tasks == 1 else 'tasks'}; `runner logs` has every line]"
