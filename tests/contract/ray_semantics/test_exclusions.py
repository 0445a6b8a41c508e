"""The table of exclusions names tests that exist, once each, with a reason."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.contract.ray_semantics import exclusions


def test_each_entry_names_a_test_and_a_system_and_says_why() -> None:
    names = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        functions = (
            node
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        )
        names |= {f"{path.stem.removeprefix('test_')}::{function.name}" for function in functions}
    entries = exclusions.load()

    assert [entry for entry in entries if entry.test not in names] == []
    assert [entry for entry in entries if entry.on not in {"ray", "runner"} or not entry.why.strip()] == []
    keys = [(entry.test, entry.on) for entry in entries]
    assert len(keys) == len(set(keys))
