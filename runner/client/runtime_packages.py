"""The folders of a `runtime_env`, packed by content: the task's working folder, and packages that it can import."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from runner.client.calls import PickledFunction, SourcePackage
from runner.client.code_shipping import PACKAGE_MAX_BYTES
from runner.errors import BadOptionsError
from runner.objects.packages import CWD, MODULES
from runner.runtime_env import RuntimeEnv

TOTAL_MAX_BYTES = 64 * 1024 * 1024
_SKIPPED = frozenset({".git", "__pycache__"})
_EPOCH = (1980, 1, 1, 0, 0, 0)  # equal content gives equal bytes
_ENTRY_BYTES = 256  # of a zip, beside a file's name (twice) and its data


class _File(NamedTuple):
    name: str  # in the zip
    path: str
    mode: int


def with_runtime_env(function: PickledFunction, env: RuntimeEnv, inherited: Sequence[str] = ()) -> PickledFunction:
    """The function with what `env` adds to its packages; `inherited` are ids of those that the calling task has.

    Raises:
        BadOptionsError: a folder is too large to send.
    """
    packages = [package for path in env.py_modules for package in _pack(MODULES, path, env.excludes)]
    if env.working_dir is not None:
        packages += _pack(CWD, env.working_dir, env.excludes)
    replaced = tuple(kind for kind, own in ((CWD, env.working_dir), (MODULES, env.py_modules)) if own)
    # The cluster has these: only their ids are said.
    packages += [SourcePackage(each, b"") for each in inherited if not each.startswith(replaced)]
    if not packages:
        return function
    digest = hashlib.sha256("\0".join([function.function_id, *(each.package_id for each in packages)]).encode())
    return replace(function, function_id=digest.hexdigest()[:32], packages=[*function.packages, *packages])


def _pack(kind: str, path: str, excludes: Sequence[str]) -> list[SourcePackage]:
    """A folder or file as zips that each fit in a message."""
    top = os.path.basename(path) if kind == MODULES else ""
    if not os.path.exists(path):
        raise BadOptionsError(
            f"runtime_env: {path} is not on this machine. A remote function that tasks call takes the folders of their"
            " runtime_env, or of runner.init(runtime_env=...)."
        )
    files = [_File(top, path, os.stat(path).st_mode)] if os.path.isfile(path) else list(_walk(path, top, excludes))
    digest = hashlib.sha256()
    parts = [_Part()]
    total_bytes = 0
    for each in files:
        with open(each.path, "rb") as file:
            data = file.read()
        digest.update(f"{each.name}\0{each.mode & 0o111}\0{len(data)}\0".encode() + data)
        if parts[-1].raw_bytes and parts[-1].raw_bytes + len(data) > PACKAGE_MAX_BYTES:
            total_bytes += parts[-1].close()
            parts.append(_Part())
        parts[-1].add(each, data)
        if total_bytes > TOTAL_MAX_BYTES:
            break
    total_bytes += parts[-1].close()
    if total_bytes > TOTAL_MAX_BYTES:
        raise BadOptionsError(
            f"runtime_env: {path} has more than {TOTAL_MAX_BYTES} bytes zipped, the limit of what is sent with tasks."
            " Name what they do not need in runtime_env['excludes'], or put data where the machines can read it."
        )
    base = f"{kind}{digest.hexdigest()[:24]}"
    return [SourcePackage(f"{base}.{number}", part.zipped()) for number, part in enumerate(parts)]


class _Part:
    """One zip. Closed when its files together have the limit's bytes before compression: after it they cannot have more."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._archive = zipfile.ZipFile(self._buffer, "w", zipfile.ZIP_DEFLATED)
        self._last = ""
        self.raw_bytes = 0

    def add(self, file: _File, data: bytes) -> None:
        info = zipfile.ZipInfo(file.name, _EPOCH)
        info.external_attr = (file.mode & 0o777) << 16
        self._archive.writestr(info, data, zipfile.ZIP_DEFLATED)
        self._last = file.path
        self.raw_bytes += len(data) + 2 * len(file.name) + _ENTRY_BYTES

    def close(self) -> int:
        """Its size."""
        self._archive.close()
        return self._buffer.tell()

    def zipped(self) -> bytes:
        """Raises BadOptionsError: a file is too large, even when it is alone."""
        data = self._buffer.getvalue()
        if len(data) > PACKAGE_MAX_BYTES + _ENTRY_BYTES:
            raise BadOptionsError(
                f"runtime_env: {self._last} has {len(data)} bytes zipped; {PACKAGE_MAX_BYTES} of one file can be sent with"
                " a task. Name it in runtime_env['excludes'], or put it where the machines can read it."
            )
        return data


def _walk(folder: str, top: str, excludes: Sequence[str]) -> Iterator[_File]:
    for root, dirs, names in os.walk(folder):
        inner = os.path.relpath(root, folder)
        prefix = "" if inner == "." else f"{inner}/"
        dirs[:] = sorted(
            each for each in dirs if each not in _SKIPPED and not _is_excluded(f"{prefix}{each}/", excludes)
        )
        for name in sorted(names):
            path = os.path.join(root, name)
            if os.path.isfile(path) and not name.endswith(".pyc") and not _is_excluded(prefix + name, excludes):
                yield _File(os.path.join(top, prefix + name), path, os.stat(path).st_mode)


def _is_excluded(name: str, patterns: Sequence[str]) -> bool:
    """Whether a path in the folder (a folder's ends with /) or its last part is matched."""
    plain = name.rstrip("/")
    last = plain.rpartition("/")[2]
    for pattern in patterns:
        if pattern.endswith("/") and not name.endswith("/"):
            continue
        wanted = pattern.rstrip("/").removeprefix("/")
        if fnmatch.fnmatchcase(plain, wanted) or ("/" not in pattern.rstrip("/") and fnmatch.fnmatchcase(last, wanted)):
            return True
    return False
