"""Folders of a runtime_env, packed here and unpacked as on a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.client import runtime_packages
from runner.client.calls import PickledFunction
from runner.client.runtime_packages import with_runtime_env
from runner.errors import BadOptionsError
from runner.objects.packages import unpack
from runner.runtime_env import RuntimeEnv

FUNCTION = PickledFunction("f-1", "f", b"blob", [], [], [], print)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def unpacked(function: PickledFunction, store: Path) -> dict[str, str]:
    """All files, and the one folder that they lie in."""
    found: dict[str, str] = {}
    for package in function.packages:
        folder = Path(unpack(str(store), package.package_id, package.zip_bytes))
        unpack(str(store), package.package_id, package.zip_bytes)  # as a second process does
        found |= {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return found


def test_a_working_folder_comes_whole_but_for_what_is_excluded(tmp_path: Path) -> None:
    files = {"a.py": "a", "data/b.txt": "b", ".hidden": "c", "big/x.bin": "x", "y.csv": "y", ".git/HEAD": "g"}
    code = write(tmp_path / "code", files)
    (code / "run.sh").write_text("#!/bin/sh")
    (code / "run.sh").chmod(0o755)
    function = with_runtime_env(FUNCTION, RuntimeEnv(working_dir=str(code), excludes=("*.csv", "big/")))
    assert unpacked(function, tmp_path / "store") == {
        "a.py": "a",
        "data/b.txt": "b",
        ".hidden": "c",
        "run.sh": "#!/bin/sh",
    }
    folder = unpack(str(tmp_path / "store"), function.packages[0].package_id, b"")
    assert os.access(Path(folder) / "run.sh", os.X_OK)
    assert function.function_id != FUNCTION.function_id


def test_equal_content_is_one_package(tmp_path: Path) -> None:
    one, two = (write(tmp_path / name, {"a.py": "a", "b.py": "b"}) for name in ("one", "two"))
    env_one, env_two = RuntimeEnv(working_dir=str(one)), RuntimeEnv(working_dir=str(two))
    first, second = with_runtime_env(FUNCTION, env_one), with_runtime_env(FUNCTION, env_two)
    assert (first.function_id, first.packages) == (second.function_id, second.packages)
    write(two, {"b.py": "changed"})
    assert with_runtime_env(FUNCTION, env_two).function_id != first.function_id


def test_modules_lie_under_their_names(tmp_path: Path) -> None:
    package = write(tmp_path / "pkg", {"__init__.py": "", "inner.py": "i"})
    module = write(tmp_path, {"single.py": "s"}) / "single.py"
    function = with_runtime_env(FUNCTION, RuntimeEnv(py_modules=(str(package), str(module))))
    assert unpacked(function, tmp_path / "store") == {"pkg/__init__.py": "", "pkg/inner.py": "i", "single.py": "s"}


def test_many_files_take_several_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_packages, "PACKAGE_MAX_BYTES", 2000)
    code = write(tmp_path / "code", {f"{number}.txt": f"{number}" * 500 for number in range(9)})
    function = with_runtime_env(FUNCTION, RuntimeEnv(working_dir=str(code)))
    assert len(function.packages) > 2
    assert len(unpacked(function, tmp_path / "store")) == 9
    assert len({unpack(str(tmp_path / "store"), each.package_id, b"") for each in function.packages}) == 1


def test_what_is_too_large_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_packages, "PACKAGE_MAX_BYTES", 1000)
    code = tmp_path / "code"
    code.mkdir()
    (code / "noise.bin").write_bytes(os.urandom(5000))
    with pytest.raises(BadOptionsError, match=r"noise.bin has \d+ bytes zipped; 1000 of one file"):
        with_runtime_env(FUNCTION, RuntimeEnv(working_dir=str(code)))
    monkeypatch.setattr(runtime_packages, "TOTAL_MAX_BYTES", 100)
    with pytest.raises(BadOptionsError, match="more than 100 bytes zipped"):
        with_runtime_env(FUNCTION, RuntimeEnv(working_dir=str(code)))
    with pytest.raises(BadOptionsError, match="is not on this machine"):
        with_runtime_env(FUNCTION, RuntimeEnv(working_dir=str(tmp_path / "gone")))


def test_what_the_calling_task_has_is_named_and_not_sent_again(tmp_path: Path) -> None:
    code = write(tmp_path / "code", {"a.py": "a"})
    inherited = ["env-cwd-1.0", "env-py-2.0"]
    plain = with_runtime_env(FUNCTION, RuntimeEnv(), inherited)
    assert [(each.package_id, each.zip_bytes) for each in plain.packages] == [("env-cwd-1.0", b""), ("env-py-2.0", b"")]
    own = with_runtime_env(FUNCTION, RuntimeEnv(working_dir=str(code)), inherited)
    assert [each.package_id for each in own.packages][1:] == ["env-py-2.0"]
    assert own.packages[0].package_id != "env-cwd-1.0"
