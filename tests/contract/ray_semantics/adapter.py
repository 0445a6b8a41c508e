"""`system`: the system under test, by common names.

Whatever has the same name in both is taken as it is: `system.get` is `ray.get` or `runner.get`. The rest is named here.
Tests and the code that they send to workers import nothing else of either system.
"""

from __future__ import annotations

import os
from typing import Any

SWITCH = "RAY_SEMANTICS_SYSTEM"
NAME = os.environ.get(SWITCH) or "runner"


def _load() -> Any:
    if NAME == "ray":
        from tests.contract.ray_semantics.on_ray import OnRay

        return OnRay()
    if NAME == "runner":
        from tests.contract.ray_semantics.on_runner import OnRunner

        return OnRunner()
    raise ValueError(f"{SWITCH}={NAME!r}: the systems are 'runner' and 'ray'")


# Untyped on purpose: half of its names exist in one of the two libraries only.
system: Any = _load()
