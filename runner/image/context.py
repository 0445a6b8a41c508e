"""The build context: a folder with everything that goes into the image, so that the build itself needs no network."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import runner
from runner.errors import BadOptionsError, UsageError

VARIANTS = ("cpu", "cuda", "slim")  # slim: without torch
_PACKAGE = Path(runner.__file__).resolve().parent
# In the repository and, where this package was installed from a wheel, inside the package.
_FILES = {
    "Dockerfile": ("worker_image/Dockerfile", "image/files/Dockerfile"),
    "requirements.txt": ("worker_image/requirements.txt", "image/files/requirements.txt"),
    "constraints.txt": ("constraints.txt", "image/files/constraints.txt"),
}
# What a micro-VM starts with, and how its root file system is filled.
_VM_FILES = {name: (f"worker_image/vm/{name}", f"image/files/vm/{name}") for name in ("early-init", "init", "install")}
_TORCH = ("torch", "numpy")
# What wheels may be built for, where the client's own platform is another: Debian 12 and younger take all of these.
_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
_WHEEL_NAME = re.compile(r"^(?P<name>[A-Za-z0-9_.]+)-(?P<version>[^-]+)-")


@dataclass(frozen=True, slots=True)
class Contents:
    """What is to be in the image."""

    variant: str = "cpu"
    torch_index: str = ""  # where torch's builds for the variant are; empty: wherever pip looks
    extra_packages: tuple[str, ...] = ()  # for user code, as pip names them

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise BadOptionsError(f"variant is {self.variant!r}; it must be one of {', '.join(VARIANTS)}")


def make_context(folder: Path, contents: Contents, tell: Callable[[str], object]) -> None:
    """Fill an empty folder: the Dockerfile, the package as it runs here, and locked wheels from this Python's pip.

    Raises:
        UsageError: pip is missing, or could not get a package; it says which.
        BadOptionsError: torch for the variant cpu came with CUDA.
    """
    for name in _FILES:
        shutil.copyfile(_source(name), folder / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "files")
    shutil.copytree(_PACKAGE, folder / "runner", ignore=ignored)
    lock = folder / "constraints.txt"
    groups: tuple[tuple[str, Sequence[str], str], ...] = (
        ("torch", () if contents.variant == "slim" else _TORCH, contents.torch_index),
        ("base", ("-r", str(folder / "requirements.txt")), ""),
        ("extra", contents.extra_packages, ""),
    )
    have: set[str] = set()
    for group, wanted, index in groups:
        wheels = folder / "wheels" / group
        wheels.mkdir(parents=True)
        if not wanted:
            continue
        tell(f"fetching wheels: {group}")
        _fetch(wheels, wanted, lock, index)
        for wheel in wheels.iterdir():
            if wheel.name in have:
                wheel.unlink()
        new = {wheel.name for wheel in wheels.iterdir()}
        have |= new
        _pin(lock, new)
    if contents.variant == "cpu" and any(name.startswith("nvidia_c") for name in have):
        raise BadOptionsError(
            "torch for the variant cpu came with CUDA libraries (gigabytes); name the index of torch's CPU builds with "
            "--torch-index, or build --variant cuda"
        )


def vm_file(name: str) -> bytes:
    """One of the scripts of micro-VMs: `early-init`, `init` or `install`."""
    return _source(name).read_bytes()


def _source(name: str) -> Path:
    checkout, installed = (_FILES | _VM_FILES)[name]
    for path in (_PACKAGE / installed, _PACKAGE.parent / checkout):
        if path.is_file():
            return path
    raise UsageError(f"{name} of the worker image is missing from this installation of runner; install it again")


def _fetch(folder: Path, wanted: Sequence[str], lock: Path, index: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--only-binary=:all:", "--constraint", str(lock), "--dest", str(folder)]
    command += ["--index-url", index] if index else []
    done = subprocess.run([*command, *_foreign(), *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if line.startswith("ERROR")] or [done.stderr[-2000:]]
        raise UsageError("pip could not get the image's packages:\n" + "\n".join(said))


def _foreign() -> list[str]:
    """Which wheels to take where this process is not what the image will be: Linux of the same processor and Python."""
    if platform.system() == "Linux":
        return []
    machine = {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    flags = ["--implementation", "cp", "--python-version", version]
    for each in _PLATFORMS:
        flags += ["--platform", f"{each}_{machine}"]
    return flags


def _pin(lock: Path, wheels: set[str]) -> None:
    """What one group has got, the next ones must agree with."""
    found = [match for match in map(_WHEEL_NAME.match, sorted(wheels)) if match]
    pins = {match["name"].replace("_", "-").lower(): match["version"].partition("+")[0] for match in found}
    kept = [line for line in lock.read_text(encoding="utf-8").splitlines() if _name_of(line) not in pins]
    lock.write_text("\n".join([*kept, *(f"{name}=={version}" for name, version in pins.items()), ""]), encoding="utf-8")


def _name_of(line: str) -> str:
    return re.split(r"[=<>! ]", line.strip(), maxsplit=1)[0].replace("_", "-").lower()
