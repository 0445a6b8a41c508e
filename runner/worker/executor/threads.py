"""How many threads numerical libraries use in an executor: as many as the task has CPUs, unless the user said otherwise.

Four trainers with two threads each on two cores ran at half the speed of four with one (measured).
"""

from __future__ import annotations

import ctypes
import os
import sys

VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_OPENBLAS_SETTERS = ("scipy_openblas_set_num_threads64_", "openblas_set_num_threads64_", "openblas_set_num_threads")


def use_threads(count: int) -> None:
    """Set what is read when a library is loaded, and tell those that were loaded in the template.

    A variable that is set already is the user's and stays.
    """
    environ = os.environ  # noqa: TID251  libraries read it
    wanted = _number(environ.get("OMP_NUM_THREADS"), count)
    for name in VARIABLES:
        environ.setdefault(name, str(count))
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(wanted)
    if "numpy" in sys.modules:
        _tell_openblas(_number(environ.get("OPENBLAS_NUM_THREADS"), count))


def _number(text: str | None, default: int) -> int:
    """The first level of a list such as `4,2`, as OpenMP reads it."""
    head = (text or "").split(",")[0].strip()
    return int(head) if head.isdecimal() and int(head) else default


def _tell_openblas(count: int) -> None:
    """numpy's own OpenBLAS has read its variable in the template."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        paths = {line.split()[-1] for line in file if "openblas" in line}
    for path in paths:
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        for name in _OPENBLAS_SETTERS:
            setter = getattr(library, name, None)
            if setter is not None:
                setter(ctypes.c_int(count))
                break
