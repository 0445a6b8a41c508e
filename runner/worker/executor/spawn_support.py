"""Makes multiprocessing work inside executors, with every start method."""

from __future__ import annotations

import sys
import types
from multiprocessing import reduction
from typing import Any

import cloudpickle


def replace_main() -> None:
    """Give this process and its children an empty `__main__`: spawned ones would else import the coordinator's again."""
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.argv = [""]


def pickle_by_value() -> None:
    """Let spawned children receive functions and classes of the user's script.

    Those came here by value and sit in no module that a child could import. Only they are treated so; everything else is pickled
    as multiprocessing does it.
    """
    setattr(reduction.ForkingPickler, "reducer_override", _reduce)  # noqa: B010  the stubs call it final


def _reduce(_pickler: Any, obj: Any) -> Any:
    if isinstance(obj, type | types.FunctionType) and _is_homeless(obj):
        return cloudpickle.loads, (cloudpickle.dumps(obj),)
    return NotImplemented


def _is_homeless(obj: Any) -> bool:
    module = sys.modules.get(obj.__module__) if isinstance(obj.__module__, str) else None
    if module is None:
        return True
    found: Any = module
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is not obj
