from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def check(path: Path, cache: Path) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(cache), "--no-error-summary", "--hide-error-context", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_types_are_inferred(cache: Path) -> None:
    assert check(HERE / "good.py", cache) == ""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_pyright_infers_the_same() -> None:
    """With basedpyright, a build of pyright that pip installs whole; pyright's own package fetches it from npm."""
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip("basedpyright is not installed")
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--level", "error"]
    done = subprocess.run([*command, str(HERE / "good.py")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_bad_calls_are_rejected(cache: Path, tmp_path: Path) -> None:
    source = (HERE / "bad.py.txt").read_text()
    expected = {
        number: match[1]
        for number, line in enumerate(source.splitlines(), 1)
        if (match := re.search(r"# E: ([\w-]+)", line))
    }
    path = tmp_path / "bad_calls.py"
    path.write_text(source)
    found = {
        int(match[1]): match[2]
        for match in re.finditer(r"bad_calls\.py:(\d+): error: .*\[([\w-]+)\]", check(path, cache))
    }
    assert found == expected
