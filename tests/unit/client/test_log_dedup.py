"""Equal lines of many tasks are shown once, with a count."""

from __future__ import annotations

from runner.client.log_dedup import WINDOW_S, LogDedup


def feed(dedup: LogDedup, task: str, text: str, now_s: float, stream: str = "stdout") -> bool:
    return dedup.feed(task, f"run {task}", stream, text, now_s)


def test_64_equal_lines_are_one_and_a_count() -> None:
    dedup = LogDedup()
    shown = [feed(dedup, f"t-{number}", "downloading model", number / 100) for number in range(64)]
    assert shown == [True] + [False] * 63
    assert list(dedup.due(WINDOW_S - 0.1)) == []
    assert list(dedup.due(WINDOW_S)) == [
        ("stdout", "(run t-0) downloading model [63 more times, from 63 other tasks; `runner logs` has every line]")
    ]
    assert feed(dedup, "t-5", "downloading model", WINDOW_S + 1)
    assert list(dedup.flush()) == []


def test_what_differs_is_shown() -> None:
    dedup = LogDedup()
    assert feed(dedup, "t-1", "loss 0.5", 0)
    assert feed(dedup, "t-2", "loss 0.4", 0)
    assert feed(dedup, "t-2", "loss 0.5", 0, "stderr")
    assert feed(dedup, "t-1", "", 0)
    assert feed(dedup, "t-2", "", 0)
    assert dedup.next_due_s() == WINDOW_S


def test_a_task_may_repeat_itself() -> None:
    dedup = LogDedup()
    assert all(feed(dedup, "t-1", "waiting", second) for second in range(4))
    assert not feed(dedup, "t-2", "waiting", 4)
    assert not feed(dedup, "t-2", "waiting", 4)
    assert [line for _, line in dedup.flush()] == [
        "(run t-1) waiting [2 more times, from 1 other task; `runner logs` has every line]"
    ]
