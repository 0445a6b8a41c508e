from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.worker.actor_harness import Forker

Install = Callable[[str], Path]

_STAND_IN = """
import os, sys
if "--help" in sys.argv:
    print("CUDA checkpoint and restore utility.\\n  --toggle --pid <value>")
    sys.exit(0)
folder = os.path.dirname(__file__)
if "--get-state" in sys.argv:
    path = os.path.join(folder, "state")
    print(open(path).read() if os.path.exists(path) else "running")
    sys.exit(0)
calls_path = os.path.join(folder, "calls")
with open(calls_path, "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
calls = open(calls_path).readlines()
"""


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    forker = Forker()
    yield forker
    forker.close()


@pytest.fixture
def cuda_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Have a stand-in of NVIDIA's program that notes its toggles, one a line in the file that is returned, and runs the code.

    A file "state" beside that says which CUDA state every process is in; without it they are "running".
    """

    def write(code: str) -> Path:
        path = tmp_path / "cuda-checkpoint"
        path.write_text(f"#!{sys.executable}\n{_STAND_IN}{textwrap.dedent(code)}")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        calls = tmp_path / "calls"
        calls.touch()
        return calls

    return write
