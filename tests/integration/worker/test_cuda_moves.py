"""CUDA memory around a suspend of one machine: the agent and its executors are real, `cuda-checkpoint` is a stand-in.

Without a GPU nobody has the driver's device open: a file takes its place. The last test has a real GPU, or is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import runner
from runner.core.values import CPU, GPU, UNIT
from runner.rpc.gen import fleet_pb2
from runner.worker.agent.cuda_moves import CudaMoves
from runner.worker.cuda_checkpoint import CudaCheckpoint
from tests.integration.helpers import until
from tests.integration.worker.actor_classes import meet, until_suspended
from tests.integration.worker.conftest import Install
from tests.integration.worker.harness import machine
from tests.integration.worker.test_suspend_executors import Suspend, note

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Who has it open counts as one that uses CUDA."""
    path = tmp_path / "nvidia-uvm"
    path.touch()
    monkeypatch.setattr("runner.worker.process.CUDA_DEVICE", str(path))
    return str(path)


def use_cuda(device: str, told: str) -> int:
    """As torch does it: open for as long as the process lives. Hooks tell where the calls are noted."""
    import builtins

    builtins.kept = open(device)  # type: ignore[attr-defined]
    runner.before_suspend(lambda: note(told, "before"))

    @runner.after_resume
    def after(context: runner.ResumeContext) -> None:
        note(told, context.kind)

    return os.getpid()


def use_cuda_with_the_other(device: str, told: str, *places: str) -> int:
    meet(*places)
    return use_cuda(device, told)


@pytest.mark.parametrize(
    ("kind", "told"), [(fleet_pb2.WAKE_KIND_RESUMED, "resumed"), (fleet_pb2.WAKE_KIND_CANCELLED, "cancelled")]
)
async def test_memory_moves_after_the_hooks_and_back_before_them(
    cuda_checkpoint: Install, device: str, kind: fleet_pb2.WakeKind, told: str
) -> None:
    calls = cuda_checkpoint("")
    async with machine(cpus=1, cuda_checkpoint=True) as worker:
        pid = (await worker.run(use_cuda, device, str(calls))).value()
        suspend = Suspend(worker)
        await suspend.quiet()
        await suspend.prepare()
        assert calls.read_text().splitlines() == ["before", f"--toggle --pid {pid}"]
        assert await suspend.wake(kind) == ""
        assert calls.read_text().splitlines()[2:] == [f"--toggle --pid {pid}", told]
        assert (await worker.run(len, (1, 2))).value() == 2


async def test_the_agent_is_not_held_up(cuda_checkpoint: Install, device: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    calls = cuda_checkpoint(f"open({str(gate)!r}).close()")
    async with machine(cpus=1, cuda_checkpoint=True) as worker:
        await worker.run(use_cuda, device, str(calls))
        suspend = Suspend(worker)
        await suspend.quiet()
        suspend.say(fleet_pb2.SUSPEND_ACTION_PREPARE)
        # Both run in this loop: that it comes to look shows that the agent does not wait for the program's end.
        await until(lambda: "--toggle" in calls.read_text(), 15.0, "the program to be called")
        assert [each.progress for each in suspend.steps()] == [fleet_pb2.SUSPEND_PROGRESS_QUIET]
        gate.write_text("")  # as soon as somebody reads it
        await suspend.step(fleet_pb2.SUSPEND_PROGRESS_PREPARED)


async def test_a_failure_before_refuses_and_what_was_moved_is_moved_back(
    cuda_checkpoint: Install, device: str, tmp_path: Path
) -> None:
    # Whoever comes second.
    calls = cuda_checkpoint(
        "pids = [each.split()[-1] for each in calls if '--pid' in each]\n"
        "if pids[-1] != pids[0]: print('out of host memory'); sys.exit(1)"
    )
    places = str(tmp_path / "a"), str(tmp_path / "b")
    async with machine(cpus=2, cuda_checkpoint=True) as worker:
        both = [worker.start(use_cuda_with_the_other, device, str(calls), *each) for each in (places, places[::-1])]
        pids = [(await worker.ended(each)).value() for each in both]
        suspend = Suspend(worker)
        await suspend.quiet()
        reason = await suspend.refused()
        lines = calls.read_text().splitlines()
        toggled = [int(line.split()[-1]) for line in lines if "--pid" in line]
        good, bad = toggled[0], toggled[1]
        assert {good, bad} == set(pids) and toggled == [good, bad, good]
        assert lines == ["before"] * 2 + lines[2:5] + ["cancelled"] * 2
        assert (
            f"CUDA memory could not be moved to host memory: cuda-checkpoint --toggle for process {bad} gave status 1"
            in reason
        )
        assert "out of host memory" in reason
        assert (await worker.run(len, (1, 2))).value() == 2


async def test_a_failure_after_is_a_failure_of_the_wake_and_no_hook_runs(cuda_checkpoint: Install, device: str) -> None:
    calls = cuda_checkpoint(
        "if sum('--pid' in each for each in calls) > 1: print('no such device: GPU-1'); sys.exit(1)"
    )
    async with machine(cpus=1, cuda_checkpoint=True) as worker:
        pid = (await worker.run(use_cuda, device, str(calls))).value()
        suspend = Suspend(worker)
        await suspend.quiet()
        await suspend.prepare()
        failure = await suspend.wake()
        assert failure.startswith("CUDA memory could not be moved back to its GPU: cuda-checkpoint --toggle")
        assert f"process {pid}" in failure and "no such device: GPU-1" in failure
        assert "resumed" not in calls.read_text()
        assert (await worker.ended(worker.start(len, ()))).returned is not None


async def test_without_the_option_and_without_cuda_nothing_is_called(cuda_checkpoint: Install, device: str) -> None:
    calls = cuda_checkpoint("")
    for is_on, opened in ((False, device), (True, "/dev/null")):
        async with machine(cpus=1, cuda_checkpoint=is_on) as worker:
            await worker.run(use_cuda, opened, str(calls))
            await Suspend(worker).whole()
    assert "--toggle" not in calls.read_text()


async def test_without_the_program_the_machine_sleeps_as_without_the_option(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = tmp_path / "told"
    async with machine(cpus=1, cuda_checkpoint=True) as worker:
        await worker.run(use_cuda, device, str(told))
        await Suspend(worker).whole()
        await Suspend(worker, 2).whole()
    assert told.read_text().splitlines() == ["before", "resumed"] * 2
    assert caplog.text.count("cuda-checkpoint is not on PATH") == 1, "it is said once"


async def test_templates_are_left_alone(cuda_checkpoint: Install, device: str) -> None:
    calls = cuda_checkpoint("")
    opens = f"import builtins\nbuiltins.kept_by_template = open({device!r})\n"
    async with machine(cpus=1, cuda_checkpoint=True, template_code=opens) as worker:
        pid = (await worker.run(use_cuda, device, str(calls))).value()
        await Suspend(worker).whole()
        toggled = {int(line.split()[-1]) for line in calls.read_text().splitlines() if "--pid" in line}
        assert worker.template_pid != pid and toggled == {pid}


# ---- without a machine: processes that have the device open ----
@pytest.fixture
def users(device: str) -> Iterator[list[subprocess.Popen[str]]]:
    code = f"file = open({device!r}); print('up', flush=True); input()"
    found = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for each in found:
        assert each.stdout is not None and each.stdout.readline() == "up\n"
    yield found
    for each in found:
        if each.returncode is None:
            each.communicate("\n", timeout=10)


async def test_who_is_caught_in_a_call_without_end_is_stuck_and_others_are_moved_back(
    cuda_checkpoint: Install, users: list[subprocess.Popen[str]]
) -> None:
    good, bad = users[0].pid, users[1].pid
    calls = cuda_checkpoint(f"import signal\nif sys.argv[-1] == '{bad}': signal.pause()")
    failure, stuck = await CudaMoves(limit_s=2.0).out({1: good, 2: bad})
    assert f"--toggle for process {bad}: no end within" in failure and stuck == (2,)
    assert [int(line.split()[-1]) for line in calls.read_text().splitlines()] == [good, bad, good]


async def test_who_cannot_be_moved_back_is_stuck(cuda_checkpoint: Install, users: list[subprocess.Popen[str]]) -> None:
    # The second cannot be moved, and then the first not back.
    cuda_checkpoint("if len(calls) > 1: sys.exit(1)")
    failure, stuck = await CudaMoves().out({1: users[0].pid, 2: users[1].pid})
    assert f"process {users[1].pid}" in failure and stuck == (1,)


async def test_only_executors_that_stay_are_moved_back_and_who_is_gone_is_no_failure(
    cuda_checkpoint: Install, users: list[subprocess.Popen[str]]
) -> None:
    calls = cuda_checkpoint("if len(calls) > 2: sys.exit(1)")
    moves = CudaMoves()
    pids = {1: users[0].pid, 2: users[1].pid}
    assert await moves.out(pids) == ("", ())
    users[0].communicate("\n", timeout=10)
    assert await moves.back([1]) == ("", ())
    again = [int(line.split()[-1]) for line in calls.read_text().splitlines()[2:]]
    assert again == [pids[1]]


@pytest.mark.gpu
async def test_a_tensor_on_a_real_gpu_is_there_after_the_resume() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    program, reason = await CudaCheckpoint.find()
    if program is None:
        pytest.skip(reason)

    def hold() -> Any:
        import torch

        numbers = torch.arange(1000, device="cuda")
        print("up", flush=True)
        context = until_suspended()
        return context.kind, int((numbers * 2).sum())

    async with machine(cpus=1, gpus=("0",), cuda_checkpoint=True) as worker:
        task = worker.start(hold, gpu_ids=[0], amounts={CPU: UNIT, GPU: UNIT})
        await worker.line(task, "up")
        suspend = Suspend(worker)
        await suspend.quiet()
        await suspend.prepare()
        assert worker.shell.sleep._cuda._moved == [(1, worker.executor_pid(task))]
        assert await suspend.wake() == ""
        assert (await worker.ended(task)).value() == ("resumed", 999_000)
