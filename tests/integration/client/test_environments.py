"""`runtime_env` in real worker processes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import runner

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(60)]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with a module and data, not importable here."""
    folder = tmp_path / "code"
    (folder / "data").mkdir(parents=True)
    (folder / "answers_of_the_folder.py").write_text("ANSWER = 42\n")
    (folder / "data" / "words.txt").write_text("some words")
    return folder


def look_around(variable: str = "") -> tuple[str, int, str, str | None]:
    import answers_of_the_folder  # type: ignore[import-not-found]

    with open("data/words.txt", encoding="utf-8") as file:
        return os.getcwd(), answers_of_the_folder.ANSWER, file.read(), os.environ.get(variable)


look = runner.remote(look_around)


def test_a_working_folder_is_the_current_one_and_importable_also_in_nested_tasks(code: Path) -> None:
    @runner.remote
    def outer() -> Any:
        return look_around("NAME"), runner.get(look.remote("NAME"))

    env = {"working_dir": str(code), "env_vars": {"NAME": "outer"}}
    here, nested = runner.get(outer.options(runtime_env=env).remote(), timeout=30)
    assert here[1:] == nested[1:] == (42, "some words", "outer")
    assert here[0] == nested[0] != os.getcwd()
    assert str(code) not in here[0]


def test_a_task_without_a_folder_does_not_see_that_of_another(code: Path) -> None:
    runner.get(look.options(runtime_env={"working_dir": str(code)}).remote(), timeout=30)
    with pytest.raises(ModuleNotFoundError):
        runner.get(look.remote(), timeout=30)


def test_py_modules_can_be_imported(tmp_path: Path) -> None:
    package = tmp_path / "package_of_this_test"
    package.mkdir()
    (package / "__init__.py").write_text("from package_of_this_test.inner import VALUE\n")
    (package / "inner.py").write_text("VALUE = 'inside'\n")

    @runner.remote
    def value() -> Any:
        import package_of_this_test  # type: ignore[import-not-found]

        return package_of_this_test.VALUE

    assert "package_of_this_test" not in sys.modules
    assert runner.get(value.options(runtime_env={"py_modules": [str(package)]}).remote(), timeout=30) == "inside"


class SlowToLoad:
    def __reduce__(self) -> Any:
        return time.sleep, (60,)


def test_a_start_that_takes_too_long_fails_and_says_where() -> None:
    slow = runner.remote(startup_timeout_s=0.5)(look_around)
    with pytest.raises(
        runner.errors.TaskSetupError, match=r"startup_timeout_s=0.5: it was still loading its arguments"
    ):
        runner.get(slow.remote(SlowToLoad()), timeout=30)  # type: ignore[call-overload]


def test_a_session_has_a_runtime_env_too(script: Any, code: Path) -> None:
    process = script(
        f"""
        import os, runner

        @runner.remote
        def look():
            import answers_of_the_folder
            return answers_of_the_folder.ANSWER, os.environ["SHARED"], os.environ.get("OWN"), os.path.exists("data")

        if __name__ == "__main__":
            env = {{"working_dir": {str(code)!r}, "env_vars": {{"SHARED": "1"}}}}
            with runner.init(num_cpus=1, runtime_env=env):
                print(runner.get(look.remote()))
                print(runner.get(look.options(runtime_env={{"env_vars": {{"OWN": "2"}}}}).remote()))
        """
    )
    out, errors = process.communicate(timeout=50)
    assert out.splitlines() == ["(42, '1', None, True)", "(42, '1', '2', True)"], errors
