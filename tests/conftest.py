"""What all tests share: the leak check, Hypothesis profiles, and skips that CI does not allow."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.leakcheck import LeakCheck

# Deadlines measure the machine, not the code; the same examples each time in CI.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True)
settings.register_profile("soak", parent=settings.get_profile("dev"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "dev"))


def pytest_configure(config: pytest.Config) -> None:
    check = LeakCheck()
    check.start()
    config.pluginmanager.register(check, "leakcheck")


def gpu_count() -> int:
    """GPUs that NVML sees; 0 without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Give the markers of their folders to tests, and skip GPU tests where there is no GPU."""
    has_gpu = None
    for item in items:
        folders = item.path.parts
        for name in ("integration", "chaos"):
            if name in folders and item.get_closest_marker(name) is None:
                item.add_marker(name)
        if item.get_closest_marker("gpu") is not None:
            has_gpu = gpu_count() > 0 if has_gpu is None else has_gpu
            if not has_gpu:
                item.add_marker(pytest.mark.skip(reason="no GPU that NVML can see"))


@pytest.fixture
def need_service() -> Any:
    """`need_service(present, "what is missing")`: skip here, fail where CI=true."""

    def need(present: bool, what: str) -> None:
        if present:
            return
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have it: {what}")
        pytest.skip(what)

    return need
