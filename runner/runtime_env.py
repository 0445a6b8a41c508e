"""`runtime_env`: what the process of a task is given beside its function. Ray's keys and meanings, checked where they are written."""

from __future__ import annotations

import math
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

from runner.errors import BadOptionsError, BadTypeError

KEYS = ("env_vars", "working_dir", "py_modules", "excludes", "config")
_CONFIG_KEYS = ("setup_timeout_seconds", "eager_install")
_IMAGE_KEYS = frozenset({"pip", "uv", "conda", "container", "image_uri", "java_jars", "nsight", "rocprof_sys"})


@dataclass(frozen=True, slots=True)
class RuntimeEnv:
    """A checked `runtime_env`. Folders are absolute paths of this host; they are packed when a call is first made."""

    env_vars: Mapping[str, str] = field(default_factory=dict)
    working_dir: str | None = None  # its content is the task's current folder, and importable
    py_modules: tuple[str, ...] = ()  # folders of packages, or files of modules, that can be imported
    excludes: tuple[str, ...] = ()  # patterns of what stays behind, as in "*.csv" or "data/"
    setup_timeout_s: float | None = None

    def over(self, outer: RuntimeEnv) -> RuntimeEnv:
        """This one laid over that of the session or of the calling task: variables add up, anything else replaces."""
        return replace(
            self,
            env_vars={**outer.env_vars, **self.env_vars},
            working_dir=self.working_dir or outer.working_dir,
            py_modules=self.py_modules or outer.py_modules,
            excludes=self.excludes or outer.excludes,
            setup_timeout_s=self.setup_timeout_s or outer.setup_timeout_s,
        )


NONE = RuntimeEnv()


def parse_runtime_env(name: str, value: Any) -> RuntimeEnv:
    """Check a `runtime_env`.

    Raises:
        BadOptionsError: an unknown key (the valid ones are listed), or a value that cannot work.
        BadTypeError: a value of the wrong type.
    """
    if isinstance(value, RuntimeEnv):
        return value
    if not isinstance(value, Mapping):
        raise _bad_type(name, value, 'a dict such as {"env_vars": {"KEY": "value"}}')
    for key in value:
        if key not in KEYS:
            raise _unknown(name, key)
    given = {key: item for key, item in value.items() if item is not None}
    return RuntimeEnv(
        env_vars=_env_vars(f"{name}['env_vars']", given.get("env_vars", {})),
        working_dir=_folder(f"{name}['working_dir']", given["working_dir"]) if "working_dir" in given else None,
        py_modules=_modules(f"{name}['py_modules']", given.get("py_modules", ())),
        excludes=_patterns(f"{name}['excludes']", given.get("excludes", ())),
        setup_timeout_s=_timeout(f"{name}['config']", given.get("config", {})),
    )


def is_text(value: Any) -> TypeGuard[str]:
    """Whether it can be part of an environment: no NUL, no halves of characters."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= each <= "\udfff" for each in value)


def _unknown(name: str, key: Any) -> BadOptionsError:
    hint = ""
    if key in _IMAGE_KEYS:
        hint = " What a task needs installed belongs into the machines' image: see docs/container.md."
    return BadOptionsError(f"{name} has the unknown key {key!r}.{hint} Valid keys are: {', '.join(KEYS)}.")


def _env_vars(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _bad_type(name, value, "a dict of str to str")
    for key, text in value.items():
        if not is_text(key) or not key or "=" in key:
            kind = BadOptionsError if isinstance(key, str) else BadTypeError
            raise kind(f"{name}: the name {key!r} cannot work: expected a text without = and NUL.")
        if not is_text(text):
            kind = BadOptionsError if isinstance(text, str) else BadTypeError
            raise kind(f"{name}[{key!r}]={text!r} cannot work: expected a text without NUL.")
    return dict(value)


def _folder(name: str, value: Any) -> str:
    path = _path(name, value)
    if not os.path.isdir(path):
        raise BadOptionsError(f"{name}={value!r} cannot work: there is no such folder on this host.")
    return path


def _modules(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise _bad_type(name, value, "a list of folders, .py files or modules")
    return tuple(_module(name, each) for each in value)


def _module(name: str, value: Any) -> str:
    if isinstance(value, types.ModuleType):
        file = getattr(value, "__file__", None)
        if file is None:
            raise BadOptionsError(f"{name}: the module {value.__name__} has no file to send.")
        value = os.path.dirname(file) if os.path.basename(file) == "__init__.py" else file
    path = _path(name, value)
    if not os.path.isdir(path) and not (path.endswith(".py") and os.path.isfile(path)):
        raise BadOptionsError(f"{name}: {value!r} cannot work: expected a folder or .py file that exists on this host.")
    return path


def _path(name: str, value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise _bad_type(name, value, "the path of a local folder")
    text = os.fspath(value)
    if "://" in str(text):
        raise BadOptionsError(f"{name}={text!r} cannot work: only folders of this host are sent, no URIs.")
    return os.path.abspath(os.path.expanduser(str(text)))


def _patterns(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(each, str) for each in value):
        raise _bad_type(name, value, 'a list of patterns such as "*.csv" or "data/"')
    return tuple(value)


def _timeout(name: str, value: Any) -> float | None:
    if not isinstance(value, Mapping):
        raise _bad_type(name, value, 'a dict such as {"setup_timeout_seconds": 60}')
    for key in value:
        if key not in _CONFIG_KEYS:
            raise BadOptionsError(f"{name} has the unknown key {key!r}. Valid keys are: {', '.join(_CONFIG_KEYS)}.")
    seconds = value.get("setup_timeout_seconds")
    if seconds is None or seconds == -1:  # Ray's word for "no limit"
        return None
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise _bad_type(f"{name}['setup_timeout_seconds']", seconds, "seconds > 0, or -1")
    if not seconds > 0 or not math.isfinite(seconds):
        raise BadOptionsError(f"{name}['setup_timeout_seconds']={seconds} cannot work: expected seconds > 0, or -1.")
    return float(seconds)


def _bad_type(name: str, value: Any, expected: str) -> BadTypeError:
    return BadTypeError(f"{name}={value!r} cannot work: expected {expected}.")
