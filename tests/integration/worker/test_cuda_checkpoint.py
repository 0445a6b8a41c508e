"""`cuda-checkpoint` by a stand-in of it, and by the real one where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runner.worker.cuda_checkpoint import CudaCheckpoint, CudaCheckpointError, CudaStateUnknownError, cuda_users
from runner.worker.process import is_running
from tests.integration.worker.conftest import Install

pytestmark = pytest.mark.timeout(60)
WITHIN_S = 30.0


async def found() -> CudaCheckpoint:
    program, reason = await CudaCheckpoint.find()
    assert program is not None, reason
    return program


async def test_where_there_is_none_the_reason_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program, reason = await CudaCheckpoint.find()
    assert program is None
    assert "cuda-checkpoint is not on PATH" in reason


async def test_a_program_that_cannot_toggle_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cuda-checkpoint"
    path.write_text("#!/bin/sh\necho another program; exit 3\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    program, reason = await CudaCheckpoint.find()
    assert program is None
    assert reason.endswith("gave status 3 and no --toggle: another program")


async def test_toggle_names_the_process(cuda_checkpoint: Install) -> None:
    calls = cuda_checkpoint("")
    await (await found()).toggle(4711, within_s=WITHIN_S)
    assert calls.read_text() == "--toggle --pid 4711\n"


@pytest.mark.parametrize("state", ["running", "locked", "checkpointed", "failed"])
async def test_a_failure_says_what_the_program_said_and_what_it_has_left(cuda_checkpoint: Install, state: str) -> None:
    calls = cuda_checkpoint("print('Error: OS call failed', file=sys.stderr); sys.exit(1)")
    (calls.parent / "state").write_text(f"{state}\n")
    with pytest.raises(CudaCheckpointError, match="for process 7 gave status 1: Error: OS call failed") as caught:
        await (await found()).toggle(7, within_s=WITHIN_S)
    assert isinstance(caught.value, CudaStateUnknownError) is (state != "running")
    assert state == "running" or f"its CUDA state is now: {state}" in str(caught.value)
    assert calls.read_text() == "--toggle --pid 7\n", "another try might go the other way"


async def test_a_version_that_tells_no_state_leaves_it_unknown(tmp_path: Path) -> None:
    path = tmp_path / "cuda-checkpoint"
    path.write_text("#!/bin/sh\necho no such option; exit 1\n")
    path.chmod(0o755)
    with pytest.raises(CudaStateUnknownError, match="its CUDA state is now: not known"):
        await CudaCheckpoint(str(path)).toggle(7, within_s=WITHIN_S)


async def test_a_program_that_hangs_is_ended(cuda_checkpoint: Install) -> None:
    calls = cuda_checkpoint("import signal; open(calls_path + '.pid', 'w').write(str(os.getpid())); signal.pause()")
    with pytest.raises(CudaStateUnknownError, match="for process 7: no end within 1 s"):
        await (await found()).toggle(7, within_s=1.0)
    assert calls.read_text() == "--toggle --pid 7\n"
    assert not Path(f"/proc/{Path(f'{calls}.pid').read_text()}").exists()


def test_processes_without_cuda_are_no_users() -> None:
    assert cuda_users([os.getpid()]) == []


def test_a_process_that_has_ended_does_not_run_although_nobody_has_reaped_it() -> None:
    assert is_running(os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not is_running(process.pid)
    assert not is_running(process.pid)


@pytest.mark.gpu
async def test_a_real_process_with_cuda_keeps_its_values() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    program, reason = await CudaCheckpoint.find()
    if program is None:
        pytest.skip(reason)
    code = "import torch; x = torch.arange(5, device='cuda'); print('up', flush=True); input(); print(int(x.sum()))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert cuda_users([process.pid]) == [process.pid]
        await program.toggle(process.pid, within_s=WITHIN_S)
        await program.toggle(process.pid, within_s=WITHIN_S)
        assert process.communicate("\n", timeout=30)[0] == "10\n"
