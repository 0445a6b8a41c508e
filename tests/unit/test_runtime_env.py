"""What `runtime_env` takes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.errors import BadOptionsError
from runner.runtime_env import NONE, RuntimeEnv, parse_runtime_env


def test_all_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "one.py").write_text("")
    monkeypatch.chdir(tmp_path)
    env = parse_runtime_env(
        "runtime_env",
        {
            "env_vars": {"A": "1"},
            "working_dir": "code",
            "py_modules": [tmp_path / "one.py", json],
            "excludes": ["*.csv"],
            "config": {"setup_timeout_seconds": 5, "eager_install": True},
        },
    )
    assert env.env_vars == {"A": "1"}
    assert env.working_dir == str(tmp_path / "code")
    assert env.py_modules == (str(tmp_path / "one.py"), str(Path(json.__file__).parent))
    assert (env.excludes, env.setup_timeout_s) == (("*.csv",), 5.0)
    assert parse_runtime_env("runtime_env", env) is env
    assert parse_runtime_env("runtime_env", {"working_dir": None, "env_vars": None}) == NONE


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        ({"piip": []}, ValueError, "unknown key 'piip'. Valid keys are: env_vars, working_dir"),
        ({"pip": ["torch"]}, ValueError, "image: see docs/container.md"),
        ({"env_vars": {"A": 1}}, TypeError, r"env_vars'\]\['A'\]"),
        ({"env_vars": {1: "A"}}, TypeError, "the name 1"),
        ({"env_vars": {"A=": "x"}}, ValueError, "the name 'A='"),
        ({"working_dir": 5}, TypeError, "working_dir"),
        ({"working_dir": "/no/such/folder"}, ValueError, "no such folder"),
        ({"working_dir": "s3://bucket/x.zip"}, ValueError, "no URIs"),
        ({"py_modules": "/tmp"}, TypeError, "py_modules"),
        ({"py_modules": ["/no/such/file.py"]}, ValueError, "exists on this host"),
        ({"excludes": "*.csv"}, TypeError, "excludes"),
        ({"config": 5}, TypeError, "config"),
        ({"config": {"timeout": 5}}, ValueError, "setup_timeout_seconds"),
        ({"config": {"setup_timeout_seconds": "5"}}, TypeError, "setup_timeout_seconds"),
        ({"config": {"setup_timeout_seconds": 0}}, ValueError, "expected seconds > 0"),
    ],
)
def test_what_cannot_work_is_refused_by_name(value: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        parse_runtime_env("runtime_env", value)
    assert isinstance(caught.value, BadOptionsError)


def test_variables_add_up_and_the_rest_replaces() -> None:
    outer = RuntimeEnv(env_vars={"A": "1", "B": "1"}, working_dir="/outer", setup_timeout_s=9.0)
    inner = RuntimeEnv(env_vars={"B": "2"}, py_modules=("/mine",))
    both = inner.over(outer)
    assert both.env_vars == {"A": "1", "B": "2"}
    assert (both.working_dir, both.py_modules, both.setup_timeout_s) == ("/outer", ("/mine",), 9.0)
