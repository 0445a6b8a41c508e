"""Packages of source files on a machine: unpacked once for all executors of it.

Those of a `runtime_env` may have several parts, numbered behind a dot, which fill one folder together.
"""

from __future__ import annotations

import io
import os
import zipfile

from runner.ids import random_id

CWD = "env-cwd-"  # begins the id of a working folder
MODULES = "env-py-"  # begins the id of what `py_modules` names


def is_of_environment(package_id: str) -> bool:
    """Whether it comes from a `runtime_env`: what the task submits has it too."""
    return package_id.startswith((CWD, MODULES))


def unpack(store_path: str, package_id: str, zipped: bytes) -> str:
    """Have the package's files on this machine; returns their folder. Several processes may do so at once."""
    base = package_id.partition(".")[0] if is_of_environment(package_id) else package_id
    folder = os.path.join(store_path, "packages", base)
    done = os.path.join(store_path, "packages", f"{package_id}.unpacked")
    if os.path.exists(done):
        return folder
    os.makedirs(folder, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(zipped)) as archive:
        for info in archive.infolist():
            _write(os.path.join(folder, info.filename), archive.read(info), info.external_attr >> 16)
    with open(done, "wb"):
        return folder


def _write(path: str, data: bytes, mode: int) -> None:
    """Whole or not at all: another process may be reading it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    building = f"{path}.{random_id('new')}"
    with open(building, "wb") as file:
        file.write(data)
    if mode:
        os.chmod(building, mode | 0o400)
    os.replace(building, path)
