from __future__ import annotations

import sys
import types

import pytest

from runner.providers.gpus import detect_gpus

UUIDS = ("GPU-aaaa-1", "GPU-aabb-2", "GPU-cccc-3")


class NvmlError(Exception):
    pass


@pytest.fixture
def driver(monkeypatch) -> types.SimpleNamespace:
    """A driver with three devices, in place of the library that talks to a real one."""
    nvml = types.SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(UUIDS),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda index: UUIDS[index],
        nvmlDeviceGetName=lambda index: f"Test GPU {index}",
        nvmlDeviceGetMemoryInfo=lambda index: types.SimpleNamespace(total=(index + 1) << 30),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return nvml


def test_all_devices_with_name_and_memory(driver) -> None:
    gpus = detect_gpus()
    assert [gpu.token for gpu in gpus] == list(UUIDS)
    assert (gpus[2].name, gpus[2].memory_bytes) == ("Test GPU 2", 3 << 30)


def test_no_driver_means_no_gpus(driver) -> None:
    def fail() -> None:
        raise NvmlError("library not found")

    driver.nvmlInit = fail
    assert detect_gpus() == ()
    assert detect_gpus("0") == ()


def test_a_driver_that_breaks_later_means_no_gpus(driver) -> None:
    def fail(index: int) -> str:
        raise NvmlError("GPU is lost")

    driver.nvmlDeviceGetUUID = fail
    assert detect_gpus() == ()


def test_without_the_library_there_are_none(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert detect_gpus() == ()


@pytest.mark.parametrize(
    ("visible", "tokens"),
    [
        ("", []),
        ("-1", []),
        ("1", ["1"]),
        ("2,0", ["2", "0"]),
        ("0,0,1", ["0"]),
        ("0,7,1", ["0"]),
        ("0,,1", ["0"]),
        ("GPU-cccc-3, GPU-aabb-2", ["GPU-cccc-3", "GPU-aabb-2"]),
        ("GPU-c", ["GPU-cccc-3"]),
        ("GPU-aa", []),
        ("MIG-1234", ["MIG-1234"]),
        ("nonsense", []),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(driver, monkeypatch, visible, tokens) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.token for gpu in detect_gpus()] == tokens


def test_torch_is_not_loaded_to_count_gpus(driver, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # an import would raise
    assert len(detect_gpus()) == 3
