"""`import runner` is cheap: nothing large is loaded before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "grpc", "google.protobuf", "cryptography", "numpy", "rich", "click", "sqlite3")


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh process has after the statement."""
    code = f"{statement}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_runner_loads_nothing_large() -> None:
    assert loaded_after("import runner").isdisjoint(HEAVY)


def test_a_decorated_function_loads_nothing_large() -> None:
    code = "import runner\n@runner.remote(num_cpus=2)\ndef f(): ...\n"

    assert loaded_after(code).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    "module", ["runner.core.values", "runner.worker.agent.machine", "runner.client.session_machine"]
)
def test_a_pure_module_loads_no_grpc(module: str) -> None:
    assert "grpc" not in loaded_after(f"import {module}")


def test_every_public_name_exists() -> None:
    import runner

    assert [name for name in runner.__all__ if not hasattr(runner, name)] == []
