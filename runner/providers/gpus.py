"""The GPUs of this host, asked from the driver (NVML). Never touches CUDA: a process that did can no longer fork."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Any

_KIND = re.compile(r"\w+\s+([A-Z0-9]+)")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device. `token` is what CUDA_VISIBLE_DEVICES must say to get exactly this one."""

    token: str
    name: str
    memory_bytes: int


def detect_gpus(visible: str | None = None) -> tuple[Gpu, ...]:
    """The devices that this process may use; none where there is no driver.

    `visible` has the meaning of CUDA_VISIBLE_DEVICES, which is its default: a comma-separated list of indexes or UUIDs (or unique
    beginnings of them) that ends at the first entry that names no device.
    """
    if visible is None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # noqa: TID251 - CUDA's variable, no setting of ours
    devices = _list_devices()
    if visible is None:
        return tuple(devices)
    chosen: list[Gpu] = []
    for entry in visible.split(","):
        device = _match(entry.strip(), devices)
        if device is None or device.token in {gpu.token for gpu in chosen}:
            break  # as CUDA does: nothing after an invalid entry counts
        chosen.append(device)
    return tuple(chosen)


def kind_of(name: str) -> str | None:
    """What `accelerator_type=` calls a device of this name, as in Ray: "NVIDIA H100 80GB HBM3" is an "H100"."""
    match = _KIND.match(name)
    return match[1] if match else None


def _match(entry: str, devices: list[Gpu]) -> Gpu | None:
    if entry.isdigit():
        # CUDA's own order may differ from NVML's where devices differ; with the number as token the right device
        # is used in any case, and only the name shown can be another device's.
        index = int(entry)
        return Gpu(entry, devices[index].name, devices[index].memory_bytes) if index < len(devices) else None
    if entry.startswith("MIG-"):
        return Gpu(entry, "MIG slice", 0) if devices else None
    matches = [gpu for gpu in devices if entry.startswith("GPU-") and gpu.token.startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _list_devices() -> list[Gpu]:
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver, or a driver without devices
    try:
        return [_describe(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def _describe(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return Gpu(
        token=str(nvml.nvmlDeviceGetUUID(handle)),
        name=str(nvml.nvmlDeviceGetName(handle)),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
    )
