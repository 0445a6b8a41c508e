"""What a process must keep to so that its forks work, and whether it has. Measured with torch 2.13.

One thread: with more, a matmul here makes every child hang. Never CUDA: a child's first CUDA call fails or hangs.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping

from runner.worker.process import has_cuda_open

# numpy, torch and scikit-learn take their number of threads from these; the last keeps tokenizers from starting any.
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# No device is to be seen: code that asks torch.cuda.is_available() stays on the CPU.
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
# For threads that are about to end, such as those of a pool that was shut down without waiting.
_THREADS_END_S = 0.5


@contextlib.contextmanager
def kept(*, hide_gpus: bool = False) -> Iterator[None]:
    """Run code that is to leave a process that can be forked. Executors set their own counts and devices later."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # noqa: TID251  torch reads it, also in children: asking uses no CUDA
    with _environment(_ONE_THREAD | _NO_GPU if hide_gpus else _ONE_THREAD):
        limit_torch()
        yield
        limit_torch()  # imported meanwhile


def limit_torch() -> None:
    """One thread for torch, if it is imported."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)


def has_used_cuda() -> bool:
    """Whether torch has initialised CUDA in this process."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda is not None and bool(cuda.is_initialized())


def why_unfit() -> str:
    """Why this process must not be forked; empty: it may. Waits a moment for threads that are about to end."""
    # torch's word is not enough: other libraries use CUDA too, and torch itself does to count devices where NVML is missing.
    if has_used_cuda() or has_cuda_open(os.getpid()):
        return "it has used CUDA, which does not survive a fork"
    deadline_s = time.monotonic() + _THREADS_END_S
    while (threads := other_threads()) and time.monotonic() < deadline_s:
        time.sleep(0.01)
    if not threads:
        return ""
    return f"threads of its live on, which do not survive a fork: {', '.join(sorted(threads))}"


def other_threads() -> list[str]:
    """Names of all threads of this process but the main one: as Python knows them, else as the kernel does."""
    known = {each.native_id: each.name for each in threading.enumerate()}
    found = []
    for name in os.listdir("/proc/self/task"):
        if int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError), open(f"/proc/self/task/{name}/comm", encoding="utf-8") as file:
            found.append(known.get(int(name)) or file.read().strip())
    return found


@contextlib.contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    environ = os.environ  # noqa: TID251  libraries read it
    before = {name: environ.get(name) for name in wanted}
    environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
