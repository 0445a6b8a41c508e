"""report and get_checkpoint inside tasks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import msgpack
import pytest

from runner.rpc.gen import types_pb2
from runner.worker.agent import output as agent_output
from tests.integration.worker.harness import machine

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def train(steps: int) -> Any:
    import runner

    resumed = runner.get_checkpoint()
    for step in range(0 if resumed is None else resumed["step"] + 1, steps):
        runner.report({"loss": 1.0 / (step + 1)}, step=step, checkpoint={"step": step})
    return resumed


async def test_a_checkpoint_is_on_disk_when_it_is_told_and_a_later_attempt_gets_it() -> None:
    async with machine() as worker:
        outcome = await worker.run(train, 3)
        assert outcome.value() is None
        assert outcome.kinds() == ["started", *["metrics", "checkpoint"] * 3, "ended"]
        last = outcome.items[-2].checkpoint.checkpoint
        assert (last.step, last.attempt, last.size_bytes) == (2, 1, Path(last.uri).stat().st_size)
        assert cloudpickle.loads(Path(last.uri).read_bytes()) == {"step": 2}
        again = await worker.run(train, 5, checkpoint=last)
        assert again.value() == {"step": 2}
        assert [item.metrics.step for item in again.items if item.WhichOneof("item") == "metrics"] == [3, 4]


async def test_a_checkpoint_that_was_changed_on_disk_is_refused() -> None:
    async with machine() as worker:
        last = (await worker.run(train, 1)).items[-2].checkpoint.checkpoint
        Path(last.uri).write_bytes(b"something else")
        failure = (await worker.run(train, 2, checkpoint=last)).failure
        assert failure.exception_type == "runner.errors.ObjectLostError"
        assert "was changed on disk" in failure.message


async def test_a_full_disk_is_a_typed_error() -> None:
    def fill() -> None:
        import resource

        import runner

        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        runner.report({"loss": 1}, checkpoint=bytes(100_000))

    async with machine() as worker:
        outcome = await worker.run(fill, max_calls=1)
        assert outcome.failure.kind == types_pb2.FAILURE_KIND_STORE_FULL
        assert "no room for the checkpoint of step 0" in outcome.failure.message
        assert "metrics" in outcome.kinds()


async def test_a_report_of_something_else_fails_in_user_code() -> None:
    def report() -> str:
        import runner

        try:
            runner.report({"loss": [1, 2]})
        except TypeError as error:
            return str(error)
        return "no error"

    async with machine() as worker:
        outcome = await worker.run(report)
        assert "metric 'loss' is a builtins.list" in outcome.value()
        assert "metrics" not in outcome.kinds()


async def test_report_blocks_while_nobody_takes_the_reports_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(agent_output, "BYTES_MAX", 100_000)

    def flood(path: str) -> None:
        import runner

        for step in range(5_000):
            runner.report({"text": "x" * 1_000}, step=step)
            if step % 100 == 0:
                Path(path).write_text(str(step))

    async with machine() as worker:
        worker.is_deaf = True
        progress = Path(worker.folder) / "progress"
        task = worker.start(flood, str(progress))
        await worker.until(lambda: worker.shell.output.is_full)
        buffered = len(worker.shell.output.buffer)
        assert buffered < 1_000
        worker.is_deaf = False
        worker.drain()
        outcome = await worker.ended(task)
        steps = [item.metrics.step for item in outcome.items if item.WhichOneof("item") == "metrics"]
        assert steps == list(range(5_000))
        assert msgpack.unpackb(outcome.items[1].metrics.values) == {"text": "x" * 1_000}
        assert os.path.exists(progress)
