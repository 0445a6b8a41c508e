"""CUDA memory of executors on its way to host memory before a suspend, and back after it, by NVIDIA's `cuda-checkpoint`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from runner.worker.cuda_checkpoint import CudaCheckpoint, CudaCheckpointError, CudaStateUnknownError, cuda_users
from runner.worker.process import is_running

log = logging.getLogger(__name__)

MOVE_S = 120.0  # of all processes of a machine together, one way; the core waits as much longer


class Moved(NamedTuple):
    """`failure` is empty when it went well. `stuck`: executors with a process whose CUDA calls may never return."""

    failure: str = ""
    stuck: tuple[int, ...] = ()


class CudaMoves:
    """Belongs to the agent. What it knows of a suspend sleeps in the machine's memory, and is there after the resume."""

    def __init__(self, limit_s: float = MOVE_S) -> None:
        """`limit_s`: of one way. When it has to be undone, that may take as long again."""
        self._limit_s = limit_s
        self._program: CudaCheckpoint | None = None
        self._is_told = False  # that there is no program
        self._moved: list[tuple[int, int]] = []  # (executor, process)

    async def out(self, executors: Mapping[int, int]) -> Moved:
        """Move what those executors (number to process) and their children have; all of it, or nothing.

        Nothing is to do where none of them uses CUDA, or where there is no program, which is logged once.
        """
        self._moved = []
        users = await asyncio.to_thread(_users, executors)
        if not users or not await self._find():
            return Moved()
        until_s = self._now_s() + self._limit_s
        for number, pid in users:
            try:
                await self._toggle(pid, until_s)
            except CudaCheckpointError as error:
                undone = await self.back(executors)
                stuck = set(undone.stuck) | ({number} if isinstance(error, CudaStateUnknownError) else set())
                return Moved(
                    f"CUDA memory could not be moved to host memory: {error}; free it in a before_suspend hook, or start "
                    f"the coordinator without RUNNER_CUDA_CHECKPOINT",
                    tuple(sorted(stuck)),
                )
            self._moved.append((number, pid))
        return Moved()

    async def back(self, numbers: Iterable[int]) -> Moved:
        """Undo what `out` has done, for these executors. Goes on after a failure, and tells the first."""
        staying = set(numbers)
        moved, self._moved = self._moved, []
        until_s = self._now_s() + self._limit_s
        failure, stuck = "", set()
        for number, pid in reversed(moved):
            if number not in staying:
                continue
            try:
                await self._toggle(pid, until_s)
            except CudaCheckpointError as error:
                failure = failure or f"CUDA memory could not be moved back to its GPU: {error}"
                stuck.add(number)
        return Moved(failure, tuple(sorted(stuck)))

    async def _toggle(self, pid: int, until_s: float) -> None:
        assert self._program is not None
        try:
            await self._program.toggle(pid, within_s=until_s - self._now_s())
        except CudaCheckpointError:
            if is_running(pid):  # else its memory is gone with it, and an executor's end has consequences of its own
                raise

    async def _find(self) -> bool:
        self._program, reason = await CudaCheckpoint.find()
        if self._program is None and not self._is_told:
            self._is_told = True
            log.warning(
                "CUDA memory is not moved before a suspend, although RUNNER_CUDA_CHECKPOINT asks for it: %s", reason
            )
        return self._program is not None

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def _users(executors: Mapping[int, int]) -> list[tuple[int, int]]:
    return [(number, pid) for number, executor in sorted(executors.items()) for pid in cuda_users([executor])]
