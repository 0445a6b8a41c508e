"""What a machine's configuration may say, and what the simulator fills in."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping
from typing import Any

from runner.flysim.answers import ApiError, bad_request
from runner.flysim.cloud import Cloud

_MB_PER_CPU = {"shared": (256, 2048), "performance": (2048, 8192)}
_PRESETS = {
    **{f"shared-cpu-{cpus}x": ("shared", cpus, 256 * cpus) for cpus in (1, 2, 4, 6, 8)},
    **{f"performance-{cpus}x": ("performance", cpus, 2048 * cpus) for cpus in (1, 2, 4, 8, 16)},
}
_POLICIES = ("no", "always", "on-failure")
_SUSPEND_MEMORY_MB = 2048


def checked_config(cloud: Cloud, config: Any) -> dict[str, Any]:
    """The configuration with its defaults, or a refusal. Keys that are not known are kept. [1.4 config]"""
    if not isinstance(config, Mapping):
        raise bad_request("config is required")
    checked: dict[str, Any] = copy.deepcopy(dict(config))
    image = checked.get("image")
    if not isinstance(image, str) or not image:
        raise bad_request("config.image is required")
    checked["guest"] = checked_guest(checked)
    checked.pop("size", None)
    check_restart(checked.get("restart"))
    for name in ("env", "metadata"):
        check_strings(checked, name)
    if len(checked.get("mounts") or []) > 1:
        raise bad_request("a machine can have one volume at most")
    if cloud.settings.missing_image_at == "create":
        check_image(cloud, image)
    return checked


def checked_guest(config: Mapping[str, Any]) -> dict[str, Any]:
    """CPUs and memory within the limits of their kind; `size` names a preset and excludes `guest`. [1.4 guest]"""
    size, guest = config.get("size"), config.get("guest")
    if size and guest:
        raise bad_request("config.size and config.guest exclude each other")
    if size:
        if size not in _PRESETS:
            check_no_gpu({"gpu_kind": size if size.startswith(("a10", "a100", "l40s")) else ""})
            raise bad_request(f"unknown machine size {size!r}")
        kind, cpus, memory_mb = _PRESETS[size]
        return {"cpu_kind": kind, "cpus": cpus, "memory_mb": memory_mb}
    full = {"cpu_kind": "shared", "cpus": 1, **(guest or {})}
    check_no_gpu(full)
    if full["cpu_kind"] not in _MB_PER_CPU:
        raise bad_request(f"invalid cpu_kind {full['cpu_kind']!r}")
    low, high = _MB_PER_CPU[full["cpu_kind"]]
    cpus = full["cpus"]
    full.setdefault("memory_mb", low * cpus)
    memory_mb = full["memory_mb"]
    if not all(isinstance(each, int) and each > 0 for each in (cpus, memory_mb)) or cpus > 16:
        raise bad_request(f"invalid guest: {cpus} CPUs with {memory_mb} MB")
    if memory_mb % 256 or not low * cpus <= memory_mb <= high * cpus:
        raise bad_request(
            f"invalid memory size {memory_mb} MB for {cpus} {full['cpu_kind']} CPUs: "
            f"a multiple of 256 from {low * cpus} to {high * cpus} is allowed"
        )
    return full


def check_no_gpu(guest: Mapping[str, Any]) -> None:
    """GPUs are gone. What the API answers today is unconfirmed: the words are flyctl's, the 422 is ours. [0.1, 1.6 GPU kinds]"""
    if guest.get("gpu_kind") or guest.get("gpus"):
        raise ApiError(422, "GPU machines are no longer supported")


def check_restart(restart: Any) -> None:
    """The policy is one of three words. [1.4 restart policy]"""
    if restart is not None and restart.get("policy", "on-failure") not in _POLICIES:
        raise bad_request(f"invalid restart policy {restart.get('policy')!r}")


def check_strings(config: Mapping[str, Any], name: str) -> None:
    """Environment and metadata are maps of strings. [1.4 config]"""
    value = config.get(name)
    if value is not None and not all(isinstance(each, str) for pair in value.items() for each in pair):
        raise bad_request(f"config.{name} must map strings to strings")


def is_known_image(cloud: Cloud, image: str) -> bool:
    """Whether this image exists: there is no registry, only patterns in the settings. [1.3 create can fail]"""
    return any(fnmatch.fnmatchcase(image, pattern) for pattern in cloud.settings.images)


def check_image(cloud: Cloud, image: str) -> None:
    """An image that does not exist is refused. Status and words are unconfirmed. [1.3 create can fail]"""
    if not is_known_image(cloud, image):
        raise ApiError(400, f"failed to resolve image {image!r}: manifest unknown")


def check_can_suspend(config: Mapping[str, Any]) -> None:
    """At most 2 GB, no swap, no schedule, no GPU. Status and words are unconfirmed. [1.7 needs]"""
    reasons = []
    if config["guest"]["memory_mb"] > _SUSPEND_MEMORY_MB:
        reasons.append(f"it has more than {_SUSPEND_MEMORY_MB} MB of memory")
    if (config.get("init") or {}).get("swap_size_mb"):
        reasons.append("it has swap")
    if config.get("schedule"):
        reasons.append("it has a schedule")
    if reasons:
        raise ApiError(400, f"failed_precondition: machine cannot be suspended: {', '.join(reasons)}")


def seconds_of(value: Any, default_s: float) -> float:
    """A duration: seconds or a Go string such as `15s` or `1m30s`; large integers are nanoseconds. [1.4 durations]"""
    if value is None or value == "":
        return default_s
    if isinstance(value, int | float):
        return value / 1e9 if value >= 1e6 else float(value)
    total_s, number = 0.0, ""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 1e-6, "ns": 1e-9}
    text, index = str(value), 0
    while index < len(text):
        if text[index].isdigit() or text[index] == ".":
            number += text[index]
            index += 1
            continue
        unit = text[index : index + 2] if text[index : index + 2] in units else text[index]
        if unit not in units or not number:
            raise bad_request(f"invalid duration {value!r}")
        total_s, number = total_s + float(number) * units[unit], ""
        index += len(unit)
    return total_s + float(number or 0.0)
