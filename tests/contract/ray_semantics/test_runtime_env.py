"""Environments of tasks and actors."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system


@system.remote
def read(name: str = "SEMANTICS_VAR") -> str | None:
    return os.environ.get(name)


class Reader:
    def read(self) -> str | None:
        return os.environ.get("SEMANTICS_VAR")


def env(**variables: str) -> dict[str, Any]:
    return {"runtime_env": {"env_vars": variables}}


def test_env_vars_reach_the_task_and_no_other() -> None:
    with_it = read.options(**env(SEMANTICS_VAR="yes"))
    assert system.get([with_it.remote(), read.remote(), with_it.remote()]) == ["yes", None, "yes"]


def test_env_vars_reach_an_actor() -> None:
    assert system.get(system.remote(Reader).options(**env(SEMANTICS_VAR="actor")).remote().read.remote()) == "actor"


def test_tasks_inherit_env_vars_from_the_task_that_submits_them() -> None:
    @system.remote
    def outer() -> Any:
        return system.get(read.remote())

    assert system.get(outer.options(**env(SEMANTICS_VAR="handed down")).remote()) == "handed down"


def test_env_vars_must_be_text() -> None:
    with pytest.raises((TypeError, ValueError)):
        system.get(read.options(runtime_env={"env_vars": {"SEMANTICS_VAR": 5}}).remote())


def test_working_dir_is_where_the_task_runs(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("content")
    (tmp_path / "beside_it.py").write_text("value = 7")

    @system.remote(runtime_env={"working_dir": str(tmp_path)})
    def look() -> tuple[str, int]:
        return Path("data.txt").read_text(), importlib.import_module("beside_it").value

    assert system.get(look.remote()) == ("content", 7)


def test_py_modules_can_be_imported(tmp_path: Path) -> None:
    package = tmp_path / "carried_package"
    package.mkdir()
    (package / "__init__.py").write_text("value = 8")

    @system.remote(runtime_env={"py_modules": [str(package)]})
    def look() -> int:
        return int(importlib.import_module("carried_package").value)

    assert system.get(look.remote()) == 8


def test_a_working_dir_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="missing"):
        system.get(read.options(runtime_env={"working_dir": str(tmp_path / "missing")}).remote())
