"""NVIDIA's `cuda-checkpoint`: moves a process's CUDA state into its host memory, so that a snapshot of the machine can hold it.

Optional: found on PATH, or not. It toggles one process between "running" and "checkpointed".
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

from runner.errors import ClusterError
from runner.worker.process import descendants_of, has_cuda_open

PROGRAM = "cuda-checkpoint"
FIND_S = 10.0
STATE_S = 5.0
KILL_S = 2.0  # for a killed call to be gone; one that the driver holds is left
_TEXT_MAX = 500  # of what the program says, in messages


class CudaCheckpointError(ClusterError):
    """`cuda-checkpoint` failed for a process. Unless it is the error below, the process can use CUDA as before."""


class CudaStateUnknownError(CudaCheckpointError):
    """It failed, and the process's CUDA calls may fail from now on, or never return."""


@dataclass(frozen=True, slots=True)
class CudaCheckpoint:
    """The program, where it was found."""

    path: str

    @classmethod
    async def find(cls) -> tuple[CudaCheckpoint | None, str]:
        """The program if it works here, else None and the reason."""
        path = shutil.which(PROGRAM)
        if path is None:
            return (
                None,
                f"{PROGRAM} is not on PATH; NVIDIA gives it away, for drivers from version 550 on",
            )
        found = cls(path)
        try:
            status, text = await found._call("--help", timeout_s=FIND_S)
        except CudaCheckpointError as error:
            return None, f"{path} --help: {error}"
        if status != 0 or "--toggle" not in text:
            return None, f"{path} --help gave status {status} and no --toggle: {_shown(text)}"
        return found, ""

    async def toggle(self, pid: int, *, within_s: float) -> None:
        """Suspend the CUDA state of a process, or bring it back.

        It is tried once. The driver does not promise to leave a process as it was when it fails (README of the program), so
        another try might go the other way.

        Raises:
            CudaStateUnknownError: it was not over after `within_s`, or the process is in no good state.
            CudaCheckpointError: it failed, and the process can use CUDA.
        """
        what = f"{PROGRAM} --toggle for process {pid}"
        try:
            status, text = await self._call("--toggle", "--pid", str(pid), timeout_s=within_s)
        except CudaStateUnknownError as error:
            raise CudaStateUnknownError(f"{what}: {error}") from None
        if status == 0:
            return
        what += f" gave status {status}: {_shown(text)}"
        state = await self._state(pid)
        if state != "running":
            raise CudaStateUnknownError(f"{what} (its CUDA state is now: {state or 'not known'})")
        raise CudaCheckpointError(what)

    async def _state(self, pid: int) -> str:
        """One of running, locked, checkpointed and failed; empty: not known, as with versions that do not tell."""
        try:
            status, text = await self._call("--get-state", "--pid", str(pid), timeout_s=STATE_S)
        except CudaCheckpointError:
            return ""
        return text.strip() if status == 0 else ""

    async def _call(self, *arguments: str, timeout_s: float) -> tuple[int, str]:
        try:
            process = await asyncio.create_subprocess_exec(
                self.path, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
        except OSError as error:
            raise CudaCheckpointError(f"{self.path} cannot be run: {error}") from error
        try:
            async with asyncio.timeout(timeout_s):
                out, _ = await process.communicate()
        except TimeoutError:
            raise CudaStateUnknownError(f"no end within {max(0.0, timeout_s):.3g} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(KILL_S):
                        await process.wait()
        return process.returncode or 0, out.decode(errors="replace")


def cuda_users(pids: Iterable[int]) -> list[int]:
    """Those of the processes, and of their descendants, that have CUDA open."""
    everyone = dict.fromkeys(each for pid in pids for each in (pid, *descendants_of(pid)))
    return [pid for pid in everyone if has_cuda_open(pid)]


def _shown(text: str) -> str:
    return " ".join(text.split())[:_TEXT_MAX] or "it said nothing"
