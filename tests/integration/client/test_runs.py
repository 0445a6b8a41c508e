"""Runs: what they report, print and keep reaches the client, once and in order."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.errors import BadOptionsError, UsageError
from tests.integration.helpers import wait_until

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(60)]


def train(epochs: int) -> str:
    for epoch in range(epochs):
        print(f"epoch {epoch}")
        runner.report({"loss": 1 / (epoch + 1), "ok": True}, step=epoch)
    return "done"


def test_events_of_several_runs() -> None:
    remote = runner.remote(train)
    refs = [remote.options(name=f"run-{index}").remote(4) for index in range(3)]
    events = list(runner.stream(refs))
    for index in range(3):
        mine = [event for event in events if event.name == f"run-{index}"]
        assert [event.step for event in mine if event.kind == "metrics"] == [0, 1, 2, 3]
        assert [event.text for event in mine if event.kind == "log"] == [f"epoch {step}" for step in range(4)]
        assert [event.state for event in mine if event.is_settled] == ["succeeded"]
        assert mine[-1].is_settled
        assert [event.attempt for event in mine if event.kind == "attempt"] == [1]
        seqs = [event.seq for event in mine]
        assert seqs == sorted(set(seqs))
    assert any(event.kind == "machine" and event.state == "ready" for event in events)
    # A late reader gets the same.
    late = list(runner.stream(refs))
    assert [e for e in late if e.kind == "metrics"] == [e for e in events if e.kind == "metrics"]


async def test_events_asynchronously_by_name_and_kind() -> None:
    ref = runner.remote(train).options(name="by-name").remote(3)
    seen = [event.values["loss"] async for event in runner.stream("by-name", kinds="metrics")]
    assert seen == [1, 1 / 2, 1 / 3]
    assert await ref == "done"


def test_wrong_streams() -> None:
    with pytest.raises(UsageError, match="no run called 'nobody'"):
        runner.stream("nobody")
    with pytest.raises(BadOptionsError, match="valid ones are state"):
        runner.stream("nobody", kinds="losses")
    with pytest.raises(UsageError, match="no task to watch"):
        runner.stream(runner.put(1))
    with pytest.raises(UsageError, match="empty list"):
        runner.stream([])


def test_leaving_a_stream_early() -> None:
    ref = runner.remote(train).options(name="left").remote(3)
    with runner.stream(ref) as stream:
        next(stream)
    assert list(stream) == []
    assert runner.get(ref, timeout=30) == "done"


def test_a_failed_run_says_why_in_its_last_event() -> None:
    @runner.remote(name="fails", max_retries=0)
    def fails() -> None:
        raise ValueError("bad data")

    events = list(runner.stream(fails.remote()))
    assert events[-1].state == "failed"
    assert "bad data" in events[-1].failure


def test_a_retried_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    mark = tmp_path / "died"

    @runner.remote(name="resumes", max_retries=1)
    def resumes() -> list[int]:
        state: Any = runner.get_checkpoint() or {"done": []}
        for epoch in range(len(state["done"]), 4):
            if epoch == 2 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            state["done"].append(epoch)
            runner.report({"epoch": epoch}, step=epoch, checkpoint=state)
        done: list[int] = state["done"]
        return done

    ref = resumes.remote()
    events = list(runner.stream(ref))
    assert runner.get(ref, timeout=30) == [0, 1, 2, 3]
    attempts = [(event.attempt, event.resumed_from_step) for event in events if event.kind == "attempt"]
    assert attempts[0] == (1, None)
    assert attempts[1][0] == 2
    assert attempts[1][1] in {0, 1}
    steps = [(event.attempt, event.step) for event in events if event.kind == "metrics"]
    assert [step for attempt, step in steps if attempt == 2][-1] == 3
    assert steps == sorted(steps)


def artefacts(cluster: Any, ref: Any) -> Path:
    """Where the checkpoints of the task behind `ref` lie."""
    return Path(cluster.state_dir) / "artefacts" / ref.id.rpartition(".")[0]


def test_a_step_reported_twice_keeps_the_later_checkpoint(cluster: Any) -> None:
    @runner.remote(name="twice", max_retries=1)
    def twice() -> Any:
        if runner.get_checkpoint() is None:
            for word in ("first", "second", "third"):
                runner.report({}, step=0, checkpoint=word)  # returns when the one before it is committed
            os.kill(os.getpid(), signal.SIGKILL)
        return runner.get_checkpoint()

    ref = twice.remote()
    assert runner.get(ref, timeout=30) in ("second", "third")
    wait_until(lambda: len(list(artefacts(cluster, ref).iterdir())) == 1, 10, "only the committed checkpoint is kept")


class _DiesInTheMiddle:
    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_what_was_never_committed_is_removed_with_the_attempt(cluster: Any) -> None:
    @runner.remote(name="dies-saving", max_retries=0)
    def dies(first: Any) -> None:
        runner.report({}, checkpoint=first)
        runner.report({}, checkpoint=[bytes(1 << 20), _DiesInTheMiddle()])

    without, committed = dies.remote(None), dies.remote("first")
    runner.wait([without, committed], num_returns=2, timeout=30)
    wait_until(lambda: not artefacts(cluster, without).exists(), 10, "the empty folder is gone")
    wait_until(lambda: not list(artefacts(cluster, committed).glob("*.tmp")), 10, "half a checkpoint is gone")
    # The second save waits for the first commit, which nothing takes back.
    assert len(list(artefacts(cluster, committed).iterdir())) == 1


def test_a_forgotten_task_keeps_no_files(cluster: Any) -> None:
    @runner.remote
    def saves() -> None:
        runner.report({}, step=1, checkpoint="x")

    ref = saves.remote()
    runner.get(ref, timeout=30)
    folder = artefacts(cluster, ref)
    assert folder.exists()
    del ref
    gc.collect()
    wait_until(lambda: not folder.exists(), 10, "the task's folder is gone")
